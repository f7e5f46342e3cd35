"""The domain's values. Read this first; every other module speaks in these words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

ProjectId = NewType("ProjectId", str)
"""A Label Studio project for good: "<id>.<unix creation time>", so that a reused id is another."""

Region = dict[str, Any]
"""One element of a Label Studio result list; only `adapters.label_config` looks inside."""


class QuestionKind(StrEnum):
    """What a question accepts as its answer."""

    SINGLE_CHOICE = "single_choice"


@dataclass(frozen=True, slots=True)
class LabelDefinition:
    """One class: what is stored, what a reader sees, and what it means."""

    value: str
    name: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class TextField:
    """Where a text comes from: the object tag's name and the key in a task's data."""

    name: str
    key: str
    is_url: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about an example; one per control tag that this backend can label.

    `labels` is the label space, in the config's order: every posterior follows it.
    """

    name: str
    field: TextField
    kind: QuestionKind
    labels: tuple[LabelDefinition, ...]


@dataclass(frozen=True, slots=True)
class TaskSchema:
    """What a project asks, read from its label config alone.

    `headers` are the config's own instructions to annotators; `unsupported` names the control
    tags that are left alone.
    """

    questions: tuple[Question, ...]
    headers: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()


class AbstentionReason(StrEnum):
    """Why an annotator gave no label. The second group may go away by itself."""

    NO_TEXT = "no_text"
    REMOTE_TEXT = "remote_text"
    REJECTED = "rejected"

    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"

    @property
    def is_passing(self) -> bool:
        """Whether the same text may get a label later, with nothing changed by the user."""
        return self in (AbstentionReason.UNREADABLE, AbstentionReason.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Abstention:
    """No label, and why; `detail` is for people and holds no task text."""

    reason: AbstentionReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A task as an annotator reads it: its texts by field name.

    A field without a usable text is absent from `texts` and explained in `missing`.
    """

    id: int
    texts: Mapping[str, str]
    missing: Mapping[str, Abstention] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeakLabel:
    """An annotator's answer to one question about one example: a posterior, or an abstention.

    `probabilities` follows the question's `labels` and sums to 1; it is empty when the annotator
    abstained. `label_mass` is the share of the model's probability that fell on the label space
    at all: under 0.01 the prompt does not make the model answer the question.
    """

    example_id: int
    question: str
    annotator: str
    prompt_version: str
    probabilities: tuple[float, ...] = ()
    abstention: Abstention | None = None
    label_mass: float | None = None
    is_truncated: bool = False
    n_tokens_in: int = 0
    n_tokens_out: int = 0

    def __post_init__(self) -> None:
        if bool(self.probabilities) == (self.abstention is not None):
            raise ValueError("a weak label has either probabilities or an abstention")


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """One annotation by a person. `result` is kept as Label Studio gave it."""

    annotation_id: int
    task_id: int
    annotator_id: int | None
    result: tuple[Region, ...]
    was_cancelled: bool
    is_ground_truth: bool
    updated_at: datetime


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
    """A project as this backend keeps it: what it asks and which model version it serves."""

    id: ProjectId
    label_config: str
    instruction: str
    title: str
    model_version: str
    is_connected: bool

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class SyncState:
    """When a project was last listed in full, how many seconds that took, and what it showed.

    `n_foreign_predictions` counts the prediction rows that are not of the present version.
    """

    full_sync_at: datetime | None
    full_sync_s: float
    n_foreign_predictions: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is shown in Label Studio for one task under one model version.

    `score` is the confidence in [0, 1] of the least sure answer in `result`.
    """

    task_id: int
    model_version: str
    result: tuple[Region, ...]
    score: float


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
