"""Matching within capacities, balanced clusters and class quotas: by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from backend.demonstrations.matching import (
    balanced_clusters,
    class_quotas,
    match_within_capacity,
)


def max_matching(quotas, capacities, is_forbidden) -> int:
    """The largest number of pairs, by maximum flow."""
    n, p = is_forbidden.shape
    flow = np.zeros((n + p + 2, n + p + 2), dtype=np.int32)
    flow[0, 1 : n + 1] = quotas
    flow[1 : n + 1, n + 1 : n + p + 1] = ~is_forbidden
    flow[n + 1 : n + p + 1, n + p + 1] = capacities
    return maximum_flow(csr_array(flow), 0, n + p + 1).flow_value


def test_the_nearest_with_room_is_matched():
    similarities = np.array([[0.9, 0.1], [0.8, 0.3]])
    matched = match_within_capacity(similarities, np.array([1, 1]), np.array([1, 1]))
    assert matched.tolist() == [[True, False], [False, True]]


def test_a_row_gives_a_column_up_for_one_that_has_nothing_else():
    similarities = np.array([[0.9, 0.8], [0.7, 0.6]])
    is_forbidden = np.array([[False, False], [False, True]])
    matched = match_within_capacity(similarities, np.array([1, 1]), np.array([1, 1]), is_forbidden)
    assert matched.tolist() == [[False, True], [True, False]]


def test_equal_pairs_go_to_the_lower_row_and_column():
    matched = match_within_capacity(np.zeros((2, 2)), np.array([1, 1]), np.array([1, 2]))
    assert matched.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_rows_or_no_columns_give_no_pairs(shape):
    matched = match_within_capacity(
        np.zeros(shape), np.ones(shape[0], dtype=int), np.ones(shape[1], dtype=int)
    )
    assert matched.shape == shape


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000))
def test_as_many_pairs_are_made_as_can_be_within_quotas_and_capacities(n, p, seed):
    rng = np.random.default_rng(seed)
    quotas, capacities = rng.integers(0, 4, n), rng.integers(0, 4, p)
    is_forbidden = rng.uniform(size=(n, p)) < 0.3
    matched = match_within_capacity(rng.uniform(size=(n, p)), quotas, capacities, is_forbidden)
    assert not (matched & is_forbidden).any()
    assert (matched.sum(axis=1) <= quotas).all()
    assert (matched.sum(axis=0) <= capacities).all()
    assert matched.sum() == max_matching(quotas, capacities, is_forbidden)


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def test_texts_that_are_alike_come_together():
    clusters = balanced_clusters(on_circle(0, 180, 5, 185), 2, rng=np.random.default_rng(0))
    assert clusters[0] == clusters[2] != clusters[1] == clusters[3]


def test_texts_that_fit_into_one_cluster_are_one():
    clusters = balanced_clusters(on_circle(0, 180), 2, rng=np.random.default_rng(0))
    assert clusters.tolist() == [0, 0]


def test_equal_texts_are_shared_out_too():
    clusters = balanced_clusters(
        np.repeat(on_circle(7), 6, axis=0), 2, rng=np.random.default_rng(0)
    )
    assert np.bincount(clusters).tolist() == [2, 2, 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 999))
def test_no_cluster_is_too_large_and_the_seed_decides(n, max_size, seed):
    vectors = on_circle(*np.random.default_rng(seed).uniform(0, 360, n))
    clusters = balanced_clusters(vectors, max_size, rng=np.random.default_rng(seed))
    assert np.bincount(clusters).max() <= max_size
    again = balanced_clusters(vectors, max_size, rng=np.random.default_rng(seed))
    assert clusters.tolist() == again.tolist()


def quotas_of(sizes, n_sets, n_shots, capacity=1):
    """Return the fewest and the most of one class in a set, the size of a set and capacities."""
    counts, capacities = class_quotas(
        np.zeros((n_sets, len(sizes))), sizes, n_shots=n_shots, capacity=capacity
    )
    assert len(set(counts.sum(axis=1).tolist())) == 1
    return counts.min(), counts.max(), counts[0].sum(), capacities


def test_enough_of_every_class_gives_all_shots():
    assert quotas_of([40, 40], n_sets=10, n_shots=8) == (4, 4, 8, [1, 1])


def test_a_remainder_is_shared_out():
    assert quotas_of([20] * 6, n_sets=10, n_shots=10) == (1, 2, 10, [1] * 6)


def test_a_small_pool_gives_fewer_under_the_same_cap():
    assert quotas_of([20, 20], n_sets=10, n_shots=8) == (2, 2, 4, [1, 1])


def test_the_cap_gives_way_only_for_the_class_that_has_too_few():
    assert quotas_of([3, 40], n_sets=10, n_shots=8) == (1, 2, 3, [4, 1])


def test_more_classes_than_shots_give_one_of_as_many_classes():
    assert quotas_of([2] * 77, n_sets=20, n_shots=8, capacity=2) == (0, 1, 8, [2] * 77)


def test_the_remainder_goes_to_the_nearest_class_that_has_slots():
    nearest = np.array([[0.9, 0.1], [0.8, 0.7]])
    counts, _ = class_quotas(nearest, [1, 1], n_shots=1, capacity=1)
    assert counts.tolist() == [[1, 0], [0, 1]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
def test_quotas_can_be_kept_and_differ_by_one_at_most(sizes, data):
    n_sets = data.draw(st.integers(1, 12))
    n_shots = data.draw(st.integers(1, 10))
    nearest = np.random.default_rng(0).uniform(size=(n_sets, len(sizes)))
    counts, capacities = class_quotas(nearest, sizes, n_shots=n_shots, capacity=1)
    assert len(set(counts.sum(axis=1).tolist())) == 1
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert (counts <= np.array(sizes)).all()
    assert (counts.sum(axis=0) <= np.array(sizes) * capacities).all()
    assert min(n_shots, len(sizes)) <= counts[0].sum() <= n_shots


@pytest.mark.parametrize("n_sets", [1, 5])
def test_one_demonstration_serves_every_set_if_it_is_the_only_one(n_sets):
    assert quotas_of([1], n_sets=n_sets, n_shots=4) == (1, 1, 1, [n_sets])
