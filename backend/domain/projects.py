"""Projects with their tasks, events, predictions and progress, as this backend keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

from backend.domain.labels import HumanLabel, Region

ProjectId = NewType("ProjectId", str)
"""A Label Studio project for good: "<id>.<unix creation time>", so that a reused id is another."""


UNCERTAINTY_SAMPLING = "Uncertainty sampling"
"""How Label Studio calls serving the tasks with the lowest prediction score first."""


@dataclass(frozen=True, slots=True)
class Task:
    """A Label Studio task with what is already on it, as a listing gives it.

    `prediction_ids` maps each model version to the ids of its prediction rows; None means that
    the source (a webhook) did not say.
    """

    id: int
    data: Mapping[str, Any]
    annotations: tuple[HumanLabel, ...] | None = None
    prediction_ids: Mapping[str, tuple[int, ...]] | None = None

    def digest(self) -> str:
        """Return a hash of the data, to see whether a task has changed."""
        text = json.dumps(self.data, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project as Label Studio describes it. None: the source did not say."""

    id: ProjectId
    label_config: str
    title: str = ""
    instruction: str = ""
    model_version: str | None = None
    sampling: str | None = None
    n_tasks: int | None = None
    n_annotations: int | None = None
    n_predictions: int | None = None

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class Event:
    """What Label Studio reported, with everything that it said about it."""

    action: str
    project: ProjectInfo | None = None
    tasks: tuple[Task, ...] = ()
    annotations: tuple[HumanLabel, ...] = ()
    deleted_annotation_ids: tuple[int, ...] = ()
    deleted_task_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A project as this backend keeps it: what it asks and which model version it serves.

    `question_version` changes with what is asked and names the weak labels that answer it.
    `model_version` is the release whose predictions Label Studio is to show: several releases can
    answer one question.
    """

    id: ProjectId
    label_config: str
    instruction: str
    title: str
    model_version: str
    question_version: str
    is_connected: bool

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is shown in Label Studio for one task under one model version.

    `score`, in [0, 1], is the place in the queue, 0 being first; until the queue has its order, the
    confidence of the least sure answer in `result`.
    """

    task_id: int
    model_version: str
    result: tuple[Region, ...]
    score: float


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a task stands in the annotators' queue of a release, from 0, and why.

    `is_holdout`: it belongs to the uniformly random stream that estimates are made from.
    """

    task_id: int
    position: int
    reason: str
    is_holdout: bool = False


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
