"""Many to many: give each row its number of columns while no column is taken too often."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


def match_within_capacity(
    similarities: NDArray[np.float64],
    quotas: NDArray[np.intp],
    capacities: NDArray[np.intp],
    is_barred: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which row takes which column, shape (n, p): `quotas[i]` different ones for row i.

    Pairs are taken from the most similar down as long as the row wants one and the column has room
    (greedy b-matching, at least half of the best total). A row left short then gets its columns by
    augmenting paths: another row gives one up for one with room. So a row ends short only when no
    assignment whatever serves it beside those already served. `is_barred` pairs are never taken.

    Cost: O(n p log(n p)) for the sort; O(n p) for each column that greed left missing. Ties go to
    the lower row, then the lower column.
    """
    taken = np.zeros(similarities.shape, dtype=np.bool_)
    may = np.ones_like(taken) if is_barred is None else ~is_barred
    wanted = quotas.astype(np.intp).copy()
    room = capacities.astype(np.intp).copy()
    order = np.argsort(-similarities, axis=None, kind="stable")
    rows, columns = np.unravel_index(order, similarities.shape)
    n_open = int(wanted.sum())
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if wanted[row] > 0 and room[column] > 0 and may[row, column]:
            taken[row, column] = True
            wanted[row] -= 1
            room[column] -= 1
            n_open -= 1
            if n_open == 0:
                break
    for row in np.flatnonzero(wanted):
        while wanted[row] > 0 and _augment(taken, may, room, int(row)):
            wanted[row] -= 1
    return taken


def _augment(
    taken: NDArray[np.bool_], may: NDArray[np.bool_], room: NDArray[np.intp], row: int
) -> bool:
    """Give `row` one column more along a shortest path to a column with room, if there is one."""
    came_from: dict[int, tuple[int, int]] = {}
    reached = np.zeros(len(room), dtype=np.bool_)
    is_seen = np.zeros(len(taken), dtype=np.bool_)
    is_seen[row] = True
    rows = deque([(row, -1)])
    while rows:
        at, given_up = rows.popleft()
        for column in np.flatnonzero(may[at] & ~taken[at] & ~reached).tolist():
            reached[column] = True
            came_from[column] = (at, given_up)
            if room[column] > 0:
                room[column] -= 1
                _shift(taken, came_from, column)
                return True
            for other in np.flatnonzero(taken[:, column] & ~is_seen).tolist():
                is_seen[other] = True
                rows.append((other, column))
    return False


def _shift(taken: NDArray[np.bool_], came_from: dict[int, tuple[int, int]], column: int) -> None:
    while True:
        row, given_up = came_from[column]
        taken[row, column] = True
        if given_up < 0:
            return
        taken[row, given_up] = False
        column = given_up
