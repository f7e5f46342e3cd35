"""k-medoids: by hand, against every choice there is, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.medoids import k_medoids


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def random_units(n: int, seed: int, d: int = 3) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cost(vectors: np.ndarray, rows) -> float:
    return float((1 - vectors @ vectors[list(rows)].T).min(axis=1).mean())


def test_the_middle_of_each_group_is_its_medoid():
    clustering = k_medoids(on_circle(0, 10, 20, 170, 180, 190), 2)
    assert clustering.medoids.tolist() == [1, 4]
    assert clustering.assignment.tolist() == [0, 0, 0, 1, 1, 1]
    assert clustering.cost == pytest.approx((1 - np.cos(np.radians(10))) * 4 / 6, abs=1e-6)


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_no_single_swap_makes_the_medoids_better(n, data):
    k = data.draw(st.integers(1, n - 1))
    vectors = random_units(n, data.draw(st.integers(0, 1000)))
    clustering = k_medoids(vectors, k)
    others = set(range(n)) - set(clustering.medoids.tolist())
    for place, row in itertools.product(range(k), others):
        swapped = clustering.medoids.tolist()
        swapped[place] = row
        assert cost(vectors, swapped) >= clustering.cost - 1e-5


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000))
def test_medoids_are_different_rows_and_every_row_belongs_to_its_nearest(n, k, seed):
    vectors = random_units(n, seed)
    clustering = k_medoids(vectors, k)
    assert len(set(clustering.medoids.tolist())) == len(clustering.medoids) == min(n, k)
    distances = 1 - vectors @ vectors[clustering.medoids].T
    assert distances[np.arange(n), clustering.assignment] == pytest.approx(
        distances.min(axis=1), abs=1e-6
    )


def test_equal_rows_give_as_many_medoids_as_asked_for_the_lowest_first():
    clustering = k_medoids(np.repeat(on_circle(30), 5, axis=0), 2)
    assert len(set(clustering.medoids.tolist())) == 2
    assert 0 in clustering.medoids
    assert clustering.cost == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("k", [3, 4])
def test_with_no_more_rows_than_medoids_every_row_is_one(k):
    assert k_medoids(on_circle(0, 90, 180), k).medoids.tolist() == [0, 1, 2]


def test_many_rows_are_looked_at_in_part_and_all_assigned():
    vectors = random_units(100, 1)
    clustering = k_medoids(vectors, 4, n_most=20)
    assert set(clustering.medoids.tolist()) <= set(range(0, 100, 5))
    assert len(clustering.assignment) == 100


def test_more_medoids_than_rows_looked_at_are_spread_evenly():
    assert k_medoids(random_units(10, 1), 5, n_most=3).medoids.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("n", "k"), [(0, 1), (3, 0)])
def test_nothing_to_choose_from_or_to_choose_is_refused(n, k):
    with pytest.raises(ValueError, match=f"got {n} rows and k = {k}"):
        k_medoids(np.zeros((n, 2), dtype=np.float32), k)
