from __future__ import annotations

import numpy as np
import pytest

from backend.label_model.aggregation import aggregate_multilabel_posteriors, agreement, fuse
from backend.label_model.fitting import fit_label_model
from tests.label_model.test_fitting import annotator, world


@pytest.fixture
def pool():
    truth, _ = world(300)
    return truth, {name: annotator(truth, 2, skill=3, seed=seed) for seed, name in enumerate("ab")}


def test_a_label_says_who_it_is_from(pool):
    truth, votes = pool
    votes["a"][1] = np.nan
    votes["a"][2] = votes["b"][2] = np.nan
    fused = fuse(votes, fit_label_model(votes), human={0: 1 - int(truth[0])})
    assert fused.sources[0] == "human"
    assert fused.labels[0] == 1 - truth[0]
    assert fused.probabilities[0].max() == 1.0
    assert fused.sources[1] == "b"
    assert fused.sources[2] is None
    assert {"agreement", "combination"} <= set(fused.sources)


def test_agreement_means_that_all_votes_have_the_label(pool):
    _, votes = pool
    fused = fuse(votes, fit_label_model(votes))
    for source, label, said in zip(fused.sources, fused.labels, fused.votes, strict=True):
        opinions = {int(np.argmax(vote)) for vote in said.values()}
        assert (source == "agreement") == (opinions == {int(label)})


def test_votes_are_calibrated_posteriors_of_those_who_spoke(pool):
    _, votes = pool
    votes["a"][4] = np.nan
    fused = fuse(votes, fit_label_model(votes))
    assert set(fused.votes[4]) == {"b"}
    assert set(fused.votes[5]) == {"a", "b"}
    assert sum(fused.votes[5]["a"]) == pytest.approx(1)


def test_multiple_choice_is_pooled_in_log_odds():
    votes = {"a": np.array([[0.8, np.nan, np.nan]]), "b": np.array([[0.2, 0.9, np.nan]])}
    fused = aggregate_multilabel_posteriors(votes)
    np.testing.assert_allclose(fused, [[0.5, 0.9, 0.5]])
    with pytest.raises(ValueError, match="no voter"):
        aggregate_multilabel_posteriors({})


def sure_of(labels):
    return np.eye(2)[np.array(labels)]


def test_agreement_is_cohens_kappa():
    first, second = [0] * 50 + [1] * 50, [0] * 40 + [1] * 60
    assert agreement({"a": sure_of(first), "b": sure_of(second)}) == pytest.approx(0.8)


def test_two_that_answer_by_chance_do_not_agree():
    first, second = [0, 0, 1, 1] * 40, [0, 1, 0, 1] * 40
    assert agreement({"a": sure_of(first), "b": sure_of(second)}) == pytest.approx(0.0)


def test_agreement_needs_two_that_answered_the_same_texts():
    labels = sure_of([0, 1] * 60)
    silent = labels.copy()
    silent[30:] = np.nan
    assert agreement({"a": labels}) is None
    assert agreement({"a": labels, "b": silent}) is None
