"""Give the queue its order: when all is labelled, and when it has grown since."""

from __future__ import annotations

from backend.domain.projects import Project, ProjectId
from backend.errors import UnsupportedLabelConfig
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.release import ReleaseBuilder
from backend.pipeline.sync import PrelabelPlan
from backend.store import Stores

ORDERING = "ordering"
_GROWTH = 1.1


class Orderer:
    """Settles a project and drafts a release in the strategy's order."""

    def __init__(
        self,
        aggregator: Aggregator,
        releaser: ReleaseBuilder,
        stores: Stores,
        plan: PrelabelPlan,
    ) -> None:
        self._aggregator = aggregator
        self._releaser = releaser
        self._stores = stores
        self._plan = plan

    def is_due(self, project: Project) -> bool:
        """Return whether the pool is labelled and its queue has no order, or an outgrown one."""
        if not self._plan.manages_queue or self._stores.releases.pending(project) is not None:
            return False
        progress = self._stores.labels.progress(project)
        if progress.n_to_label or not progress.n_labelled:
            return False
        queue = self._releaser.queue(project)
        return queue is None or progress.n_tasks > queue.n_tasks * _GROWTH

    def is_settled(self, project: Project) -> bool:
        """Return whether nothing is left to order, and Label Studio holds one release alone."""
        return (
            not self.is_due(project)
            and self._stores.releases.pending(project) is None
            and not self._stores.projects.superseded_versions(project.id)
        )

    def order(self, project_id: ProjectId) -> dict[str, int]:
        """Draft a release in a new order if one is due; a step."""
        project = self._stores.projects.get(project_id)
        if project is None or not project.is_connected or not self.is_due(project):
            return {"is_ordered": 0}
        try:
            aggregated = self._aggregator.aggregate(self._aggregator.pool(project))
            self._releaser.release(aggregated, {"kind": "ordering"})
        except UnsupportedLabelConfig as exc:
            self._stores.jobs.note_problem(project_id, ORDERING, str(exc))
            return {"is_ordered": 0}
        self._stores.jobs.clear_problem(project_id, ORDERING)
        return {"is_ordered": 1}
