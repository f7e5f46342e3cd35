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
    assert k_medoids(on_circle(0, 10, 20, 170, 180, 190), 2).tolist() == [1, 4]


@settings(deadline=None)
@given(st.integers(2, 12), st.data())
def test_no_single_swap_makes_the_medoids_better(n, data):
    k = data.draw(st.integers(1, n - 1))
    vectors = random_units(n, data.draw(st.integers(0, 1000)))
    medoids = k_medoids(vectors, k).tolist()
    for place, row in itertools.product(range(k), set(range(n)) - set(medoids)):
        swapped = [*medoids]
        swapped[place] = row
        assert cost(vectors, swapped) >= cost(vectors, medoids) - 1e-5


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000))
def test_medoids_are_different_rows_in_ascending_order(n, k, seed):
    medoids = k_medoids(random_units(n, seed), k).tolist()
    assert medoids == sorted(set(medoids))
    assert len(medoids) == min(n, k)


def test_equal_rows_give_as_many_medoids_as_asked_for_the_lowest_first():
    medoids = k_medoids(np.repeat(on_circle(30), 5, axis=0), 2).tolist()
    assert len(set(medoids)) == 2
    assert 0 in medoids


@pytest.mark.parametrize("k", [3, 4])
def test_with_no_more_rows_than_medoids_every_row_is_one(k):
    assert k_medoids(on_circle(0, 90, 180), k).tolist() == [0, 1, 2]


def test_many_rows_are_searched_in_part():
    medoids = k_medoids(random_units(100, 1), 4, max_rows=20).tolist()
    assert len(medoids) == 4
    assert set(medoids) <= set(range(0, 100, 5))


def test_more_medoids_than_rows_searched_are_spread_evenly():
    assert k_medoids(random_units(10, 1), 5, max_rows=3).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("n", "k"), [(0, 1), (3, 0)])
def test_nothing_to_choose_from_or_to_choose_is_refused(n, k):
    with pytest.raises(ValueError, match=f"got {n} rows and k = {k}"):
        k_medoids(np.zeros((n, 2), dtype=np.float32), k)
