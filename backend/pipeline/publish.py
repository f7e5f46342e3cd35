"""Put predictions into Label Studio, each exactly once, and make it serve them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain.ports import LabelingPlatform
from backend.domain.projects import Project, ProjectId
from backend.errors import PlatformError, PlatformRejected
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

    def publish_chunk(self, project_id: ProjectId) -> dict[str, int]:
        """Import the next chunk; a step. `is_done`: nothing more can be published now."""
        project = self.stores.projects.connected(project_id)
        if project is None:
            return {"n_published": 0, "is_done": 1}
        return self._publish_next(project)

    def publish_draft(self, project_id: ProjectId) -> dict[str, int]:
        """Import the next chunk of the release that waits; a step.

        Once Label Studio has all of it, it takes over: until then people see the old one, whole.
        """
        project = self.stores.projects.connected(project_id)
        draft = self.stores.releases.pending(project) if project else None
        if draft is None:
            return {"n_published": 0, "is_done": 1}
        counts = self._publish_next(draft)
        if not counts["is_done"] or self.stores.labels.has_unpublished(draft):
            return counts
        if self.stores.releases.promote(draft):
            _LOG.info("project=%s release=%s takes over", project_id, draft.model_version)
        return {**counts, "is_promoted": 1}

    def _publish_next(self, project: Project) -> dict[str, int]:
        project_id = project.id
        predictions, doubtful = self.stores.labels.take_unpublished(
            project, self.plan.publish_chunk, patience_s=self.plan.patience_s
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
            self.stores.labels.note_published(project, task_ids)
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, PUBLISHING, str(exc))
            _LOG.warning("project=%s cannot publish: %s", project_id, exc)
            if isinstance(exc, PlatformRejected):
                self.stores.projects.forget_full_sync(project_id)
            return {"n_published": 0, "is_done": 1}
        self.stores.jobs.clear_problem(project_id, PUBLISHING)
        return {
            "n_published": len(present) + len(task_ids),
            "is_done": int(len(predictions) < self.plan.publish_chunk),
        }

    def _look_up(self, project: Project, task_ids: Sequence[int]) -> set[int]:
        if not task_ids:
            return set()
        present = self.platform.predicted_task_ids(
            project.platform_id, task_ids, project.model_version
        )
        self.stores.labels.note_published(project, sorted(present))
        return present

    def _drop_refused(self, project: Project, task_ids: Sequence[int], n_created: int) -> list[int]:
        present = self._look_up(project, task_ids)
        refused = [task_id for task_id in task_ids if task_id not in present]
        why = "Label Studio dropped it at import: the task is gone or the label config has changed"
        self.stores.labels.note_refused(project, refused, why)
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
                if not self.stores.labels.has_published(project):
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
