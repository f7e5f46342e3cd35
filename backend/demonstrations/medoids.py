"""K-medoids on unit vectors: the rows with the least mean distance to all rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MIN_GAIN = 1e-7
"""What a swap has to gain per row; less is rounding."""
_MAX_PASSES = 100


def k_medoids(vectors: NDArray[np.float32], k: int, *, max_rows: int = 3000) -> NDArray[np.intp]:
    """Return the k rows with the least mean cosine distance from every row to its nearest one.

    Greedy BUILD finds a start; then each row in turn replaces the medoid whose loss costs least, as
    soon as that lowers the cost, with nearest and second nearest medoids kept for every row
    (FasterPAM: Schubert and Rousseeuw, "Fast and eager k-medoids clustering", 2021, section 4).
    Written here: scikit-learn has none, and the `kmedoids` package is GPL-3.

    **Deviations**: a greedy start instead of a random one, so that the result depends on the rows
    alone; ties go to the lower row; medoids are sought among `max_rows` rows, because all distances
    among them are kept (36 MB for 3,000). Cost: O(max_rows^2) memory, O(k max_rows^2) time for the
    start and O(max_rows^2) per pass.

    Args:
        vectors: unit vectors, shape (n, d).
        k: number of medoids, at least 1; with k >= n every row is one.
        max_rows: most rows that are searched, evenly spaced in the given order.

    Returns:
        Row positions, ascending.

    Raises:
        ValueError: `k` is under 1 or there are no rows.
    """
    n = len(vectors)
    if k < 1 or n == 0:
        raise ValueError(f"k-medoids needs rows and k >= 1; got {n} rows and k = {k}")
    rows = np.arange(n) if n <= max_rows else np.arange(max_rows) * n // max_rows
    if k >= len(rows):
        return np.arange(min(k, n)) * n // min(k, n)
    distances = np.maximum(1.0 - vectors[rows] @ vectors[rows].T, 0.0, dtype=np.float32)
    search = _SwapSearch(distances, _build(distances, k))
    last_swapped = 0
    for step in range(len(rows) * _MAX_PASSES):
        if step - last_swapped >= len(rows):
            break
        if search.swap_in(step % len(rows)):
            last_swapped = step
    return np.asarray(rows[np.sort(search.medoids)])


def _build(distances: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return a greedy start: each time the row that lowers the cost most."""
    first = int(distances.sum(axis=1, dtype=np.float64).argmin())
    medoids, nearest = [first], distances[first].copy()
    for _ in range(k - 1):
        gains = np.maximum(nearest - distances, 0.0).sum(axis=1, dtype=np.float64)
        gains[medoids] = -1.0
        best = int(gains.argmax())
        medoids.append(best)
        np.minimum(nearest, distances[best], out=nearest)
    return np.array(medoids, dtype=np.intp)


class _SwapSearch:
    """Improve medoids by swaps, keeping each row's nearest and second nearest one."""

    def __init__(self, distances: NDArray[np.float32], medoids: NDArray[np.intp]) -> None:
        self._distances = distances
        self._min_gain = _MIN_GAIN * len(distances)
        self.medoids = medoids
        self._refresh()

    def swap_in(self, candidate: int) -> bool:
        """Replace the medoid whose loss costs least by a row, if that lowers the cost."""
        if candidate in self.medoids:
            return False
        to_candidate = self._distances[candidate]
        is_nearer = to_candidate < self._first
        gain_if_added = float((self._first - to_candidate)[is_nearer].sum(dtype=np.float64))
        change = np.where(is_nearer, self._first, np.minimum(to_candidate, self._second))
        losses = np.bincount(
            self._nearest, weights=change - self._first, minlength=len(self.medoids)
        )
        place = int(losses.argmin())
        if losses[place] - gain_if_added > -self._min_gain:
            return False
        self.medoids[place] = candidate
        self._refresh()
        return True

    def _refresh(self) -> None:
        to_medoids = self._distances[self.medoids]
        rows = np.arange(to_medoids.shape[1])
        self._nearest = to_medoids.argmin(axis=0)
        self._first = to_medoids[self._nearest, rows]
        if len(self.medoids) == 1:
            self._second = np.full_like(self._first, 2.0)
            return
        to_medoids[self._nearest, rows] = np.inf
        self._second = to_medoids.min(axis=0)
