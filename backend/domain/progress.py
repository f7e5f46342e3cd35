"""How far a project is, and what keeps it from going on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SyncState:
    """When a project was last listed in full, how many seconds that took, and what it showed.

    `n_foreign_predictions` counts the prediction rows that are not of the present version.
    """

    full_sync_at: datetime | None
    full_sync_s: float
    n_foreign_predictions: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something outside that keeps work from going on, in plain words."""

    source: str
    message: str
    first_seen_at: datetime
    last_seen_at: datetime
    n_times: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a project's pre-annotation is. `n_to_label` counts what is still open."""

    n_tasks: int
    n_human_labelled: int
    n_labelled: int
    n_published: int
    n_to_label: int
    n_abstained: int
    n_human_labels: int
    n_refused: int = 0
    abstentions: Mapping[str, int] = field(default_factory=dict)
    labels_per_s: float = 0.0
    n_tokens_in: int = 0
    n_tokens_out: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to label or to publish."""
        return self.n_to_label == 0 and self.n_published + self.n_refused >= self.n_labelled

    @property
    def seconds_left(self) -> float | None:
        """Return the time left at the present rate, in seconds; None when nothing moves."""
        if self.n_to_label == 0:
            return 0.0
        return self.n_to_label / self.labels_per_s if self.labels_per_s > 0 else None
