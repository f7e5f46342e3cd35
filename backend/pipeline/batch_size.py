"""How much to take on before the next look at the world."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST = 16
_WANTED_S = 60.0
_MAX_GROWTH = 4


@dataclass(frozen=True, slots=True)
class AdaptiveBatchSize:
    """The size of the next chunk of work: what takes about a minute, `most` at the most.

    A chunk is saved and published as a whole, and lost as a whole by a kill: where an answer takes
    a minute, 256 of them would show nothing for hours. Nothing is known at first, so that the first
    chunk is small; sizes grow fourfold at a time.
    """

    most: int
    n: int = 0

    @property
    def size(self) -> int:
        """Return how many tasks the next chunk may have."""
        return max(1, min(self.n or _FIRST, self.most))

    def after(self, n_done: int, seconds: float) -> AdaptiveBatchSize:
        """Return the pace after a chunk of `n_done` tasks that took so long."""
        fitting = int(n_done * _WANTED_S / max(seconds, 1e-6))
        return AdaptiveBatchSize(
            self.most, max(1, min(fitting, _MAX_GROWTH * self.size, self.most))
        )
