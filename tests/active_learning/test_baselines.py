import numpy as np
import pytest

from backend.active_learning.baselines import (
    PUBLISHED,
    PublishedStrategy,
    RandomOrder,
    complete_order,
)
from backend.active_learning.strategy_interface import PoolView


def pool(n, **fields):
    vectors = np.tile(np.eye(2, dtype=np.float32)[0], (n, 1))
    return PoolView(np.arange(n), vectors, **fields)


def test_a_random_order_holds_every_open_position_once():
    ordering = RandomOrder().order(pool(9, labeled={3: None}), rng=np.random.default_rng(0))
    assert sorted(ordering.positions) == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("head", [[1, 1], [3]])
def test_a_head_that_repeats_or_is_labelled_is_refused(head):
    with pytest.raises(ValueError, match="twice"):
        complete_order(pool(5, labeled={3: 0}), head, "chosen", np.random.default_rng(0))


def two_groups(n=24, **fields):
    rng = np.random.default_rng(0)
    centers = np.eye(6)[rng.integers(2, size=n)]
    vectors = (centers + 0.1 * rng.normal(size=(n, 6))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PoolView(np.arange(n), vectors, label_names=("a", "b"), **fields)


@pytest.mark.parametrize("labeled", [{}, {0: 0, 1: 1, 2: 0, 3: 1}, {0: 0}, {5: None}], ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_strategy_orders_every_open_position_once(name, labeled):
    pool = two_groups(labeled=labeled)
    ordering = PublishedStrategy(name, n_head=5).order(pool, rng=np.random.default_rng(1))
    assert sorted(ordering.positions) == sorted(pool.open_positions)
    assert ordering.reasons[0] == f"chosen by {name}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_same_seed_gives_the_same_order(name):
    pool = two_groups(labeled={0: 0, 1: 1})
    first, second = (
        PublishedStrategy(name, n_head=5).order(pool, rng=np.random.default_rng(1))
        for _ in range(2)
    )
    assert first.positions.tolist() == second.positions.tolist()


def test_a_pool_that_is_too_large_to_compare_is_sampled_down(monkeypatch):
    monkeypatch.setattr("backend.active_learning.baselines._MAX_TEXTS", 6)
    pool = two_groups(labeled={0: 0, 23: 1, 5: None})
    ordering = PublishedStrategy("entropy", n_head=8).order(pool, rng=np.random.default_rng(1))
    assert sorted(ordering.positions) == sorted(pool.open_positions)
    chosen = [reason == "chosen by entropy" for reason in ordering.reasons]
    assert sum(chosen) == 6


def test_more_are_wanted_than_there_are():
    pool = two_groups(3)
    ordering = PublishedStrategy("k-means", n_head=9).order(pool, rng=np.random.default_rng(1))
    assert sorted(ordering.positions) == [0, 1, 2]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="maxherding"):
        PublishedStrategy("best", n_head=1)
