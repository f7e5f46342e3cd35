"""What the use cases need from the database; `adapters.store` is the one implementation.

Tests use it on SQLite: there is no fake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from backend.core.types import (
    Event,
    HumanLabel,
    Prediction,
    Problem,
    Progress,
    Project,
    ProjectId,
    SyncState,
    Task,
    WeakLabel,
)


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
        """Return versions that are neither the present one nor withdrawn yet."""
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

    def progress(self, project: Project) -> Progress:
        """Return how far the project's pre-annotation is."""
        ...


class WorkStore(Protocol):
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

    def live_workers(self) -> list[str]:
        """Return the workers that gave a sign of life in the last 30 s."""
        ...
