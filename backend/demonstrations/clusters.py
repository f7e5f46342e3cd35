"""Clusters of equal size: texts that are alike, never too many together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from backend.demonstrations.matching import match_within_capacity

_MAX_ITERATIONS = 20


def equal_clusters(
    vectors: NDArray[np.float32], n_most: int, *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return each text's cluster, shape (n,): as few as can be with at most `n_most` texts each.

    `vectors` are unit vectors, shape (n, d). K-means on the sphere finds the centres, then texts
    go to their nearest centre with room, the closest pairs first. Cost: k-means and O(nk log(nk)).
    """
    n = len(vectors)
    k = -(-n // n_most)
    if k <= 1:
        return np.zeros(n, dtype=np.intp)
    to_centre = (vectors @ _centres(vectors, k, rng).T).astype(np.float64)
    taken = match_within_capacity(
        to_centre, np.ones(n, dtype=np.intp), np.full(k, n_most, dtype=np.intp)
    )
    return np.asarray(taken.argmax(axis=1), dtype=np.intp)


def _centres(vectors: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return k unit vectors that are near to all texts (spherical k-means, Dhillon and Modha 2001).

    Written here because scikit-learn's k-means has no cosine and warns where texts are equal. A
    centre that loses all its texts stays where it is.
    """
    n = len(vectors)
    centres = vectors[rng.choice(n, size=k, replace=False)]
    nearest = np.full(n, -1)
    for _ in range(_MAX_ITERATIONS):
        moved = (vectors @ centres.T).argmax(axis=1)
        if np.array_equal(moved, nearest):
            break
        nearest = moved
        members = csr_array((np.ones(n, dtype=np.float32), (nearest, np.arange(n))), shape=(k, n))
        sums = members @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    return np.asarray(centres, dtype=np.float32)
