"""What the use cases need from the database; `adapters.store` is the one implementation.

Tests use it on SQLite: there is no fake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from backend.domain.labels import HumanLabel, WeakLabel
from backend.domain.llm_usage import Usage
from backend.domain.ports import Completion
from backend.domain.projects import (
    Event,
    Prediction,
    Problem,
    Progress,
    Project,
    ProjectId,
    QueuePlace,
    SyncState,
    Task,
)
from backend.domain.rounds import Round, RoundRecipe, RoundState


class ProjectStore(Protocol):
    """Projects and their model versions."""

    def save(
        self,
        project_id: ProjectId,
        *,
        label_config: str,
        title: str | None = None,
        instruction: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> tuple[Project, bool]:
        """Create or update a project; return it and whether what it asks has changed."""
        ...

    def get(self, project_id: ProjectId) -> Project | None:
        """Return a project, or None when it was never connected."""
        ...

    def find(self, platform_id: int) -> Project | None:
        """Return the newest project with Label Studio's number `platform_id`."""
        ...

    def all(self) -> list[Project]:
        """Return all projects, by id."""
        ...

    def disconnect(self, project_id: ProjectId) -> None:
        """Stop working for a project until Label Studio connects it again."""
        ...

    def versions(self, project_id: ProjectId) -> list[str]:
        """Return the project's model versions, newest first."""
        ...

    def superseded_versions(self, project_id: ProjectId) -> list[str]:
        """Return versions that are neither the present one, nor drafts, nor withdrawn yet."""
        ...

    def note_withdrawn(self, project_id: ProjectId, model_version: str) -> None:
        """Record that Label Studio no longer holds this version's predictions."""
        ...

    def served_version(self, project_id: ProjectId) -> str | None:
        """Return the version that Label Studio was last told to serve."""
        ...

    def note_served(self, project_id: ProjectId, model_version: str | None) -> None:
        """Record which version Label Studio serves."""
        ...

    def sync_state(self, project_id: ProjectId) -> SyncState:
        """Return when the project was last listed in full."""
        ...

    def note_full_sync(
        self, project_id: ProjectId, seconds: float, n_foreign_predictions: int
    ) -> None:
        """Record a full listing: how long it took, how many predictions were not ours."""
        ...

    def forget_full_sync(self, project_id: ProjectId) -> None:
        """Make the next sync list the project in full."""
        ...


class TaskStore(Protocol):
    """Tasks and human labels."""

    def apply(self, project_id: ProjectId, event: Event, job: tuple[str, str] | None) -> bool:
        """Apply what Label Studio reported, once; return whether it was news."""
        ...

    def save(self, project_id: ProjectId, tasks: Sequence[Task]) -> None:
        """Save tasks as they are now."""
        ...

    def save_listing(
        self, project_id: ProjectId, tasks: Sequence[Task], started_at: datetime
    ) -> list[int]:
        """Save a page of a full listing; return the tasks whose data has changed since."""
        ...

    def close_listing(
        self,
        project_id: ProjectId,
        started_at: datetime,
        task_ids: set[int],
        annotation_ids: set[int],
    ) -> tuple[int, int]:
        """Mark as deleted what a listing did not show; return how many tasks and labels."""
        ...

    def counts(self, project_id: ProjectId) -> tuple[int, int]:
        """Return how many tasks and how many annotations (skipped ones too) are known."""
        ...

    def human_labels(self, project_id: ProjectId) -> list[HumanLabel]:
        """Return all labels by people, by annotation id; a skipped task is not a label."""
        ...

    def ids(self, project_id: ProjectId) -> list[int]:
        """Return the ids of all tasks that are there, ascending."""
        ...

    def get(self, project_id: ProjectId, task_ids: Sequence[int]) -> list[Task]:
        """Return tasks with their data, by id; those that are gone are left out."""
        ...

    def events(self, project_id: ProjectId) -> dict[str, int]:
        """Return how many events of each action were taken."""
        ...


class LabelStore(Protocol):
    """Weak labels and predictions, always under the project's present model version."""

    def next_unlabelled(self, project: Project, limit: int) -> list[Task]:
        """Return the first tasks, by id, that neither people nor annotators have answered."""
        ...

    def save(
        self,
        project: Project,
        weak_labels: Sequence[WeakLabel],
        predictions: Sequence[Prediction],
    ) -> None:
        """Save a chunk in one transaction; what is there already stays."""
        ...

    def replace(
        self, project: Project, annotators: Sequence[str], weak_labels: Sequence[WeakLabel]
    ) -> None:
        """Put weak labels into the place of all those of these annotators, in one transaction."""
        ...

    def weak_labels(self, project: Project) -> list[WeakLabel]:
        """Return all weak labels, abstentions included, by task and question."""
        ...

    def reopen_passing_abstentions(self, project: Project, older_than_s: float) -> int:
        """Forget abstentions that may go away by themselves; return how many."""
        ...

    def predictions(self, project: Project, tasks: Sequence[Task]) -> dict[int, Prediction]:
        """Return the stored predictions for these very texts, by task; they count as given."""
        ...

    def offer(self, project: Project, task_ids: Sequence[int]) -> set[int]:
        """Mark predictions as given away by /predict; return those that nobody gave before."""
        ...

    def take_unpublished(
        self, project: Project, limit: int, *, patience_s: float
    ) -> tuple[list[Prediction], set[int]]:
        """Take predictions to import; return them, and the tasks to look up first."""
        ...

    def note_published(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio has these predictions."""
        ...

    def note_unpublished(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio does not have these predictions (any more)."""
        ...

    def note_refused(self, project: Project, task_ids: Sequence[int], why: str) -> None:
        """Record that Label Studio does not take these predictions; they are not sent again."""
        ...

    def publication(self, project: Project, task_ids: Sequence[int]) -> dict[int, bool]:
        """Return, for those of the tasks that have a prediction, whether it is published."""
        ...

    def has_published(self, project: Project) -> bool:
        """Return whether Label Studio has any prediction of the present version."""
        ...

    def has_unpublished(self, project: Project) -> bool:
        """Return whether Label Studio lacks a prediction of this version that it would take."""
        ...

    def n_published(self, project: Project) -> int:
        """Return how many predictions Label Studio has of all the project's releases."""
        ...

    def progress(self, project: Project) -> Progress:
        """Return how far the project's pre-annotation is."""
        ...


class ReleaseStore(Protocol):
    """Releases: all predictions of a project under one model version, in their queue's order."""

    def draft(
        self,
        project: Project,
        predictions: Sequence[Prediction],
        places: Sequence[QueuePlace],
        provenance: Mapping[str, Any],
    ) -> Project:
        """Write a release that nobody sees yet; return the project as it would serve it."""
        ...

    def pending(self, project: Project) -> Project | None:
        """Return the newest draft that answers the present question, None without one."""
        ...

    def promote(self, draft: Project) -> bool:
        """Make a draft the release that is served; False when the question has changed since."""
        ...

    def restore(self, project: Project, model_version: str) -> Project:
        """Make an earlier release a draft again; raises UnknownModelVersion."""
        ...

    def discard(self, draft: Project) -> None:
        """Give a draft up; what Label Studio has of it will be withdrawn."""
        ...

    def provenance(self, project_id: ProjectId, model_version: str) -> dict[str, Any]:
        """Return what a release was made from."""
        ...

    def places(self, project: Project) -> list[QueuePlace]:
        """Return the queue of the project's release, first place first."""
        ...


class RoundStore(Protocol):
    """FreeAL rounds: at most one runs per project."""

    def open(self, project: Project, *, recipe: RoundRecipe, reason: str, n_human: int) -> Round:
        """Return the round that runs, or start the next one."""
        ...

    def running(self, project_id: ProjectId) -> Round | None:
        """Return the project's round that runs, None without one."""
        ...

    def history(self, project_id: ProjectId) -> list[Round]:
        """Return all rounds of a project, the first one first."""
        ...

    def note(self, found: Round, *, step: str, progress: Mapping[str, Any]) -> bool:
        """Record where a round is; False when it does not run any more (it was cancelled)."""
        ...

    def finish(
        self,
        found: Round,
        state: RoundState,
        *,
        metrics: Mapping[str, Any] | None = None,
        model_version: str | None = None,
        error: str | None = None,
    ) -> bool:
        """Close a round; False when it was closed already."""
        ...


class LLMCache(Protocol):
    """Answers of language models by key, and what they have cost."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Return the answers that are known, by key; they say that they cost nothing."""
        ...

    def keep(self, answers: Mapping[bytes, Completion], usage: Usage) -> None:
        """Keep answers and add to the usage of its account, in one transaction."""
        ...

    def forget(self, older_than_days: int) -> int:
        """Delete answers kept longer ago than this; return how many."""
        ...

    def usage(self, project_id: str) -> list[Usage]:
        """Return what was asked for a project, by purpose."""
        ...


class StateStore(Protocol):
    """What is remembered of a project beside its labels, as JSON by name."""

    def get(self, project_id: ProjectId, name: str) -> Any:
        """Return the value, or None when there is none."""
        ...

    def put(self, project_id: ProjectId, name: str, value: Any) -> None:
        """Set the value."""
        ...


class JobStore(Protocol):
    """What projects want done, what keeps it from being done, and who is there to do it."""

    def request_job(self, project_id: ProjectId, kind: str, reason: str) -> None:
        """Ask the worker for a job; requests of one kind for one project are one request."""
        ...

    def job_requests(self) -> list[tuple[ProjectId, str, datetime]]:
        """Return what is asked for: project, kind, since when."""
        ...

    def drop_request(self, project_id: ProjectId, kind: str, requested_at: datetime) -> None:
        """Take a request as granted, unless it was made anew after `requested_at`."""
        ...

    def note_problem(self, project_id: ProjectId, source: str, message: str) -> None:
        """Record that something outside keeps work from going on."""
        ...

    def clear_problem(self, project_id: ProjectId, source: str) -> None:
        """Record that `source` works again."""
        ...

    def problems(self, project_id: ProjectId) -> list[Problem]:
        """Return what is wrong now, oldest first."""
        ...

    def beat(self, worker_id: str) -> None:
        """Record that a worker is alive."""
        ...

    def claim_dead_worker(self, own_id: str) -> str | None:
        """Take over from a worker without a sign of life for a minute; return its name."""
        ...

    def live_workers(self) -> list[str]:
        """Return the workers that gave a sign of life in the last 30 s."""
        ...
