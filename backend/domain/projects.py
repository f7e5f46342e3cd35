"""Values of a project: tasks, events, predictions, queue, problems and progress."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from backend.domain.labels import HumanLabel, Region
from backend.errors import InvalidRequest

ProjectId = NewType("ProjectId", str)
"""Identifies a project: "<id>.<unix creation time>", so that a reused id is another project."""
_PROJECT_ID = re.compile(r"(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})")
MAX_NESTING = 100
"""Lists and objects within each other; data nested deeper are not read."""
CERTIFICATE, ACCEPTANCE = "certificate", "acceptance"
"""States of what the holdout certifies, and of the last request to accept labels or undo that."""
UNFINISHED = ("asked", "accepting", "undoing")
"""How far such a request is while the worker has something to do for it."""
UNCERTAINTY_SAMPLING = "Uncertainty sampling"
"""Label Studio's name for serving the tasks with the lowest prediction score first."""


def parse_project_id(value: object) -> ProjectId:
    """Return a value as a project's id; raises InvalidRequest for any other writing of one."""
    if not isinstance(value, str) or not is_project_id(value) or value.startswith("0."):
        raise InvalidRequest("'project' must be '<id>.<unix creation time>', as Label Studio sends")
    return ProjectId(value)


def is_project_id(value: str) -> bool:
    """Return whether a value is a project's id in its only writing; "0." if nobody told which."""
    return _PROJECT_ID.fullmatch(value) is not None


def is_row_id(value: object) -> bool:
    """Return whether a value can be the number of a row in Label Studio's database."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def is_nested_deeper(value: Any, limit: int = MAX_NESTING) -> bool:
    """Return whether lists and objects lie in each other deeper than `limit`; never recurses."""
    level = [value]
    for _ in range(limit):
        level = [
            item
            for outer in level
            if isinstance(outer, Mapping | list)
            for item in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(item, Mapping | list)
        ]
        if not level:
            return False
    return True


class JobKind(StrEnum):
    """Kinds of background jobs."""

    ACCEPT = "accept"
    """Certified labels become annotations in Label Studio, or such annotations are taken back."""
    PRELABEL = "prelabel"
    RELABEL = "relabel"
    """The LLM that is served now is tried, and labels what another one labeled if that pays."""
    ROUND = "round"
    """A round if one is due."""
    ROUND_NOW = "round-now"
    """A round because somebody asked for it."""
    TABS = "tabs"
    """Tabs of the Data Manager are added, changed or removed."""


@dataclass(frozen=True, slots=True)
class Task:
    """A Label Studio task with its annotations and the ids of its predictions.

    `prediction_ids` maps each model version to the ids of its prediction rows. None means that the
    source (a webhook) did not include it.
    """

    id: int
    data: Mapping[str, Any]
    annotations: tuple[HumanLabel, ...] | None = None
    prediction_ids: Mapping[str, tuple[int, ...]] | None = None

    def digest(self) -> str:
        """Return a hash of the data, by which a change is detected."""
        text = json.dumps(self.data, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project as Label Studio describes it; None: the source did not include it."""

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
    """An event that Label Studio reported, with the rows that it contained."""

    action: str
    project: ProjectInfo | None = None
    tasks: tuple[Task, ...] = ()
    annotations: tuple[HumanLabel, ...] = ()
    deleted_annotation_ids: tuple[int, ...] = ()
    deleted_task_ids: tuple[int, ...] = ()


class Disconnection(StrEnum):
    """Why nothing is done for a project."""

    REMOVED = "removed"
    """Label Studio does not list this backend in it."""
    DELETED = "deleted"
    """It is not there any more, or not for the token's user."""
    REFUSED = "refused"
    """Label Studio refuses the token, which may work again."""
    ASKED = "asked"
    """Somebody disconnected it on the command line."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project as this backend stores it.

    `question_version` changes with label config and instruction; weak labels belong to one.
    `model_version` is the release whose predictions Label Studio shows: several releases can answer
    one question. `disconnection` (a `Disconnection`) and `disconnected_why` say why it is not
    connected.
    """

    id: ProjectId
    label_config: str
    instruction: str
    title: str
    model_version: str
    question_version: str
    is_connected: bool
    disconnection: str | None = None
    disconnected_why: str | None = None

    @property
    def is_followed(self) -> bool:
        """Whether Label Studio is asked about it: it is connected, or may be so again by itself."""
        return self.is_connected or self.is_refused

    @property
    def is_refused(self) -> bool:
        """Whether Label Studio gives no proper answer about it now; it may be connected again."""
        return not self.is_connected and self.disconnection == Disconnection.REFUSED

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])

    @property
    def created_s(self) -> int:
        """Return when Label Studio made the project, in seconds since 1970."""
        return int(self.id.split(".", 1)[1])


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction that Label Studio shows for one task under one model version.

    `score`, in [0, 1], is the position in the queue, 0 being first; before the queue is ordered,
    the lowest confidence of the answers in `result`.
    """

    task_id: int
    model_version: str
    result: tuple[Region, ...]
    score: float


@dataclass(frozen=True, slots=True)
class AcceptedLabel:
    """A prediction that is accepted as an annotation.

    `unique_id` is Label Studio's key of the annotation, which it stores once. `is_sent`: it may be
    there already; `annotation_id` is known once it is.
    """

    task_id: int
    unique_id: str
    result: tuple[Region, ...]
    model_version: str
    confidence: float
    is_sent: bool = False
    annotation_id: int | None = None


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The position of a task in the annotators' queue of a release, from 0, and the reason.

    `is_holdout`: it belongs to the random holdout, on whose labels metrics are estimated.
    """

    task_id: int
    position: int
    reason: str
    is_holdout: bool = False


@dataclass(frozen=True, slots=True)
class AnsweredTask:
    """A task that a person answered or skipped, and where it had stood in the queue, if it had."""

    task_id: int
    annotator_id: int | None
    answered_at: datetime
    was_skipped: bool
    place: QueuePlace | None


@dataclass(frozen=True, slots=True)
class Release:
    """A kept model version; `can_return`: a rollback can make Label Studio show it again."""

    name: str
    created_at: datetime
    is_draft: bool
    can_return: bool
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueState:
    """What is known about the queue of the newest release; JSON in the state store.

    `uncertainty`: quantiles of the ordered tasks' uncertainty, by which a task that is imported
    later finds its place; `health`: figures that the query strategy measured. `is_early`: made
    before every task had its label, when `n_evidence` was known (`Orderer.rank`).
    """

    question_version: str
    strategy: str
    n_tasks: int
    n_human: int
    uncertainty: tuple[float, ...] = ()
    health: Mapping[str, Any] | None = None
    is_early: bool = False
    n_evidence: int = 0


class TabFilter(StrEnum):
    """Which tasks a tab shows, by what Label Studio itself knows of them."""

    WAITING = "waiting"
    """Without an annotation, in the order of the queue."""
    UNLABELED = "unlabeled"
    """With neither an annotation nor a prediction of the served version."""


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of the Data Manager: the tasks of a filter, or these by id."""

    title: str
    shows: TabFilter | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncState:
    """Time and duration of a project's last full listing.

    `n_foreign_predictions` counts the listed predictions of other model versions.
    """

    full_sync_at: datetime | None
    full_sync_s: float
    n_foreign_predictions: int


@dataclass(frozen=True, slots=True)
class Problem:
    """An external failure that blocks a project's work, described for users."""

    source: str
    message: str
    first_seen_at: datetime
    last_seen_at: datetime
    n_times: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a project's pre-annotation.

    The LLM is still to be asked about `n_to_label` tasks; `n_without_label` tasks have neither an
    answer by people nor a prediction, whether asked about or not.
    """

    n_tasks: int
    n_human_labelled: int
    n_labelled: int
    n_published: int
    n_to_label: int
    n_abstained: int
    n_human_labels: int
    n_refused: int = 0
    n_without_label: int = 0
    abstentions: Mapping[str, int] = field(default_factory=dict)
    labels_per_s: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every task is labeled and every prediction published."""
        return self.n_to_label == 0 and self.n_published + self.n_refused >= self.n_labelled

    @property
    def seconds_left(self) -> float | None:
        """Return the remaining seconds at the present rate; None at rate 0."""
        if self.n_to_label == 0:
            return 0.0
        return self.n_to_label / self.labels_per_s if self.labels_per_s > 0 else None
