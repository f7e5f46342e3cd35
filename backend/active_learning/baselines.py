"""Orders that any query strategy has to beat: random, the head of the list, every n-th."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.active_learning.diagnostics import examine
from backend.active_learning.ordering import Ordering, PoolView, Reason


class RandomOrder:
    """Order the open positions at random."""

    @property
    def name(self) -> str:
        """Return the strategy's name in settings."""
        return "random"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool."""
        return complete_order(pool, [], Reason("drawn at random"), rng)


class FirstInList:
    """Keep the order of the list; what the published "pick 32 of 200" mostly returned."""

    @property
    def name(self) -> str:
        """Return the strategy's name in settings."""
        return "first-k"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool."""
        return complete_order(pool, pool.open_positions.tolist(), Reason("next in the list"), rng)


class EveryNth:
    """Take every n-th open position for a first batch of `n_head`."""

    def __init__(self, n_head: int) -> None:
        self._n_head = n_head

    @property
    def name(self) -> str:
        """Return the strategy's name in settings."""
        return "every-nth"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool: every n-th ones, then the rest at random."""
        open_positions = pool.open_positions
        step = max(1, len(open_positions) // self._n_head)
        head = open_positions[::step][: self._n_head].tolist()
        return complete_order(pool, head, Reason(f"every {step}th of the list"), rng)


def complete_order(
    pool: PoolView, head: Sequence[int], reason: Reason, rng: np.random.Generator
) -> Ordering:
    """Return an ordering of `head`, for that reason, with all other open positions at random.

    Raises ValueError when the head repeats a position or holds one that is not open.
    """
    chosen = np.array(head, dtype=np.int64)
    open_positions = pool.open_positions
    if len(np.unique(chosen)) < len(chosen) or not np.isin(chosen, open_positions).all():
        raise ValueError("a strategy chose a position twice, or one that is labelled already")
    rest = rng.permutation(np.setdiff1d(open_positions, chosen))
    positions = np.concatenate([chosen, rest]).astype(np.int64)
    reasons = (reason,) * len(chosen) + (Reason("drawn at random"),) * len(rest)
    return Ordering(positions, reasons, examine(pool, positions, rng))
