from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.calibration import BatchCalibrator
from backend.label_model.single_label import (
    LabelModel,
    aggregate,
    calibrate_beside,
    fit_label_model,
)


def annotator(truth, n_classes, *, skill, seed, bias=0.0):
    """Return posteriors (n, K) of an annotator; `skill` is the true class's mean log-odds."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(truth), n_classes)) + skill * np.eye(n_classes)[truth]
    scores[:, 0] += bias
    return softmax(scores, axis=1)


def simulated_pool(n, n_classes=2, *, seed=0, n_dimensions=16):
    """Return true classes and unit vectors that lie near one direction per class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    vectors = rng.normal(size=(n, n_dimensions)) * 0.5 + 2 * np.eye(n_dimensions)[truth]
    return truth, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def accuracy(probabilities, truth):
    return float((probabilities.argmax(axis=1) == truth).mean())


def test_the_better_of_two_is_not_dragged_down_by_the_other():
    truth, vectors = simulated_pool(1500, 4)
    posteriors = {
        "good": annotator(truth, 4, skill=2.5, seed=1),
        "poor": annotator(truth, 4, skill=0.2, seed=2, bias=3.0),
    }
    aggregated = fit_label_model(posteriors, vectors).posterior(posteriors, vectors)
    assert accuracy(aggregated, truth) > accuracy(posteriors["good"], truth) - 0.01


def test_an_annotator_that_ignores_the_text_has_no_influence():
    truth, vectors = simulated_pool(1000)
    shuffled = np.random.default_rng(3).permutation(annotator(truth, 2, skill=4, seed=1))
    posteriors = {"random": shuffled, "good": annotator(truth, 2, skill=2, seed=2)}
    label_model = fit_label_model(posteriors, vectors)
    assert label_model.annotators["random"].text_dependence < 0.1
    assert label_model.annotators["good"].text_dependence > 0.1
    assert accuracy(label_model.posterior(posteriors, vectors), truth) > accuracy(
        posteriors["good"], truth
    )


def test_human_labels_lower_the_weight_of_an_annotator_that_is_wrong():
    truth, _ = simulated_pool(600)
    posteriors = {
        "good": annotator(truth, 2, skill=2, seed=1),
        "wrong": annotator(1 - truth, 2, skill=1, seed=2),
    }
    human = {row: int(truth[row]) for row in range(60)}
    label_model = fit_label_model(posteriors, human=human)
    assert label_model.annotators["wrong"].weight < label_model.annotators["good"].weight
    assert label_model.n_human == 60
    assert accuracy(label_model.posterior(posteriors, None), truth) > 0.8


def test_an_annotator_that_embeddings_predict_has_less_weight_than_another():
    truth, vectors = simulated_pool(600, 3)
    directions = 6 * np.eye(vectors.shape[1])[:, :3]
    posteriors = {
        "similarity": softmax(vectors @ directions, axis=1),
        "reader": annotator(truth, 3, skill=2, seed=1),
    }
    weights = {
        name: parameters.weight
        for name, parameters in fit_label_model(posteriors, vectors).annotators.items()
    }
    assert weights["similarity"] < 0.5 < weights["reader"] == 1.0
    alone = fit_label_model({"similarity": posteriors["similarity"]}, vectors)
    assert alone.annotators["similarity"].weight == 1.0
    no_vectors = fit_label_model(posteriors).annotators
    assert {parameters.weight for parameters in no_vectors.values()} == {1.0}


def test_rare_classes_stay_rare_when_the_annotators_say_so():
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=600, p=[0.05, 0.45, 0.5])
    posteriors = {name: annotator(truth, 3, skill=2.5, seed=seed) for seed, name in enumerate("ab")}
    aggregated = fit_label_model(posteriors).posterior(posteriors, None)
    assert aggregated.mean(axis=0)[0] < 0.12
    assert accuracy(aggregated, truth) > accuracy(posteriors["a"], truth)


def test_confidence_without_any_label_is_the_accuracy_of_one_annotator():
    truth, _ = simulated_pool(2000, 3)
    posteriors = {name: annotator(truth, 3, skill=1.2, seed=seed) for seed, name in enumerate("ab")}
    aggregated = fit_label_model(posteriors).posterior(posteriors, None)
    confidence = aggregated.max(axis=1).mean()
    of_one = np.mean([accuracy(posteriors[name], truth) for name in posteriors])
    assert confidence == pytest.approx(of_one, abs=0.03)
    assert confidence < accuracy(aggregated, truth)


def test_at_an_abstention_the_others_decide():
    truth, _ = simulated_pool(400)
    posteriors = {name: annotator(truth, 2, skill=3, seed=seed) for seed, name in enumerate("ab")}
    posteriors["a"][::2] = np.nan
    label_model = fit_label_model(posteriors)
    aggregated = label_model.posterior(posteriors, None)
    assert np.isfinite(aggregated).all()
    only_b = {"b": posteriors["b"]}
    np.testing.assert_allclose(aggregated[::2], label_model.posterior(only_b, None)[::2])
    assert accuracy(aggregated, truth) > 0.9


def test_a_text_alone_gets_what_it_gets_in_the_pool_also_after_json():
    truth, vectors = simulated_pool(200, 3)
    posteriors = {name: annotator(truth, 3, skill=2, seed=seed) for seed, name in enumerate("ab")}
    label_model = fit_label_model(posteriors, vectors, {0: int(truth[0]), 7: int(truth[7])})
    again = LabelModel.from_json(json.loads(json.dumps(label_model.to_json())))
    alone = again.posterior({name: p[5:6] for name, p in posteriors.items()}, vectors[5:6])
    np.testing.assert_allclose(alone, label_model.posterior(posteriors, vectors)[5:6])
    assert label_model.annotators.keys() == {"a", "b"}
    assert label_model.probe is not None


def test_human_labels_move_weights_and_probe_but_never_the_class_means():
    truth, vectors = simulated_pool(300, 3)
    posteriors = {name: annotator(truth, 3, skill=1, seed=seed) for seed, name in enumerate("ab")}
    human = {row: int((truth[row] + 1) % 3) for row in range(30)}
    before, after = (
        fit_label_model(posteriors, vectors),
        fit_label_model(posteriors, vectors, human),
    )
    np.testing.assert_array_equal(before.classes.means, after.classes.means)
    assert not np.allclose(before.probe.weights, after.probe.weights)
    assert before.annotators["a"].weight == 1.0 > after.annotators["a"].weight


def test_answers_to_wrong_labels_alone_do_not_spoil_the_others():
    gains = []
    for seed in range(3):
        truth, vectors = simulated_pool(300, seed=seed)
        posteriors = {
            "sure": annotator(truth, 2, skill=1.6, seed=seed + 1) ** 3,
            "unsure": annotator(truth, 2, skill=0.8, seed=seed + 2),
        }
        posteriors["sure"] /= posteriors["sure"].sum(axis=1, keepdims=True)
        before = fit_label_model(posteriors, vectors).posterior(posteriors, vectors)
        likely = before[:, 1] > 0.5
        asked = np.flatnonzero(likely)[before[likely, 1].argsort()[:32]]
        corrected = {int(row): 0 for row in asked if truth[row] == 0}
        after = fit_label_model(posteriors, vectors, corrected).posterior(posteriors, vectors)
        rest = ~np.isin(np.arange(300), asked)
        gains.append(accuracy(after[rest], truth[rest]) - accuracy(before[rest], truth[rest]))
    assert np.mean(gains) > -0.01


def test_with_50_human_labels_confidence_is_calibrated_also_for_many_classes():
    truth, vectors = simulated_pool(600, 40, n_dimensions=64)
    posteriors = {"a": annotator(truth, 40, skill=2, seed=0)}
    human = {row: int(truth[row]) for row in range(50)}
    aggregated = fit_label_model(posteriors, vectors, human).posterior(posteriors, vectors)[50:]
    assert aggregated.max(axis=1).mean() == pytest.approx(
        accuracy(aggregated, truth[50:]), abs=0.08
    )


def test_the_probe_decides_where_every_annotator_abstains():
    truth, vectors = simulated_pool(400, 3)
    posteriors = {name: annotator(truth, 3, skill=2, seed=seed) for seed, name in enumerate("ab")}
    label_model = fit_label_model(posteriors, vectors)
    nobody = {"a": np.full((400, 3), np.nan)}
    assert accuracy(label_model.posterior(nobody, vectors), truth) > 0.8


def test_the_model_is_the_same_at_each_run():
    truth, vectors = simulated_pool(100)
    posteriors = {"a": annotator(truth, 2, skill=1, seed=0)}
    first, second = fit_label_model(posteriors, vectors), fit_label_model(posteriors, vectors)
    assert first.to_json() == second.to_json()


def test_any_number_of_annotators_is_used():
    truth, _ = simulated_pool(500, 3)
    posteriors = {str(seed): annotator(truth, 3, skill=1, seed=seed) for seed in range(5)}
    one = {"0": posteriors["0"]}
    alone = accuracy(fit_label_model(one).posterior(one, None), truth)
    assert accuracy(fit_label_model(posteriors).posterior(posteriors, None), truth) > alone + 0.1


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 60), st.booleans())
def test_few_texts_many_classes_and_few_labels_give_clean_posteriors(n, k, seed, has_human):
    rng = np.random.default_rng(seed)
    posteriors = {name: rng.dirichlet(np.full(k, 0.3), size=n) for name in "ab"}
    vectors = np.eye(8)[rng.integers(8, size=n)]
    human = {0: k - 1} if has_human else None
    aggregated = fit_label_model(posteriors, vectors, human).posterior(posteriors, vectors)
    assert np.isfinite(aggregated).all()
    np.testing.assert_allclose(aggregated.sum(axis=1), 1)


def test_many_labels_are_within_reach():
    truth, vectors = simulated_pool(400, 60, n_dimensions=64)
    posteriors = {name: annotator(truth, 60, skill=3, seed=seed) for seed, name in enumerate("ab")}
    aggregated = fit_label_model(posteriors, vectors).posterior(posteriors, vectors)
    assert accuracy(aggregated, truth) > accuracy(posteriors["a"], truth)


def test_no_posterior_at_all_is_refused():
    with pytest.raises(ValueError, match="no annotator"):
        fit_label_model({"a": np.full((3, 2), np.nan)})


@pytest.fixture
def pool():
    truth, _ = simulated_pool(300)
    return truth, {name: annotator(truth, 2, skill=3, seed=seed) for seed, name in enumerate("ab")}


def test_a_label_names_its_source(pool):
    truth, posteriors = pool
    posteriors["a"][1] = np.nan
    posteriors["a"][2] = posteriors["b"][2] = np.nan
    aggregated = aggregate(posteriors, fit_label_model(posteriors), human={0: 1 - int(truth[0])})
    assert aggregated.sources[0] == "human"
    assert aggregated.labels[0] == 1 - truth[0]
    assert aggregated.probabilities[0].max() == 1.0
    assert aggregated.sources[1] == "b"
    assert aggregated.sources[2] is None
    assert {"agreement", "combination"} <= set(aggregated.sources)


def test_agreement_means_that_all_annotators_have_the_label(pool):
    _, posteriors = pool
    aggregated = aggregate(posteriors, fit_label_model(posteriors))
    for row, source in enumerate(aggregated.sources):
        labels = {int(p[row].argmax()) for p in aggregated.annotator_posteriors.values()}
        assert (source == "agreement") == (labels == {int(aggregated.labels[row])})


def test_annotator_posteriors_are_calibrated_and_of_those_that_answered(pool):
    _, posteriors = pool
    posteriors["a"][4] = np.nan
    aggregated = aggregate(posteriors, fit_label_model(posteriors))
    own = aggregated.annotator_posteriors
    assert set(own) == {"a", "b"}
    assert np.isnan(own["a"][4]).all()
    assert own["b"][4].sum() == pytest.approx(1)
    assert own["a"][5].sum() == pytest.approx(1)


def rare_class(n=400, *, share=0.1, seed=0):
    """Return true classes of which one is rare, and an annotator with a long tail and a bias."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) < share * n).astype(int)
    log_odds = 2.5 * truth + rng.normal(size=n) - rng.exponential(1.5, size=n) + 1.0
    return truth, softmax(np.stack([np.zeros(n), log_odds], axis=1), axis=1)


def test_beside_another_annotator_a_rare_class_keeps_its_share():
    truth, posteriors = rare_class()
    other = annotator(truth, 2, skill=2, seed=4)
    beside = calibrate_beside(posteriors, [other])
    alone = BatchCalibrator.fit(posteriors).apply(posteriors)
    assert accuracy(beside, truth) > accuracy(alone, truth) + 0.1
    np.testing.assert_array_equal(calibrate_beside(posteriors, []), alone)


def test_what_others_say_of_a_text_does_not_move_its_label():
    truth, posteriors = rare_class()
    posteriors[1], posteriors[7] = posteriors[0], np.nan
    other = annotator(truth, 2, skill=2, seed=4)
    other[0], other[1] = (0.9, 0.1), (0.1, 0.9)
    beside = calibrate_beside(posteriors, [other, np.full_like(other, np.nan)])
    np.testing.assert_allclose(beside[0], beside[1])
    assert np.isnan(beside[7]).all()
    assert np.isfinite(np.delete(beside, 7, axis=0)).all()


def test_where_nobody_answered_nothing_is_calibrated():
    assert np.isnan(calibrate_beside(np.full((3, 2), np.nan), [np.full((3, 2), 0.5)])).all()
