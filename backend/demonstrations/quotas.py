"""How many demonstrations of each class a prompt has, so that the pool is enough for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.matching import match_within_capacity


@dataclass(frozen=True, slots=True)
class Quotas:
    """`n_shots` per set: `n_each` of every class and one of `n_left` classes that differ by set.

    `capacities[c]` is how many sets a demonstration of class c may stand in, `sizes[c]` how many
    demonstrations it has.
    """

    n_shots: int
    n_each: int
    n_left: int
    sizes: tuple[int, ...]
    capacities: tuple[int, ...]


def settle_quotas(sizes: Sequence[int], *, n_sets: int, n_shots: int, capacity: int) -> Quotas:
    """Return the most demonstrations per set, up to `n_shots`, that can be had within capacity.

    `sizes` are the classes' numbers of demonstrations, none of them 0. Counts of two classes in a
    set never differ by more than one. At least one of every class (or `n_shots` of as many
    classes, where there are more classes than that) is kept to by raising capacities as little as
    needed. By the theorem of Gale and Ryser counting places is enough: equal quotas can be met
    exactly when every class has places enough.
    """
    n_classes = len(sizes)
    if n_classes <= n_shots:
        capacities = [max(capacity, -(-n_sets // size)) for size in sizes]
    else:
        while _places(sizes, [capacity] * n_classes, 0, n_sets) < n_shots * n_sets:
            capacity += 1
        capacities = [capacity] * n_classes
    for n_had in range(n_shots, 0, -1):
        n_each, n_left = divmod(n_had, n_classes)
        if _is_enough(sizes, capacities, (n_each, n_left), n_sets):
            return Quotas(n_had, n_each, n_left, tuple(sizes), tuple(capacities))
    raise AssertionError("one demonstration per class can always be had")


def shares_by_class(nearest: NDArray[np.float64], quotas: Quotas) -> NDArray[np.intp]:
    """Return how many demonstrations of each class each set has, shape (g, C).

    `nearest[g, c]` is how near class c comes to set g; the remainder goes to the nearest classes
    that still have places.
    """
    n_sets = len(nearest)
    shares = np.full(nearest.shape, quotas.n_each, dtype=np.intp)
    if not quotas.n_left:
        return shares
    sizes, capacities = np.array(quotas.sizes), np.array(quotas.capacities)
    places = np.where(sizes > quotas.n_each, sizes * capacities - quotas.n_each * n_sets, 0)
    wanted = np.full(n_sets, quotas.n_left, dtype=np.intp)
    return shares + match_within_capacity(nearest, wanted, places.astype(np.intp))


def _is_enough(
    sizes: Sequence[int], capacities: Sequence[int], quota: tuple[int, int], n_sets: int
) -> bool:
    n_each, n_left = quota
    for size, capacity in zip(sizes, capacities, strict=True):
        if size < n_each or size * min(capacity, n_sets) < n_each * n_sets:
            return False
    return _places(sizes, capacities, n_each, n_sets) >= n_left * n_sets


def _places(sizes: Sequence[int], capacities: Sequence[int], n_each: int, n_sets: int) -> int:
    """Return how many sets can have one more, summed over the classes."""
    return sum(
        min(size * min(capacity, n_sets) - n_each * n_sets, n_sets)
        for size, capacity in zip(sizes, capacities, strict=True)
        if size > n_each
    )
