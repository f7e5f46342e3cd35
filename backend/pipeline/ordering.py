"""Decide when tasks are ordered anew: at first, as labels come, and when all have one."""

from __future__ import annotations

from dataclasses import dataclass

from backend.domain.chunks import STEPS_AT_ONCE
from backend.domain.projects import Progress, Project, ProjectId, QueueState
from backend.errors import UnsupportedLabelConfig
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.release import LABELS_FROM, LEARNED, ReleaseBuilder
from backend.pipeline.status import OUTDATED, QUEUE, read_queue
from backend.pipeline.sync import PrelabelPlan
from backend.store import Stores

ORDERING = "ordering"
"""Source of problems with the ordering."""
_GROWTH = 1.1
_EMBED_S = 25.0
_MIN_EMBED_S = 2.0
_HUMAN_WEIGHT = 8
_SIMILARITY_WEIGHT = 32


@dataclass(frozen=True)
class Orderer:
    """Orders the tasks: at once by their texts, again as labels come, and for a release at the end.

    Its first tasks are labeled before all others, which follow by id, and each new prediction is
    imported with its place as the score. When all are labeled, and when the pool has
    grown, a release is drafted in a new order.
    """

    aggregator: Aggregator
    releases: ReleaseBuilder
    stores: Stores
    plan: PrelabelPlan

    def is_due(self, project: Project) -> bool:
        """Return whether the pool is labeled, and its queue has no order or an outgrown one.

        It is due too when what is served is outdated: labels have changed since it was drafted.
        """
        stores = self.stores
        if stores.releases.pending(project) is not None:
            return False
        progress = stores.labels.progress(project)
        if progress.n_to_label:
            return False
        if stores.state.current(project, OUTDATED) is not None:
            return True
        if not (self.plan.manages_queue and progress.n_labelled):
            return False
        queue = read_queue(stores, project)
        return queue is None or queue.is_early or _has_outgrown(queue, progress)

    def is_settled(self, project: Project) -> bool:
        """Return whether nothing is left to order, and Label Studio holds one release alone."""
        return (
            not self.is_due(project)
            and self.stores.releases.pending(project) is None
            and not self.stores.projects.superseded_versions(project.id)
        )

    def order(self, project_id: ProjectId) -> dict[str, int]:
        """Draft a release in a new order if one is due; a step."""
        project = self.stores.projects.connected(project_id)
        if project is None or not self.is_due(project):
            return {"is_ordered": 0}
        try:
            learned = self.stores.releases.provenance(project.id, project.model_version)
            outdated = self.stores.state.current(project, OUTDATED)
            decided = [
                name
                for name, source in learned.get(LEARNED, {}).items()
                if LABELS_FROM in source and outdated is None
            ]
            aggregated = self.aggregator.aggregate(project, decided=decided)
            self.releases.draft(aggregated, {"kind": "ordering"})
        except UnsupportedLabelConfig as exc:
            self.stores.jobs.note_problem(project_id, ORDERING, str(exc))
            return {"is_ordered": 0}
        self.stores.jobs.clear_problem(project_id, ORDERING)
        if outdated is not None:
            self.stores.state.drop(project_id, OUTDATED, outdated)
        return {"is_ordered": 1}

    def rank(self, project_id: ProjectId) -> dict[str, int]:
        """Order the tasks while they are being labeled, if much more is known by now; a step."""
        project = self.stores.projects.connected(project_id)
        n_evidence = None if project is None else self._evidence(project)
        if project is None or n_evidence is None:
            return {"is_ranked": 0}
        try:
            aggregated, unread = self.aggregator.preview(project, embed_s=self._embed_s(project))
            self.releases.rank(aggregated, unread, n_evidence)
        except UnsupportedLabelConfig as exc:
            self.stores.jobs.note_problem(project_id, ORDERING, str(exc))
            return {"is_ranked": 0}
        return {"is_ranked": 1, "n_unread": len(unread)}

    def _embed_s(self, project: Project) -> float:
        """Return for how long texts are read: all projects without an order share the time.

        So each of twenty that connect at once has its first labels within a minute.
        """
        ordered = self.stores.state.projects_with(QUEUE) | {project.id}
        others = (p for p in self.stores.projects.all() if p.is_connected)
        n_waiting = 1 + sum(other.id not in ordered for other in others)
        return max(_MIN_EMBED_S, _EMBED_S / max(1.0, n_waiting / STEPS_AT_ONCE))

    def _evidence(self, project: Project) -> int | None:
        """Return how much is known of the tasks, if that is twice what it was; None if not.

        A label by people counts eight times, and a fitted similarity as much as 32 labels.
        """
        progress = self.stores.labels.progress(project)
        if not (self.plan.manages_queue and progress.n_to_label):
            return None
        n_evidence = progress.n_labelled + _HUMAN_WEIGHT * progress.n_human_labelled
        n_evidence += _SIMILARITY_WEIGHT * bool(self.aggregator.ensemble.state(project).similarity)
        queue = read_queue(self.stores, project)
        if queue is None or _has_outgrown(queue, progress):
            return n_evidence
        return n_evidence if queue.is_early and n_evidence > 2 * queue.n_evidence else None


def _has_outgrown(queue: QueueState, progress: Progress) -> bool:
    return progress.n_tasks > queue.n_tasks * _GROWTH
