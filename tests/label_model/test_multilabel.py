"""Several labels per text: the annotators' weights, and how many labels come out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit

from backend.label_model.multilabel import (
    UNLISTED_PROBABILITY,
    MultilabelAnnotator,
    MultilabelModel,
    aggregate_multilabel,
    fit_multilabel_model,
    label_scores,
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


def weight(annotator):
    return (annotator.present - annotator.absent) / annotator.variance


def test_a_useless_annotator_does_little_harm(rng):
    truth, probabilities = simulated_pool(rng, {"good": 4.0, "useless": 0.0})
    label_model = fit_multilabel_model(probabilities)
    assert weight(label_model.annotators["good"]) > 3 * weight(label_model.annotators["useless"])
    alone = fit_multilabel_model({"good": probabilities["good"]}).posterior(
        {"good": probabilities["good"]}
    )
    together = label_model.posterior(probabilities)
    assert f1(together, truth) > f1(alone, truth) - 0.05
    assert f1(together, truth) > f1(aggregate_multilabel(probabilities), truth) + 0.2


def test_two_good_annotators_are_better_than_one(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.5, "two": 2.5})
    alone = fit_multilabel_model({"one": probabilities["one"]}).posterior(
        {"one": probabilities["one"]}
    )
    assert (
        f1(fit_multilabel_model(probabilities).posterior(probabilities), truth)
        > f1(alone, truth) + 0.05
    )


def moderation(rng, *, n_clean=57, n_rare=3):
    """Posts of which few carry one of six labels: the LLM says 5 % of each label of a clean one."""
    truth = np.zeros((n_clean + n_rare, 6), dtype=bool)
    truth[:n_rare, 1] = True
    llm = np.where(truth, 0.9, 0.05)
    deviations = rng.normal(0, 1, truth.shape) + 2 * truth
    deviations = (deviations - deviations.mean(axis=0)) / deviations.std(axis=0)
    similarity = expit(2 * (deviations - 1.07))  # a seventh of the cells is above one half
    return truth, {"llm": llm, "similarity": similarity}


@pytest.mark.parametrize("seed", range(5))
def test_clean_texts_stay_clean_and_the_rare_label_is_found(seed):
    truth, probabilities = moderation(np.random.default_rng(seed))
    found = fit_multilabel_model(probabilities).posterior(probabilities) >= 0.5
    assert found[3:].any(axis=1).mean() < 0.02
    assert found[:3, 1].all()


def test_where_no_text_has_a_label_none_gets_one(rng):
    _, probabilities = moderation(rng, n_rare=0)
    assert not (fit_multilabel_model(probabilities).posterior(probabilities) >= 0.5).any()


@pytest.mark.parametrize("per_text", [0.1, 0.5, 1.3, 3.0])
def test_the_number_of_labels_is_learned_from_what_annotators_say(rng, per_text):
    truth, probabilities = simulated_pool(
        rng, {"one": 5.0}, share=per_text / N_LABELS, preference=0.5
    )
    probabilities = {"one": expit(np.log(1 / (1 / probabilities["one"] - 1)) - 3)}
    posterior = fit_multilabel_model(probabilities).posterior(probabilities)
    n_found, n_true = (posterior >= 0.5).sum(axis=1).mean(), truth.sum(axis=1).mean()
    assert n_found == pytest.approx(n_true, rel=0.1, abs=0.03)
    assert f1(posterior, truth) > 0.9


def calibrated_pool(rng, separations, *, per_text, n_labels=10, skew=1.0):
    """True labels and honest probabilities: normal log-odds whose variance is the separation."""
    rates = np.minimum(rng.dirichlet(np.full(n_labels, skew)) * per_text, 0.8)
    truth = rng.random((N_TEXTS, n_labels)) < rates
    prior = np.log(rates.mean() / (1 - rates.mean()))
    said = {
        name: expit(d * (d * truth - d / 2 + rng.normal(0, 1, truth.shape)) + prior)
        for name, d in separations.items()
    }
    return truth, said


def best_f1(score, truth):
    """The F1 of the best cut, which nobody knows who does not know the truth."""
    holds = truth.ravel()[np.argsort(-score, axis=None)]
    return float((2 * np.cumsum(holds) / (np.arange(1, holds.size + 1) + holds.sum())).max())


@pytest.mark.parametrize("per_text", [0.5, 1.3, 3.0])
@pytest.mark.parametrize("separations", [{"one": 1.0, "two": 1.2}, {"one": 1.5, "two": 2.0}])
def test_nothing_is_lost_of_what_weak_annotators_know(rng, per_text, separations):
    truth, said = calibrated_pool(rng, separations, per_text=per_text)
    posterior = fit_multilabel_model(said).posterior(said)
    cut_at_half = max(f1(each, truth) for each in (*said.values(), aggregate_multilabel(said)))
    assert f1(posterior, truth) > cut_at_half - 0.03
    assert f1(posterior, truth) > 0.8 * best_f1(aggregate_multilabel(said), truth)


@pytest.mark.parametrize("seed", range(3))
def test_weak_annotators_of_texts_without_labels_give_few(seed):
    truth, said = calibrated_pool(
        np.random.default_rng(seed), {"one": 1.0, "two": 1.2}, per_text=0.02
    )
    found = fit_multilabel_model(said).posterior(said) >= 0.5
    assert found[~truth.any(axis=1)].any(axis=1).mean() < 0.02


def test_a_label_of_most_texts_is_found_beside_rare_ones(rng):
    truth = rng.random((200, 6)) < np.array([0.6, 0.5, 0.1, 0.05, 0.1, 0.02])
    said = {"one": np.where(truth, 0.9, 0.1)}
    assert ((fit_multilabel_model(said).posterior(said) >= 0.5) == truth).all()


def test_an_annotator_who_says_yes_to_all_is_read_by_what_stands_out(rng):
    truth, probabilities = simulated_pool(rng, {"one": 3.5}, share=0.1)
    eager = {"one": expit(np.log(1 / (1 / probabilities["one"] - 1)) + 2)}
    posterior = fit_multilabel_model(eager).posterior(eager)
    assert f1(posterior, truth) > 0.8 > 0.4 > f1(eager["one"], truth)


def test_one_that_knows_nothing_does_not_say_how_many_labels_there_are(rng):
    truth = rng.random((N_TEXTS, 4)) < 0.33
    good = expit(4.0 * truth - 2.4 + rng.normal(0, 1, truth.shape))
    flat = expit(np.array([1.0, -0.4, 0.6, -0.3]) + rng.normal(0, 0.3, truth.shape))
    said = {"good": good, "flat": flat}
    assert f1(fit_multilabel_model(said).posterior(said), truth) > f1(good, truth) - 0.02


def test_a_student_that_says_no_to_all_makes_labels_no_rarer(rng):
    truth, probabilities = simulated_pool(rng, {"first": 4.0, "second": 3.0}, preference=0.0)
    probabilities = {name: expit(np.log(p / (1 - p)) - 2) for name, p in probabilities.items()}
    without = aggregate_multilabel(probabilities, fit_multilabel_model(probabilities))
    silent = {**probabilities, "silent": rng.uniform(0.01, 0.03, truth.shape)}
    beside = aggregate_multilabel(silent, fit_multilabel_model(silent, students={"silent"}))
    assert f1(without, truth) > 0.8
    assert f1(beside, truth) > f1(without, truth) - 0.02


def test_a_student_that_repeats_its_teacher_tells_no_rates_and_little_else(rng):
    truth, said = simulated_pool(rng, {"teacher": 2.5, "weak": 1.0}, share=0.05)
    odds = np.log(said["teacher"] / (1 - said["teacher"]))
    repeated = said | {"student": expit(1.5 * odds + rng.normal(0, 0.3, truth.shape))}
    alone = fit_multilabel_model(said)
    beside = fit_multilabel_model(repeated, students={"student"})
    assert beside.base_rates == alone.base_rates
    assert 0 < beside.annotators["student"].weight < beside.annotators["teacher"].weight == 1
    as_annotator = fit_multilabel_model(repeated)
    lost = f1(alone.posterior(said), truth) - f1(as_annotator.posterior(repeated), truth)
    assert lost > 0.05
    assert f1(alone.posterior(said), truth) - f1(beside.posterior(repeated), truth) < 0.7 * lost


def test_a_student_alone_is_read_as_any_annotator(rng):
    _, said = simulated_pool(rng, {"student": 3.0})
    assert fit_multilabel_model(said, students={"student"}) == fit_multilabel_model(said)


def test_the_label_that_stands_out_is_not_the_one_that_a_prompt_prefers(rng):
    named = rng.integers(0, 3, 60)
    said = expit(2.0 * np.eye(3)[named] + np.array([1.5, -1.0, -2.0]))
    assert (said.argmax(axis=1) == 0).mean() > 0.9
    said[0], said[1, 2] = np.nan, UNLISTED_PROBABILITY
    scores = label_scores(said)
    assert np.isnan(scores[0]).all()
    assert scores[1, 2] == scores[1:].min()
    kept = np.arange(60) > 1
    np.testing.assert_array_equal(scores[kept].argmax(axis=1), named[kept])


def test_human_labels_say_how_many_labels_there_are_and_which_are_common(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.0, "two": 1.0}, share=0.3)
    known = human_rows(truth, 100)
    label_model = fit_multilabel_model(probabilities, known)
    posterior = label_model.posterior(probabilities)
    assert label_model.n_human == 100
    held_out = slice(100, None)
    without = fit_multilabel_model(probabilities).posterior(probabilities)
    assert errors(posterior[held_out], truth[held_out]) < errors(without[held_out], truth[held_out])
    assert f1(posterior[held_out], truth[held_out]) > 0.7


def test_that_people_saw_texts_with_labels_first_does_not_raise_the_rates(rng):
    truth, probabilities = simulated_pool(rng, {"one": 4.0}, share=0.05, preference=0.5)
    chosen = np.argsort(-truth.sum(axis=1), kind="stable")[:60]
    known = {int(row): frozenset(np.flatnonzero(truth[row]).tolist()) for row in chosen}
    label_model = fit_multilabel_model(probabilities, known)
    assert np.mean(label_model.base_rates) == pytest.approx(truth.mean(), abs=0.02)


def test_human_labels_lower_the_weight_of_an_annotator_with_errors_of_its_own(rng):
    truth, probabilities = simulated_pool(rng, {"good": 2.0})
    shared_error = rng.random(truth.shape) < 0.13
    probabilities |= {"one": expit(3.0 * shared_error + rng.normal(0, 1, truth.shape) - 1)}
    label_model = fit_multilabel_model(probabilities, human_rows(truth, 200))
    assert weight(label_model.annotators["good"]) > 1.3 * weight(label_model.annotators["one"])


def test_a_label_that_was_not_asked_about_is_no_evidence():
    probabilities = {"one": np.array([[0.9, UNLISTED_PROBABILITY, np.nan], [0.2, 0.3, 0.4]])}
    annotator = MultilabelAnnotator((0.0, 0.0, 0.0), present=3.0, absent=-1.0, variance=2.0)
    np.testing.assert_allclose(
        annotator.evidence(annotator.scores(probabilities["one"]))[0],
        [2 * (np.log(9) - 1.0), 0.0, 0.0],
    )


def test_a_posterior_is_what_its_parts_add_up_to():
    annotator = MultilabelAnnotator((0.0,), present=2.0, absent=0.0, variance=1.0)
    label_model = MultilabelModel((0.2,), -0.5, {"one": annotator})
    odds = np.log(0.2 / 0.8) + 0.8 * 2.0 * (np.log(9) - 1.0) + 0.5
    found = label_model.posterior({"one": np.array([[0.9]]), "stranger": np.array([[0.1]])})
    assert found[0, 0] == pytest.approx(expit(odds))


def test_the_model_survives_json_and_is_the_same_at_each_run(rng):
    truth, probabilities = simulated_pool(rng, {"one": 2.0, "two": 1.0})
    label_model = fit_multilabel_model(probabilities, human_rows(truth, 30))
    again = MultilabelModel.from_json(json.loads(json.dumps(label_model.to_json())))
    assert again == label_model == fit_multilabel_model(probabilities, human_rows(truth, 30))


def test_a_model_that_knows_none_of_the_annotators_is_not_used():
    label_model = MultilabelModel((0.2,), 0.0, {"old": MultilabelAnnotator((0.0,), 6.0)})
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
