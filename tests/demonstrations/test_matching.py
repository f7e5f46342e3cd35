"""Matching within capacities: by hand, and against what is possible at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from backend.demonstrations.matching import match_within_capacity


def most_places(quotas, capacities, is_barred) -> int:
    """The largest number of pairs, by maximum flow."""
    n, p = is_barred.shape
    flow = np.zeros((n + p + 2, n + p + 2), dtype=np.int32)
    flow[0, 1 : n + 1] = quotas
    flow[1 : n + 1, n + 1 : n + p + 1] = ~is_barred
    flow[n + 1 : n + p + 1, n + p + 1] = capacities
    return maximum_flow(csr_array(flow), 0, n + p + 1).flow_value


def test_the_nearest_with_room_is_taken():
    similarities = np.array([[0.9, 0.1], [0.8, 0.3]])
    taken = match_within_capacity(similarities, np.array([1, 1]), np.array([1, 1]))
    assert taken.tolist() == [[True, False], [False, True]]


def test_a_row_gives_a_column_up_for_one_that_has_nothing_else():
    similarities = np.array([[0.9, 0.8], [0.7, 0.6]])
    is_barred = np.array([[False, False], [False, True]])
    taken = match_within_capacity(similarities, np.array([1, 1]), np.array([1, 1]), is_barred)
    assert taken.tolist() == [[False, True], [True, False]]


def test_equal_pairs_go_to_the_lower_row_and_column():
    taken = match_within_capacity(np.zeros((2, 2)), np.array([1, 1]), np.array([1, 2]))
    assert taken.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_rows_or_no_columns_give_no_pairs(shape):
    taken = match_within_capacity(
        np.zeros(shape), np.ones(shape[0], dtype=int), np.ones(shape[1], dtype=int)
    )
    assert taken.shape == shape


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000))
def test_as_many_pairs_are_made_as_can_be_within_quotas_and_capacities(n, p, seed):
    rng = np.random.default_rng(seed)
    quotas, capacities = rng.integers(0, 4, n), rng.integers(0, 4, p)
    is_barred = rng.uniform(size=(n, p)) < 0.3
    taken = match_within_capacity(rng.uniform(size=(n, p)), quotas, capacities, is_barred)
    assert not (taken & is_barred).any()
    assert (taken.sum(axis=1) <= quotas).all()
    assert (taken.sum(axis=0) <= capacities).all()
    assert taken.sum() == most_places(quotas, capacities, is_barred)
