"""Shares and kappa with intervals: by hand, at the edges, and how often they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from backend.evaluation.metrics import (
    estimate_kappa,
    mean_pairwise_kappa,
    powered_share,
    share_bound,
    share_interval,
    tighter_share,
)


def test_the_exact_interval_of_a_share_by_hand():
    # with no hit the tail is (1 - p)^n = 0.025, with all hits p^n = 0.025
    assert share_interval(0, 10) == (pytest.approx(0.0), pytest.approx(1 - 0.025**0.1))
    assert share_interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert share_bound(0, 59, delta=0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert share_bound(0, 59, delta=0.05) < 0.05 < share_bound(0, 58, delta=0.05)


def test_an_empty_sample_has_the_widest_interval():
    assert share_interval(0, 0) == (0.0, 1.0)
    assert tighter_share(np.zeros(0, dtype=bool), np.zeros(0), np.ones(5)) is None


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_the_interval_of_a_share_agrees_with_scipy(n, data):
    n_hits = data.draw(st.integers(0, n))
    theirs = stats.binomtest(n_hits, n).proportion_ci()
    assert share_interval(n_hits, n) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_perfect_predictions_leave_only_the_spread_of_the_rest():
    is_hit = np.array([True] * 20 + [False] * 20)
    rest = np.array([1.0] * 300 + [0.0] * 100)
    found = powered_share(is_hit, is_hit.astype(float), rest)
    # spread (220 + 100 of 440): 0.25 x 0.75 pooled with the sample's; lambda = cov / (1.1 spread)
    spread = np.concatenate([is_hit, rest]).var()
    weight = min(np.cov(is_hit, is_hit)[0, 1] / (1.1 * spread), 1.0)
    assert weight == 1.0
    assert found.value == pytest.approx(0.75)
    assert found.width / 2 == pytest.approx(stats.t.ppf(0.975, 38) * (spread / 400) ** 0.5)


def test_constant_predictions_change_nothing():
    is_hit = np.array([True] * 30 + [False] * 10)
    found = powered_share(is_hit, np.full(40, 0.9), np.full(500, 0.9))
    assert found.value == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("n_hits", "n", "n_rest"), [(20, 29, 100), (36, 40, 100), (4, 40, 100), (20, 40, 0)]
)
def test_small_or_lopsided_samples_are_left_to_the_exact_interval(n_hits, n, n_rest):
    is_hit = np.arange(n) < n_hits
    assert powered_share(is_hit, np.full(n, 0.5), np.full(n_rest, 0.5)) is None
    found = tighter_share(is_hit, np.full(n, 0.5), np.full(n_rest, 0.5))
    assert found.method == "clopper-pearson"


def drawn(rng, n_pool, *, accuracy, slope, bias):
    """A pool with a model that predicts, more or less well, which of its answers are right."""
    logits = np.log(accuracy / (1 - accuracy)) + slope * rng.normal(size=n_pool)
    is_right = rng.random(n_pool) < 1 / (1 + np.exp(-logits))
    return is_right, 1 / (1 + np.exp(-(logits + bias)))


@pytest.mark.parametrize("n", [30, 60, 200])
@pytest.mark.parametrize(
    ("accuracy", "slope", "bias"),
    [(0.7, 0.0, 0.0), (0.8, 2.0, 0.0), (0.85, 3.0, 2.0), (0.97, 2.0, -1.0), (0.995, 0.0, 0.0)],
)
def test_the_interval_covers_the_truth_also_with_bad_predictions(n, accuracy, slope, bias):
    rng = np.random.default_rng(0)
    is_right, predicted = drawn(rng, 2000, accuracy=accuracy, slope=slope, bias=bias)
    n_covered = 0
    for _ in range(400):
        rows = rng.choice(2000, n, replace=False)
        rest = np.delete(predicted, rows)
        found = tighter_share(is_right[rows], predicted[rows], rest)
        n_covered += found.low <= is_right.mean() <= found.high
    assert n_covered / 400 >= 0.92


def test_good_predictions_make_the_interval_tighter():
    rng = np.random.default_rng(1)
    is_right, predicted = drawn(rng, 5000, accuracy=0.7, slope=4.0, bias=0.0)
    plain = share_interval(int(is_right[:200].sum()), 200)
    found = tighter_share(is_right[:200], predicted[:200], predicted[200:])
    assert found.method == "prediction-powered"
    assert found.width < 0.85 * (plain[1] - plain[0])


def test_kappa_by_hand():
    # 45 + 15 of 100 agree on yes and no, 25 + 15 do not: agreed 0.6, by chance 0.54
    ours = np.array([0] * 45 + [0] * 15 + [1] * 25 + [1] * 15)
    theirs = np.array([0] * 45 + [1] * 15 + [0] * 25 + [1] * 15)
    kappa = estimate_kappa(ours, theirs)
    assert kappa.value == pytest.approx((0.6 - 0.54) / 0.46)
    # 1 - kappa is 0.869565; the marginals are 0.6, 0.4 and 0.7, 0.3
    same = 0.45 * (1 - 1.3 * 0.869565) ** 2 + 0.15 * (1 - 0.7 * 0.869565) ** 2
    other = (0.15 * (0.7 + 0.4) ** 2 + 0.25 * (0.3 + 0.6) ** 2) * 0.869565**2
    variance = (same + other - (0.130435 - 0.54 * 0.869565) ** 2) / 0.46**2 / 100
    assert (kappa.high - kappa.low) / 2 == pytest.approx(1.95996 * variance**0.5, rel=1e-4)


def test_full_agreement_is_not_certain_agreement():
    labels = np.array([0, 1] * 10)
    kappa = estimate_kappa(labels, labels)
    assert (kappa.value, kappa.high) == (pytest.approx(1.0), 1.0)
    assert kappa.low == pytest.approx((0.025 ** (1 / 20) - 0.5) / 0.5)


def test_kappa_needs_two_classes_and_an_example():
    assert estimate_kappa(np.zeros(0, dtype=int), np.zeros(0, dtype=int)) is None
    assert estimate_kappa(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2))
def test_kappa_is_scikit_learns_inside_its_interval(pairs):
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    kappa = estimate_kappa(ours, theirs)
    if kappa is not None:
        assert kappa.value == pytest.approx(cohen_kappa_score(ours, theirs))
        assert -1.0 <= kappa.low <= kappa.value + 1e-9
        assert kappa.value - 1e-9 <= kappa.high <= 1.0


def test_kappas_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    table = np.array([[0.5, 0.08, 0.02], [0.05, 0.2, 0.03], [0.02, 0.02, 0.08]])
    chance = table.sum(axis=1) @ table.sum(axis=0)
    true_kappa = (np.trace(table) - chance) / (1 - chance)
    n_covered = 0
    for _ in range(400):
        cells = rng.choice(9, size=80, p=table.ravel())
        kappa = estimate_kappa(cells // 3, cells % 3)
        n_covered += kappa.low <= true_kappa <= kappa.high
    assert n_covered / 400 >= 0.92


def test_kappa_is_agreement_beyond_chance():
    first = np.array([0] * 50 + [1] * 50)
    second = np.array([0] * 40 + [1] * 60)
    assert estimate_kappa(first, second).value == pytest.approx((0.9 - 0.5) / 0.5)


def test_kappa_is_undefined_without_examples_or_with_a_single_class():
    assert estimate_kappa(np.zeros(0, dtype=int), np.zeros(0, dtype=int)) is None
    assert estimate_kappa(np.ones(5, dtype=int), np.ones(5, dtype=int)) is None


def one_hot(labels):
    return np.eye(2)[np.array(labels)]


def test_agreement_is_cohens_kappa():
    first, second = [0] * 50 + [1] * 50, [0] * 40 + [1] * 60
    assert mean_pairwise_kappa({"a": one_hot(first), "b": one_hot(second)}) == pytest.approx(0.8)


def test_two_that_answer_by_chance_do_not_agree():
    first, second = [0, 0, 1, 1] * 40, [0, 1, 0, 1] * 40
    assert mean_pairwise_kappa({"a": one_hot(first), "b": one_hot(second)}) == pytest.approx(0.0)


def test_agreement_needs_two_that_answered_the_same_texts():
    labels = one_hot([0, 1] * 60)
    abstaining = labels.copy()
    abstaining[30:] = np.nan
    assert mean_pairwise_kappa({"a": labels}) is None
    assert mean_pairwise_kappa({"a": labels, "b": abstaining}) is None
