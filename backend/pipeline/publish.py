"""Put predictions into Label Studio, each exactly once, and make it serve them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain.chunks import Chunk
from backend.domain.ports import LabelingPlatform
from backend.domain.projects import Project, ProjectId
from backend.errors import PlatformError, PlatformRejected
from backend.pipeline.chunks import planned
from backend.pipeline.connection import Connections
from backend.pipeline.sync import PrelabelPlan
from backend.store import Stores

_LOG = logging.getLogger(__name__)
PUBLISHING = "publishing"


@dataclass(frozen=True)
class Publisher:
    """Bulk import in chunks, with what was created checked against what was sent.

    A prediction is marked as sent before its import and as published after: whatever was under
    way when a process was killed, and whatever /predict gave away a while ago, is
    looked up in Label Studio first.
    """

    platform: LabelingPlatform
    connections: Connections
    stores: Stores
    plan: PrelabelPlan

    def plan_chunk(
        self, project_id: ProjectId, *, after: int, size: int, is_draft: bool
    ) -> dict[str, int]:
        """Name the next tasks whose prediction Label Studio lacks; a step."""
        release, patience_s = self._release(project_id, is_draft=is_draft), self.plan.patience_s
        find = self.stores.publication.unpublished_ids
        ids = find(release, size, after=after, patience_s=patience_s) if release else []
        return planned(self.stores, ids, after)

    def promote(self, project_id: ProjectId) -> dict[str, int]:
        """Let the release that waits take over once Label Studio has all of it; a step.

        Until then people see the old one, whole.
        """
        draft = self._release(project_id, is_draft=True)
        if draft is None or self.stores.publication.has_unpublished(draft):
            return {"is_promoted": 0}
        is_promoted = self.stores.releases.promote(draft)
        if is_promoted:
            _LOG.info("project=%s release=%s takes over", project_id, draft.model_version)
        return {"is_promoted": int(is_promoted)}

    def _release(self, project_id: ProjectId, *, is_draft: bool) -> Project | None:
        """Return the project with the version of the served release, or of the draft."""
        project = self.stores.projects.connected(project_id)
        return self.stores.releases.pending(project) if project and is_draft else project

    def publish_chunk(
        self, project_id: ProjectId, *, chunk: Chunk, is_draft: bool = False
    ) -> dict[str, int]:
        """Import the next predictions of a chunk; a step. `is_done`: all, or no more are taken now.

        `is_stopped`: those of further chunks would not be taken either.
        """
        project, size = self._release(project_id, is_draft=is_draft), self.plan.publish_chunk
        if project is None:
            return {"n_published": 0, "is_done": 1, "is_stopped": 1}
        started_at = time.monotonic()
        predictions, doubtful = self.stores.publication.take_unpublished(
            project, size, patience_s=self.plan.patience_s, chunk=chunk
        )
        if not predictions:
            return {"n_published": 0, "is_done": 1}
        try:
            present = self._look_up(project, sorted(doubtful))
            to_send = [p for p in predictions if p.task_id not in present]
            task_ids = [p.task_id for p in to_send]
            if to_send:
                n_created = self.platform.import_predictions(project.platform_id, to_send)
                if n_created != len(to_send):
                    task_ids = self._drop_refused(project, task_ids, n_created)
                    self.stores.projects.forget_full_sync(project_id)
            self.stores.publication.note_published(project, task_ids)
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, PUBLISHING, str(exc))
            _LOG.warning("project=%s cannot publish: %s", project_id, exc)
            if isinstance(exc, PlatformRejected):
                self.stores.projects.forget_full_sync(project_id)
            return {"n_published": 0, "is_done": 1, "is_stopped": 1}
        self.stores.jobs.clear_problem(project_id, PUBLISHING)
        return {
            "n_published": len(present) + len(task_ids),
            "n_tasks": len(predictions),
            "ms": int(1000 * (time.monotonic() - started_at)),
            "is_done": int(len(predictions) < size),
        }

    def _look_up(self, project: Project, task_ids: Sequence[int]) -> set[int]:
        if not task_ids:
            return set()
        present = self.platform.predicted_task_ids(
            project.platform_id, task_ids, project.model_version
        )
        self.stores.publication.note_published(project, sorted(present))
        return present

    def _drop_refused(self, project: Project, task_ids: Sequence[int], n_created: int) -> list[int]:
        present = self._look_up(project, task_ids)
        refused = [task_id for task_id in task_ids if task_id not in present]
        why = "Label Studio dropped it at import: the task is gone or the label config has changed"
        self.stores.publication.note_refused(project, refused, why)
        counts = (len(task_ids), n_created, len(refused))
        _LOG.error("project=%s sent=%d created=%d refused=%d", project.id, *counts)
        return sorted(present)

    def serve(self, project_id: ProjectId) -> dict[str, int]:
        """Make Label Studio show and order by the present version; a step.

        Versions that it replaces are deleted there: they answer another question.
        """
        project = self.stores.projects.connected(project_id)
        if project is None or not self.plan.manages_queue:
            return {"is_served": 0}
        projects, version = self.stores.projects, project.model_version
        try:
            if projects.served_version(project_id) != version:
                if not self.stores.publication.has_published(project):
                    return {"is_served": 0}
                self.connections.note_queue(project, self.platform.project(project.platform_id))
                self.platform.serve_model_version(project.platform_id, version)
                projects.note_served(project_id, version)
                _LOG.info("project=%s serves version=%s", project_id, version)
            # apart from the switch, so that a kill in between loses no deletion
            for superseded in projects.superseded_versions(project_id):
                self.platform.delete_model_version(project.platform_id, superseded)
                projects.note_withdrawn(project_id, superseded)
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, PUBLISHING, str(exc))
            return {"is_served": 0}
        return {"is_served": 1}
