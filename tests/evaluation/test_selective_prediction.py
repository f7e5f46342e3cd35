"""The auto-accept threshold: by hand, at the edges, and that its promise is kept."""

from __future__ import annotations

import numpy as np
import pytest

from backend.evaluation.selective_prediction import accept_rule


def test_a_model_that_is_always_right_is_accepted_as_a_whole():
    confidences = np.linspace(0.5, 1.0, 100)
    rule = accept_rule(confidences, np.ones(100, dtype=bool), np.linspace(0.5, 1.0, 1000))
    assert (rule.threshold, rule.share_accepted) == (0.5, 1.0)
    assert (rule.n_checked, rule.n_wrong) == (100, 0)
    assert rule.error_bound == pytest.approx(1 - 0.05**0.01)
    assert "100%" in rule.reason


def test_58_right_answers_cannot_promise_five_percent_and_59_can():
    pool = np.full(1000, 0.9)
    few = accept_rule(np.full(58, 0.9), np.ones(58, dtype=bool), pool)
    assert few.threshold is None
    assert "at least 59" in few.reason
    assert accept_rule(np.full(59, 0.9), np.ones(59, dtype=bool), pool).threshold == 0.9


def test_the_threshold_stays_above_where_errors_begin():
    confidences = np.linspace(0.5, 1.0, 400, endpoint=False)
    is_right = confidences >= 0.7
    rule = accept_rule(confidences, is_right, np.linspace(0.5, 1.0, 2000, endpoint=False))
    assert 0.65 < rule.threshold < 0.71
    assert rule.error_bound <= 0.05
    assert rule.share_accepted == pytest.approx(0.62, abs=0.04)


def test_a_model_that_is_often_wrong_is_never_accepted():
    rule = accept_rule(np.full(200, 0.9), np.arange(200) % 4 > 0, np.full(1000, 0.9))
    assert (rule.threshold, rule.share_accepted) == (None, 0.0)
    assert "50 of the 200" in rule.reason


def test_nothing_left_to_accept_has_no_threshold():
    assert accept_rule(np.ones(100), np.ones(100, dtype=bool), np.zeros(0)).threshold is None


@pytest.mark.parametrize(("max_error", "delta"), [(0.0, 0.05), (1.0, 0.05), (0.05, 0.0)])
def test_impossible_promises_are_refused(max_error, delta):
    with pytest.raises(ValueError, match="between 0 and 1"):
        accept_rule(
            np.ones(1), np.ones(1, dtype=bool), np.ones(1), max_error=max_error, delta=delta
        )


@pytest.mark.parametrize("n_holdout", [60, 100, 300])
@pytest.mark.parametrize("overconfidence", [0.0, 0.03, 0.051])
def test_the_guaranteed_error_rate_is_kept_in_95_of_100_holdouts(n_holdout, overconfidence):
    # the surest share s of the pool has an error rate of s^3 / 8 and the overconfidence
    rng = np.random.default_rng(0)
    confidences = 1 - rng.random(5000) ** 3 / 2
    is_right = rng.random(5000) < confidences - overconfidence
    rules = []
    for _ in range(300):
        rows = rng.choice(5000, n_holdout, replace=False)
        rules.append(accept_rule(confidences[rows], is_right[rows], confidences, max_error=0.05))
    used = [rule for rule in rules if rule.threshold is not None]
    broken = [(~is_right[confidences >= rule.threshold]).mean() > 0.05 for rule in used]
    assert sum(broken) / 300 <= 0.05
    if (n_holdout, overconfidence) == (300, 0.0):
        assert len(used) > 180
        assert np.mean([rule.share_accepted for rule in used]) > 0.5
