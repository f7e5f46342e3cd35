"""Keep what was counted about projects for a moment: pages of large ones cost little again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_SHARE = 0.1
"""Share of one thread's time that may go into counting the same state."""
_Counted = tuple[float, str, Mapping[str, Any]]
"""Until when it is shown, its version, and the state."""


@dataclass
class RecentStates:
    """Remembers states by key for ten times as long as it took to count them.

    So at most a tenth of one thread's time goes into counting, however often pages are loaded;
    those who ask for the same state meanwhile wait for the one count.
    """

    clock: Callable[[], float] = time.monotonic
    _found: dict[str, _Counted] = field(default_factory=dict, init=False)
    _locks: dict[str, threading.Lock] = field(default_factory=dict, init=False)

    def get(
        self, key: str, count: Callable[[], Mapping[str, Any]], *, version: str = ""
    ) -> Mapping[str, Any]:
        """Return the state under a key, counted anew when it is too old or of another version."""
        with self._locks.setdefault(key, threading.Lock()):
            found = self._found
            until, of, state = found.get(key, (0.0, version, {}))
            started_at = self.clock()
            if started_at >= until or of != version:
                state = count()
                ended_at = self.clock()
                found[key] = (ended_at + (ended_at - started_at) / MAX_SHARE, version, state)
            return state

    def forget(self) -> None:
        """Have everything counted anew: something was changed on the page.

        A count that is under way is not remembered: it may be older than the change.
        """
        self._found = {}
