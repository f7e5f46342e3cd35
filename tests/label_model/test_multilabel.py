"""Several labels per text: the annotators' weights, and how many labels come out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit

from backend.label_model.multilabel import (
    LABELS_PER_TEXT,
    UNLISTED_PROBABILITY,
    MultilabelAnnotator,
    MultilabelModel,
    aggregate_multilabel,
    fit_multilabel_model,
)

N_TEXTS, N_LABELS = 400, 10


def simulated_pool(rng, separations, *, share=0.13, preference=1.0):
    """True labels (n, L), and probabilities by annotator whose log-odds are that far apart."""
    truth = rng.random((N_TEXTS, N_LABELS)) < share
    probabilities = {}
    for name, separation in separations.items():
        preferences = rng.normal(0, preference, N_LABELS)
        probabilities[name] = expit(
            separation * truth + rng.normal(0, 1, truth.shape) + preferences
        )
    return truth, probabilities


def errors(posterior, truth):
    return float(((posterior - truth) ** 2).sum(axis=1).mean())


def f1(posterior, truth):
    found = posterior >= 0.5
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def human_rows(truth, n):
    return {row: frozenset(np.flatnonzero(truth[row]).tolist()) for row in range(n)}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_useless_annotator_hardly_counts_and_does_no_harm(rng):
    truth, probabilities = simulated_pool(rng, {"good": 3.0, "useless": 0.0})
    label_model = fit_multilabel_model(probabilities)
    assert label_model.annotators["good"].weight > 10 * label_model.annotators["useless"].weight
    alone = fit_multilabel_model({"good": probabilities["good"]}).posterior(
        {"good": probabilities["good"]}
    )
    together = label_model.posterior(probabilities)
    assert f1(together, truth) > f1(alone, truth) - 0.02
    assert f1(together, truth) > f1(aggregate_multilabel(probabilities), truth) + 0.2
    assert errors(together, truth) < 0.5 * errors(aggregate_multilabel(probabilities), truth)


def test_two_good_annotators_are_better_than_one(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.5, "two": 2.5})
    alone = fit_multilabel_model({"one": probabilities["one"]}).posterior(
        {"one": probabilities["one"]}
    )
    assert (
        f1(fit_multilabel_model(probabilities).posterior(probabilities), truth)
        > f1(alone, truth) + 0.05
    )


def test_as_many_labels_come_out_as_are_expected(rng):
    _, probabilities = simulated_pool(rng, {"one": 2.0, "two": 1.0}, preference=3.0)
    posterior = fit_multilabel_model(probabilities).posterior(probabilities)
    assert (posterior >= 0.5).sum(axis=1).mean() == pytest.approx(LABELS_PER_TEXT, abs=0.02)


def test_human_labels_set_how_many_labels_there_are_and_which_are_common(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.0, "two": 1.0}, share=0.3)
    truth[:, 0] = True
    known = human_rows(truth, 60)
    label_model = fit_multilabel_model(probabilities, known)
    posterior = label_model.posterior(probabilities)
    assert label_model.n_human == 60
    assert (posterior >= 0.5).sum(axis=1).mean() == pytest.approx(truth.sum(axis=1).mean(), rel=0.2)
    assert label_model.base_rates[0] > 2 * max(label_model.base_rates[1:])
    held_out = slice(60, None)
    without = fit_multilabel_model(probabilities).posterior(probabilities)
    assert f1(posterior[held_out], truth[held_out]) > f1(without[held_out], truth[held_out]) + 0.05


def test_fewer_than_twenty_human_labels_are_not_used(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.0})
    assert fit_multilabel_model(probabilities, human_rows(truth, 19)) == fit_multilabel_model(
        probabilities
    )


def test_human_labels_lower_the_weight_of_an_annotator_with_errors_of_its_own(rng):
    truth, probabilities = simulated_pool(rng, {"good": 2.0})
    shared_error = rng.random(truth.shape) < 0.13
    probabilities |= {"one": expit(3.0 * shared_error + rng.normal(0, 1, truth.shape) - 1)}
    label_model = fit_multilabel_model(probabilities, human_rows(truth, 200))
    assert label_model.annotators["good"].weight > 2 * label_model.annotators["one"].weight


def test_a_label_that_was_not_asked_about_is_no_evidence():
    probabilities = {"one": np.array([[0.9, UNLISTED_PROBABILITY, np.nan], [0.2, 0.3, 0.4]])}
    annotator = MultilabelAnnotator((0.0, 0.0, 0.0), spread=2.0, weight=3.0, threshold=0.5)
    np.testing.assert_allclose(
        annotator.evidence(annotator.scores(probabilities["one"]))[0],
        [3 * (np.log(9) / 2 - 0.5), 0.0, 0.0],
    )


def test_a_posterior_is_what_its_parts_add_up_to():
    annotator = MultilabelAnnotator((0.0,), spread=1.0, weight=2.0, threshold=1.0)
    label_model = MultilabelModel((0.2,), 0.5, {"one": annotator})
    odds = np.log(0.2 / 0.8) + 0.8 * 2.0 * (np.log(9) - 1.0) - 0.5
    found = label_model.posterior({"one": np.array([[0.9]]), "stranger": np.array([[0.1]])})
    assert found[0, 0] == pytest.approx(expit(odds))


def test_the_model_survives_json_and_is_the_same_at_each_run(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.0, "two": 1.0})
    label_model = fit_multilabel_model(probabilities, human_rows(truth, 30))
    again = MultilabelModel.from_json(json.loads(json.dumps(label_model.to_json())))
    assert again == label_model == fit_multilabel_model(probabilities, human_rows(truth, 30))


def test_a_model_that_knows_none_of_the_annotators_is_not_used():
    label_model = MultilabelModel((0.2,), 0.5, {"old": MultilabelAnnotator((0.0,), 1.0)})
    assert aggregate_multilabel({"new": np.array([[0.9]])}, label_model)[0, 0] == pytest.approx(0.9)
    assert aggregate_multilabel({"old": np.array([[0.9]])}, label_model)[0, 0] < 0.2


def test_no_annotator_is_refused():
    with pytest.raises(ValueError, match="no annotator"):
        fit_multilabel_model({})


def test_constant_probabilities_and_abstentions_break_nothing():
    probabilities = {"flat": np.full((30, 4), 0.5), "absent": np.full((30, 4), np.nan)}
    posterior = fit_multilabel_model(probabilities).posterior(probabilities)
    assert np.isfinite(posterior).all()
    assert ((posterior >= 0) & (posterior < 0.5)).all()


def test_multiple_choice_is_pooled_in_log_odds():
    probabilities = {"a": np.array([[0.8, np.nan, np.nan]]), "b": np.array([[0.2, 0.9, np.nan]])}
    fused = aggregate_multilabel(probabilities)
    np.testing.assert_allclose(fused, [[0.5, 0.9, 0.5]])
    with pytest.raises(ValueError, match="no annotator"):
        aggregate_multilabel({})
