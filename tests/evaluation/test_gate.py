"""Which challengers replace the champion, by hand, at the edges and how often wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backend.evaluation.gate import (
    PairedOutcomes,
    compare_on_agreement,
    compare_on_human_labels,
    decide_promotion,
)


def pair(*, both=0, champion=0, challenger=0, none=0):
    """How many examples both, only one, or no version gets right."""
    counts = [both, champion, challenger, none]
    return PairedOutcomes(
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


def rng():
    return np.random.default_rng(0)


def test_the_exact_test_by_hand():
    # 1 win of 8 that differ: (1 + 8) / 256 by chance
    decision = compare_on_human_labels(pair(both=22, champion=7, challenger=1))
    assert decision.figures["p_value"] == pytest.approx(9 / 256)
    assert not decision.is_promoted
    assert "loses 7 and wins 1" in decision.reason
    # 1 win of 7: 8 / 128 by chance
    decision = compare_on_human_labels(pair(both=22, champion=6, challenger=1))
    assert decision.figures["p_value"] == pytest.approx(8 / 128)
    assert decision.is_promoted


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_p_value_is_the_binomial_one(n_lost, n_won):
    decision = compare_on_human_labels(pair(both=1, champion=n_lost, challenger=n_won))
    expected = stats.binom.cdf(n_won, n_won + n_lost, 0.5)
    assert decision.figures["p_value"] == pytest.approx(expected, abs=1e-9)


def test_a_better_challenger_is_promoted():
    decision = compare_on_human_labels(pair(both=50, champion=2, challenger=12, none=5))
    assert decision.is_promoted
    assert decision.figures["difference"] == pytest.approx(10 / 69)


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [(0, 0, True), (0, 3, True), (2, 1, True), (3, 1, True), (4, 1, False), (5, 0, False)],
)
def test_labels_are_replaced_unless_the_champion_wins_by_a_standard_error(
    champion, challenger, expected
):
    # 3 lost and 1 won differ by 2, which is the square root of 4; 4 and 1 by more
    decision = compare_on_human_labels(pair(both=20, champion=champion, challenger=challenger))
    assert decision.labels_may_replace is expected


def test_labels_are_never_replaced_without_people():
    assert not compare_on_agreement(pair(both=20, challenger=20), rng=rng()).labels_may_replace


def test_two_versions_that_answer_alike_are_no_reason_to_refuse():
    for judged in (pair(both=300, none=10), pair(none=300)):
        assert compare_on_human_labels(judged).is_promoted
        assert compare_on_agreement(judged, rng=rng()).is_promoted


def test_on_many_labels_two_points_less_are_refused_without_significance():
    judged = pair(both=400, champion=60, challenger=48, none=92)
    decision = compare_on_human_labels(judged)
    assert decision.figures["p_value"] > 0.05
    assert not decision.is_promoted


def test_few_human_labels_leave_the_word_to_agreement():
    humans = pair(champion=19)
    alike = pair(both=1000)
    assert decide_promotion(humans, alike, rng=rng()).is_promoted
    assert not decide_promotion(pair(champion=20), alike, rng=rng()).is_promoted
    assert not decide_promotion(humans, pair(both=500, champion=100), rng=rng()).is_promoted


def test_without_anything_to_compare_the_challenger_is_promoted():
    for humans, agreement in ((None, None), (pair(), pair())):
        decision = decide_promotion(humans, agreement, rng=rng())
        assert decision.is_promoted
        assert "nothing yet to compare" in decision.reason


def test_a_little_less_agreement_is_no_reason_to_refuse():
    decision = compare_on_agreement(pair(both=9000, champion=80, challenger=20), rng=rng())
    assert decision.figures["highest_difference"] < 0
    assert decision.is_promoted


def test_the_same_seed_gives_the_same_figures():
    judged = pair(both=80, champion=15, challenger=5)
    assert compare_on_agreement(judged, rng=rng()) == compare_on_agreement(judged, rng=rng())


def test_versions_must_answer_the_same_examples():
    with pytest.raises(ValueError, match="same examples"):
        PairedOutcomes(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


@settings(deadline=None)
@given(*[st.integers(0, 60)] * 4)
def test_more_wins_never_turn_a_promotion_into_a_refusal(both, champion, challenger, none):
    judged = pair(both=both + 1, champion=champion, challenger=challenger, none=none)
    better = pair(both=both + 1, champion=champion, challenger=challenger + 20, none=none)
    if compare_on_human_labels(judged).is_promoted:
        assert compare_on_human_labels(better).is_promoted


def test_an_equally_good_challenger_is_refused_in_at_most_5_of_100_comparisons():
    draws = np.random.default_rng(1)
    refused = 0
    for _ in range(2000):
        champion, challenger = draws.random((2, 100)) < 0.8
        refused += not compare_on_human_labels(PairedOutcomes(champion, challenger)).is_promoted
    assert refused / 2000 <= 0.05
