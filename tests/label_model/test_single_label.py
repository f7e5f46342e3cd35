from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.single_label import LabelModel, aggregate, fit_label_model


def annotator(truth, n_classes, *, skill, seed, lean=0.0):
    """Return posteriors (n, K) of a voter; `skill` is the true class's mean log-odds."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(truth), n_classes)) + skill * np.eye(n_classes)[truth]
    scores[:, 0] += lean
    return softmax(scores, axis=1)


def world(n, n_classes=2, *, seed=0, n_dimensions=16):
    """Return true classes and unit vectors that lie near one direction per class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    vectors = rng.normal(size=(n, n_dimensions)) * 0.5 + 2 * np.eye(n_dimensions)[truth]
    return truth, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def accuracy(probabilities, truth):
    return float((probabilities.argmax(axis=1) == truth).mean())


def test_the_better_of_two_is_not_dragged_down_by_the_other():
    truth, vectors = world(1500, 4)
    votes = {
        "good": annotator(truth, 4, skill=2.5, seed=1),
        "poor": annotator(truth, 4, skill=0.2, seed=2, lean=3.0),
    }
    fused = fit_label_model(votes, vectors).posterior(votes, vectors)
    assert accuracy(fused, truth) > accuracy(votes["good"], truth) - 0.01


def test_a_voter_that_ignores_the_text_has_no_say():
    truth, vectors = world(1000)
    shuffled = np.random.default_rng(3).permutation(annotator(truth, 2, skill=4, seed=1))
    votes = {"random": shuffled, "good": annotator(truth, 2, skill=2, seed=2)}
    label_model = fit_label_model(votes, vectors)
    assert label_model.annotators["random"].text_dependence < 0.1
    assert label_model.annotators["good"].text_dependence > 0.1
    assert accuracy(label_model.posterior(votes, vectors), truth) > accuracy(votes["good"], truth)


def test_human_labels_lower_the_weight_of_a_voter_that_is_wrong():
    truth, _ = world(600)
    votes = {
        "good": annotator(truth, 2, skill=2, seed=1),
        "wrong": annotator(1 - truth, 2, skill=1, seed=2),
    }
    human = {row: int(truth[row]) for row in range(60)}
    label_model = fit_label_model(votes, human=human)
    assert label_model.annotators["wrong"].weight < label_model.annotators["good"].weight
    assert label_model.n_human == 60
    assert accuracy(label_model.posterior(votes, None), truth) > 0.8


def test_confidence_without_any_label_is_the_accuracy_of_one_annotator():
    truth, _ = world(2000, 3)
    votes = {name: annotator(truth, 3, skill=1.2, seed=seed) for seed, name in enumerate("ab")}
    fused = fit_label_model(votes).posterior(votes, None)
    confidence = fused.max(axis=1).mean()
    of_one = np.mean([accuracy(votes[name], truth) for name in votes])
    assert confidence == pytest.approx(of_one, abs=0.03)
    assert confidence < accuracy(fused, truth)


def test_an_abstention_leaves_the_others_to_speak():
    truth, _ = world(400)
    votes = {name: annotator(truth, 2, skill=3, seed=seed) for seed, name in enumerate("ab")}
    votes["a"][::2] = np.nan
    label_model = fit_label_model(votes)
    fused = label_model.posterior(votes, None)
    assert np.isfinite(fused).all()
    only_b = {"b": votes["b"]}
    np.testing.assert_allclose(fused[::2], label_model.posterior(only_b, None)[::2])
    assert accuracy(fused, truth) > 0.9


def test_a_text_alone_gets_what_it_gets_in_the_pool_also_after_json():
    truth, vectors = world(200, 3)
    votes = {name: annotator(truth, 3, skill=2, seed=seed) for seed, name in enumerate("ab")}
    label_model = fit_label_model(votes, vectors, {0: int(truth[0]), 7: int(truth[7])})
    again = LabelModel.from_json(json.loads(json.dumps(label_model.to_json())))
    alone = again.posterior({name: p[5:6] for name, p in votes.items()}, vectors[5:6])
    np.testing.assert_allclose(alone, label_model.posterior(votes, vectors)[5:6])
    assert label_model.annotators.keys() == {"a", "b"}
    assert label_model.probe is not None


def test_people_move_weights_and_probe_but_never_the_centres():
    truth, vectors = world(300, 3)
    votes = {name: annotator(truth, 3, skill=1, seed=seed) for seed, name in enumerate("ab")}
    human = {row: int((truth[row] + 1) % 3) for row in range(30)}
    before, after = fit_label_model(votes, vectors), fit_label_model(votes, vectors, human)
    np.testing.assert_array_equal(before.classes.means, after.classes.means)
    assert not np.allclose(before.probe.weights, after.probe.weights)
    assert before.annotators["a"].weight == 1.0 > after.annotators["a"].weight


def test_with_50_human_labels_confidence_is_honest_also_for_many_classes():
    truth, vectors = world(600, 40, n_dimensions=64)
    votes = {"a": annotator(truth, 40, skill=2, seed=0)}
    human = {row: int(truth[row]) for row in range(50)}
    fused = fit_label_model(votes, vectors, human).posterior(votes, vectors)[50:]
    assert fused.max(axis=1).mean() == pytest.approx(accuracy(fused, truth[50:]), abs=0.08)


def test_the_probe_speaks_where_every_annotator_abstains():
    truth, vectors = world(400, 3)
    votes = {name: annotator(truth, 3, skill=2, seed=seed) for seed, name in enumerate("ab")}
    label_model = fit_label_model(votes, vectors)
    nobody = {"a": np.full((400, 3), np.nan)}
    assert accuracy(label_model.posterior(nobody, vectors), truth) > 0.8


def test_trust_is_the_same_at_each_run():
    truth, vectors = world(100)
    votes = {"a": annotator(truth, 2, skill=1, seed=0)}
    first, second = fit_label_model(votes, vectors), fit_label_model(votes, vectors)
    assert first.to_json() == second.to_json()


def test_any_number_of_voters_is_heard():
    truth, _ = world(500, 3)
    votes = {str(seed): annotator(truth, 3, skill=1, seed=seed) for seed in range(5)}
    one = {"0": votes["0"]}
    alone = accuracy(fit_label_model(one).posterior(one, None), truth)
    assert accuracy(fit_label_model(votes).posterior(votes, None), truth) > alone + 0.1


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 60), st.booleans())
def test_few_texts_many_classes_and_few_labels_give_clean_posteriors(n, k, seed, has_human):
    rng = np.random.default_rng(seed)
    votes = {name: rng.dirichlet(np.full(k, 0.3), size=n) for name in "ab"}
    vectors = np.eye(8)[rng.integers(8, size=n)]
    human = {0: k - 1} if has_human else None
    fused = fit_label_model(votes, vectors, human).posterior(votes, vectors)
    assert np.isfinite(fused).all()
    np.testing.assert_allclose(fused.sum(axis=1), 1)


def test_many_labels_are_within_reach():
    truth, vectors = world(400, 60, n_dimensions=64)
    votes = {name: annotator(truth, 60, skill=3, seed=seed) for seed, name in enumerate("ab")}
    fused = fit_label_model(votes, vectors).posterior(votes, vectors)
    assert accuracy(fused, truth) > accuracy(votes["a"], truth)


def test_no_voter_at_all_is_refused():
    with pytest.raises(ValueError, match="no annotator"):
        fit_label_model({"a": np.full((3, 2), np.nan)})


@pytest.fixture
def pool():
    truth, _ = world(300)
    return truth, {name: annotator(truth, 2, skill=3, seed=seed) for seed, name in enumerate("ab")}


def test_a_label_says_who_it_is_from(pool):
    truth, votes = pool
    votes["a"][1] = np.nan
    votes["a"][2] = votes["b"][2] = np.nan
    fused = aggregate(votes, fit_label_model(votes), human={0: 1 - int(truth[0])})
    assert fused.sources[0] == "human"
    assert fused.labels[0] == 1 - truth[0]
    assert fused.probabilities[0].max() == 1.0
    assert fused.sources[1] == "b"
    assert fused.sources[2] is None
    assert {"agreement", "combination"} <= set(fused.sources)


def test_agreement_means_that_all_votes_have_the_label(pool):
    _, votes = pool
    fused = aggregate(votes, fit_label_model(votes))
    for row, source in enumerate(fused.sources):
        labels = {int(np.argmax(p)) for p in fused.annotator_posteriors[row].values()}
        assert (source == "agreement") == (labels == {int(fused.labels[row])})


def test_votes_are_calibrated_posteriors_of_those_who_spoke(pool):
    _, votes = pool
    votes["a"][4] = np.nan
    fused = aggregate(votes, fit_label_model(votes))
    assert set(fused.annotator_posteriors[4]) == {"b"}
    assert set(fused.annotator_posteriors[5]) == {"a", "b"}
    assert sum(fused.annotator_posteriors[5]["a"]) == pytest.approx(1)
