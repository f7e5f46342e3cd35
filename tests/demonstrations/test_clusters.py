"""Equal clusters: alike together, never too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.clusters import equal_clusters


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def test_texts_that_are_alike_come_together():
    clusters = equal_clusters(on_circle(0, 180, 5, 185), 2, rng=np.random.default_rng(0))
    assert clusters[0] == clusters[2] != clusters[1] == clusters[3]


def test_texts_that_fit_into_one_cluster_are_one():
    clusters = equal_clusters(on_circle(0, 180), 2, rng=np.random.default_rng(0))
    assert clusters.tolist() == [0, 0]


def test_equal_texts_are_shared_out_too():
    clusters = equal_clusters(np.repeat(on_circle(7), 6, axis=0), 2, rng=np.random.default_rng(0))
    assert np.bincount(clusters).tolist() == [2, 2, 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 999))
def test_no_cluster_is_too_large_and_the_seed_decides(n, n_most, seed):
    vectors = on_circle(*np.random.default_rng(seed).uniform(0, 360, n))
    clusters = equal_clusters(vectors, n_most, rng=np.random.default_rng(seed))
    assert np.bincount(clusters).max() <= n_most
    again = equal_clusters(vectors, n_most, rng=np.random.default_rng(seed))
    assert clusters.tolist() == again.tolist()
