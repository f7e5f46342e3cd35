import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.rank_aggregation import (
    borda,
    judgement_weight,
    place_effect,
    split_half_reliability,
)

NAN = np.nan


def test_ranks_are_averaged_over_the_rounds_that_judged_a_text():
    rounds = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, NAN]])
    assert borda(rounds).tolist() == pytest.approx([0.75, 0.25, 0.5])


def test_a_text_that_nobody_judged_stands_in_the_middle():
    assert borda(np.array([[NAN, 1.0, 2.0]]))[0] == 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 99))
def test_stretching_a_rounds_scores_changes_nothing(n_rounds, n_texts, seed):
    rounds = np.random.default_rng(seed).normal(size=(n_rounds, n_texts))
    assert borda(np.exp(3 * rounds)).tolist() == pytest.approx(borda(rounds).tolist())


def test_rounds_that_agree_are_fully_reliable():
    rounds = np.tile(np.arange(10.0), (4, 1))
    assert split_half_reliability(rounds, np.random.default_rng(0)) == pytest.approx(1.0)


def test_random_rounds_are_noise_and_weigh_nothing():
    rounds = np.random.default_rng(0).normal(size=(4, 400))
    reliability = split_half_reliability(rounds, np.random.default_rng(1))
    assert abs(reliability) < 0.2
    assert judgement_weight(reliability) == 0.0


def test_one_round_or_few_texts_have_no_reliability():
    rng = np.random.default_rng(0)
    assert split_half_reliability(np.ones((1, 20)), rng) is None
    assert split_half_reliability(np.ones((4, 7)), rng) is None
    assert judgement_weight(None) == 0.0


def test_equal_scores_everywhere_are_no_agreement():
    assert split_half_reliability(np.ones((4, 20)), np.random.default_rng(0)) == 0.0


def test_scores_that_fall_with_the_place_are_seen():
    places = np.tile(np.arange(10), (2, 1))
    assert place_effect(-places.astype(float), places) == pytest.approx(-1.0)
    assert place_effect(np.full((2, 10), NAN), places) is None
