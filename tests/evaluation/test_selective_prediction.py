"""Labels accepted with a guarantee: by hand, at the edges, and that the promise is kept."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from backend.evaluation import selective_prediction
from backend.evaluation.selective_prediction import CheckedLabels, accept_rule, expected_accepted


def checked(confidences, is_right) -> CheckedLabels:
    return CheckedLabels(np.asarray(confidences, float), np.asarray(is_right, bool))


def test_a_model_that_is_always_right_is_accepted_as_a_whole():
    sample = checked(np.linspace(0.5, 1.0, 100), np.ones(100))
    rule = accept_rule(sample, np.linspace(0.5, 1.0, 1000))
    assert (rule.threshold, rule.n_accepted) == (0.5, 1000)
    assert (rule.n_checked, rule.n_wrong) == (100, 0)
    assert rule.error_bound <= 0.05


def test_the_least_number_of_answers_is_said_and_is_enough():
    pool = np.full(100_000, 0.9)
    few = accept_rule(checked(np.full(73, 0.9), np.ones(73)), pool)
    assert few.threshold is None
    assert "no error in 74" in few.reason
    assert accept_rule(checked(np.full(74, 0.9), np.ones(74)), pool).threshold == 0.9


def test_the_exact_test_of_a_small_pool_is_what_can_be_counted_by_hand():
    # one label is left, of which at most 5 % is none. If it is wrong, a sample of 3 of 4 texts
    # misses it once in 4 draws, one of 399 of 400 once in 400
    assert accept_rule(checked([0.9] * 3, [1] * 3), np.array([0.9])).threshold is None
    assert accept_rule(checked([0.9] * 399, [1] * 399), np.array([0.9])).threshold == 0.9


def test_the_threshold_stays_above_where_errors_begin():
    confidences = np.linspace(0.5, 1.0, 600, endpoint=False)
    sample = checked(confidences, confidences >= 0.7)
    rule = accept_rule(sample, np.linspace(0.5, 1.0, 2000, endpoint=False))
    assert 0.65 < rule.threshold < 0.71
    assert rule.error_bound <= 0.05
    assert rule.n_accepted == pytest.approx(1200, abs=100)


def test_a_model_that_is_often_wrong_is_never_accepted():
    rule = accept_rule(checked(np.full(200, 0.9), np.arange(200) % 4 > 0), np.full(1000, 0.9))
    assert (rule.threshold, rule.n_accepted) == (None, 0)
    assert "50 of 200" in rule.reason


def test_nothing_left_to_accept_has_no_threshold():
    rule = accept_rule(checked(np.ones(100), np.ones(100)), np.zeros(0))
    assert (rule.threshold, rule.reason) == (None, "there is no label that could be accepted")


def test_no_answer_has_no_threshold_and_no_forecast_fails():
    nothing, rng = checked([], []), np.random.default_rng(0)
    assert accept_rule(nothing, np.full(50, 0.9)).threshold is None
    assert expected_accepted(nothing, np.full(500, 0.99), 200, rng=rng) > 0
    assert expected_accepted(nothing, np.zeros(0), 50, rng=rng) == 0


def test_texts_without_a_known_confidence_count_as_the_worst():
    sample, pool = checked(np.full(90, 0.9), np.ones(90)), np.full(1000, 0.9)
    assert accept_rule(sample, pool).n_accepted == 1000
    assert accept_rule(sample, pool, n_unknown=1000).n_accepted == 0


def test_more_answers_are_expected_to_accept_more():
    rng = np.random.default_rng(1)
    pool = 1 - rng.random(4000) / 10
    sample = checked(pool[:40], np.ones(40, dtype=bool))
    counts = [
        expected_accepted(sample, pool[40:], n, rng=np.random.default_rng(2)) for n in (5, 400)
    ]
    assert counts[0] == 0 < counts[1] <= len(pool)


def test_answers_are_expected_of_other_texts_and_take_no_label_away():
    sample, pool = checked(np.ones(200), np.ones(200)), np.ones(300)
    assert accept_rule(sample, pool, n_unknown=100).n_accepted == 300
    for n_more in (0, 50, 100):
        rng = np.random.default_rng(0)
        assert expected_accepted(sample, pool, n_more, rng=rng, n_unknown=100) == 300


@pytest.mark.parametrize(("max_error", "delta"), [(0.0, 0.05), (1.0, 0.05), (0.05, 0.0)])
def test_impossible_promises_are_refused(max_error, delta):
    with pytest.raises(ValueError, match="between 0 and 1"):
        accept_rule(checked([1], [1]), np.ones(1), max_error=max_error, delta=delta)


def smooth(rng, n):
    """Confidences that are right about themselves."""
    confidences = 1 - rng.random(n) ** 3 / 2
    return confidences, rng.random(n) < confidences


def overconfident(rng, n):
    """Just above the promised error everywhere."""
    return 1 - rng.random(n) / 50, rng.random(n) < 0.945


def tied(rng, n):
    """Three confidences, each of them just too often wrong."""
    return rng.choice([0.9, 0.95, 0.99], n), rng.random(n) < 0.944


def one_class(rng, n):
    """One label for all texts, of which one in twelve has another."""
    return np.full(n, 0.97), rng.random(n) < 11 / 12


def all_wrong(rng, n):
    return 1 - rng.random(n) / 10, np.zeros(n, bool)


@pytest.mark.parametrize(
    ("project", "n_texts", "n_answers"),
    [
        *product((smooth, overconfident, tied, one_class, all_wrong), (2000,), (150,)),
        (overconfident, 250, 120),  # a small pool, half of it checked
        (tied, 250, 120),
    ],
)
def test_of_1000_projects_at_most_5_percent_get_more_errors_than_promised(
    project, n_texts, n_answers
):
    rng, n_broken, n_used = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        confidences, is_right = project(rng, n_texts)
        rows = rng.permutation(n_texts)
        sample, rest = rows[:n_answers], rows[n_answers:]
        rule = accept_rule(checked(confidences[sample], is_right[sample]), confidences[rest])
        if rule.threshold is not None:
            n_used += 1
            kept = confidences[rest] >= rule.threshold
            assert kept.sum() == rule.n_accepted
            n_broken += (~is_right[rest][kept]).mean() > 0.05
    assert n_broken <= 50
    assert (n_used > 150) == (project is smooth)


def test_what_people_took_out_of_the_pool_cannot_break_the_promise():
    # between sample and acceptance, people label the half of the pool that is right for sure
    rng, n_broken = np.random.default_rng(0), 0
    for _ in range(300):
        confidences, is_right = 1 - rng.random(2000) / 50, rng.random(2000) < 0.965
        rows = rng.permutation(2000)
        sample, rest = rows[:200], rows[200:]
        taken = rest[is_right[rest]][:900]
        left = np.setdiff1d(rest, taken)
        drawn = checked(confidences[sample], is_right[sample])
        rule = accept_rule(drawn, confidences[left], n_unknown=len(taken))
        if rule.threshold is not None:
            n_broken += (~is_right[left][confidences[left] >= rule.threshold]).mean() > 0.05
    assert n_broken <= 15


@pytest.mark.parametrize(
    ("n_labels", "max_error"), [(1, 0.05), (20, 0.2), (150, 0.05), (300, 0.01)]
)
def test_the_least_number_of_right_answers_that_can_certify_is_told(n_labels, max_error):
    confidences = np.full(n_labels, 0.99)

    def ruled(n_right):
        checked = CheckedLabels(np.full(n_right, 0.99), np.ones(n_right, dtype=bool))
        return accept_rule(checked, confidences, max_error=max_error)

    n_least = int(re.search(r"no error in (\d+) is the least", ruled(0).reason)[1])
    assert ruled(n_least).n_accepted == n_labels
    assert ruled(n_least - 1).n_accepted == 0


def test_a_forecast_is_made_without_the_words_of_its_rules(monkeypatch):
    tests = []
    excludes = selective_prediction._Promise.excludes

    def counted(self, *counts):
        tests.append(counts)
        return excludes(self, *counts)

    monkeypatch.setattr(selective_prediction._Promise, "excludes", counted)
    checked = CheckedLabels(np.full(2, 0.9), np.ones(2, dtype=bool))
    confidences, rng = np.full(36, 0.9), np.random.default_rng(0)
    assert expected_accepted(checked, confidences, 2, rng=rng, max_error=0.01) == 0
    assert len(tests) <= 20  # one threshold a draw
    tests.clear()
    assert "is the least" in accept_rule(checked, confidences, max_error=0.01).reason
    assert len(tests) < 40  # of thousands of numbers
