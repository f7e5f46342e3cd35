"""Match rows to columns within capacities; balanced clusters and class quotas built on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_MAX_ITERATIONS = 20


def match_within_capacity(
    similarities: NDArray[np.float64],
    quotas: NDArray[np.intp],
    capacities: NDArray[np.intp],
    is_forbidden: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which row is matched to which column, shape (n, p): `quotas[i]` columns for row i.

    Pairs are taken from the most similar down while the row wants one and the column has room
    (greedy b-matching, at least half of the best total). A row left short then gets its columns by
    augmenting paths, so that it ends short only when no assignment serves it beside those already
    served. Ties go to the lower row, then the lower column. Cost: O(n p log(n p)) for the sort,
    O(n p) for each column that the greedy pass left missing.

    Args:
        similarities: of row and column, shape (n, p).
        quotas: columns wanted by each row, shape (n,).
        capacities: rows that each column may serve, shape (p,).
        is_forbidden: pairs that are never matched, shape (n, p).
    """
    matched = np.zeros(similarities.shape, dtype=np.bool_)
    is_allowed = np.ones_like(matched) if is_forbidden is None else ~is_forbidden
    wanted = quotas.astype(np.intp).copy()
    room = capacities.astype(np.intp).copy()
    order = np.argsort(-similarities, axis=None, kind="stable")
    rows, columns = np.unravel_index(order, similarities.shape)
    n_open = int(wanted.sum())
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if wanted[row] > 0 and room[column] > 0 and is_allowed[row, column]:
            matched[row, column] = True
            wanted[row] -= 1
            room[column] -= 1
            n_open -= 1
            if n_open == 0:
                break
    for row in np.flatnonzero(wanted):
        while wanted[row] > 0 and _augment(matched, is_allowed, room, int(row)):
            wanted[row] -= 1
    return matched


def _augment(
    matched: NDArray[np.bool_], is_allowed: NDArray[np.bool_], room: NDArray[np.intp], row: int
) -> bool:
    """Give `row` one column more along a shortest path to a column with room, if there is one."""
    came_from: dict[int, tuple[int, int]] = {}
    reached = np.zeros(len(room), dtype=np.bool_)
    is_seen = np.zeros(len(matched), dtype=np.bool_)
    is_seen[row] = True
    rows = deque([(row, -1)])
    while rows:
        at, given_up = rows.popleft()
        for column in np.flatnonzero(is_allowed[at] & ~matched[at] & ~reached).tolist():
            reached[column] = True
            came_from[column] = (at, given_up)
            if room[column] > 0:
                room[column] -= 1
                while column >= 0:
                    at, given_up = came_from[column]
                    matched[at, column] = True
                    if given_up >= 0:
                        matched[at, given_up] = False
                    column = given_up
                return True
            for other in np.flatnonzero(matched[:, column] & ~is_seen).tolist():
                is_seen[other] = True
                rows.append((other, column))
    return False


def balanced_clusters(
    vectors: NDArray[np.float32], max_size: int, *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Cluster unit vectors into as few clusters as can be with at most `max_size` texts each.

    K-means on the sphere finds the centers, then texts go to their nearest center with room, the
    closest pairs first. Cost: k-means and O(n k log(n k)).

    Args:
        vectors: unit vectors, shape (n, d).
        max_size: most texts per cluster, at least 1.
        rng: draws the first centers.

    Returns:
        Each text's cluster index, shape (n,).
    """
    n = len(vectors)
    k = -(-n // max_size)
    if k <= 1:
        return np.zeros(n, dtype=np.intp)
    similarities = (vectors @ _spherical_k_means(vectors, k, rng).T).astype(np.float64)
    matched = match_within_capacity(
        similarities, np.ones(n, dtype=np.intp), np.full(k, max_size, dtype=np.intp)
    )
    return np.asarray(matched.argmax(axis=1), dtype=np.intp)


def _spherical_k_means(
    vectors: NDArray[np.float32], k: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return k unit centers, shape (k, d) (spherical k-means, Dhillon and Modha 2001).

    Written here because scikit-learn's k-means has no cosine and warns where texts are equal. A
    center that loses all its texts stays where it is.
    """
    n = len(vectors)
    centers = vectors[rng.choice(n, size=k, replace=False)]
    nearest = np.full(n, -1)
    for _ in range(_MAX_ITERATIONS):
        moved = (vectors @ centers.T).argmax(axis=1)
        if np.array_equal(moved, nearest):
            break
        nearest = moved
        members = csr_array((np.ones(n, dtype=np.float32), (nearest, np.arange(n))), shape=(k, n))
        sums = members @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centers)
    return np.asarray(centers, dtype=np.float32)


def class_quotas(
    nearest: NDArray[np.float64], sizes: Sequence[int], *, n_shots: int, capacity: int
) -> tuple[NDArray[np.intp], list[int]]:
    """Return how many demonstrations of each class each set has, the most that fit.

    Counts of two classes in a set never differ by more than one; a remainder goes to the nearest
    classes that have slots. At least one of every class (or `n_shots` of as many classes, where
    there are more classes than that) is kept to by raising capacities as little as needed. By the
    theorem of Gale and Ryser counting slots is enough: equal quotas can be met exactly when every
    class has slots enough.

    Args:
        nearest: highest similarity of set and a demonstration of the class, shape (g, C).
        sizes: demonstrations of each of the C classes, all above 0.
        n_shots: demonstrations wanted per set, at least 1.
        capacity: sets that a demonstration may stand in.

    Returns:
        The counts, shape (g, C), and the capacity of each class's demonstrations.
    """
    n_sets, n_classes = nearest.shape
    if n_classes <= n_shots:
        capacities = [max(capacity, -(-n_sets // size)) for size in sizes]
    else:
        while _n_free_slots(sizes, [capacity] * n_classes, 0, n_sets) < n_shots * n_sets:
            capacity += 1
        capacities = [capacity] * n_classes
    for n_wanted in range(n_shots, 0, -1):
        n_each, n_left = divmod(n_wanted, n_classes)
        has_each = all(
            size >= n_each and size * min(most, n_sets) >= n_each * n_sets
            for size, most in zip(sizes, capacities, strict=True)
        )
        if has_each and _n_free_slots(sizes, capacities, n_each, n_sets) >= n_left * n_sets:
            break
    counts = np.full(nearest.shape, n_each, dtype=np.intp)
    if n_left:
        free = np.array(sizes) * capacities - n_each * n_sets
        slots = np.where(np.array(sizes) > n_each, free, 0).astype(np.intp)
        counts += match_within_capacity(nearest, np.full(n_sets, n_left), slots)
    return counts, capacities


def _n_free_slots(sizes: Sequence[int], capacities: Sequence[int], n_each: int, n_sets: int) -> int:
    """Return how many sets can have one more, summed over the classes."""
    return sum(
        min(size * min(capacity, n_sets) - n_each * n_sets, n_sets)
        for size, capacity in zip(sizes, capacities, strict=True)
        if size > n_each
    )
