"""Make our picture of a project equal to Label Studio's, which never repeats a lost webhook."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from backend.domain.labels import AbstentionReason
from backend.domain.ports import ConfigReader, LabelingPlatform
from backend.domain.projects import (
    UNCERTAINTY_SAMPLING,
    Project,
    ProjectId,
    ProjectInfo,
    Task,
)
from backend.errors import PlatformError, UnsupportedLabelConfig
from backend.pipeline.config_change import (
    ASKED,
    asks_the_same,
    carry_over,
    compare,
    is_debounced,
    note_asked,
)
from backend.pipeline.connection import PLATFORM, Connections
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_PAGE = 500
_LISTING_SHARE = 0.1
_LOOKED_AT = "edits_looked_at"
_CLOCK_SKEW = timedelta(minutes=2)
_MAX_PROBLEM_AGE = timedelta(minutes=1)
_MASS_SHARE = 0.2
_MIN_MASS = 20
_MASS_REMOVAL = "mass_removal"
_SECOND_LOOK = timedelta(minutes=2)
LABEL_CONFIG = "label-config"
LISTING = "listing"
"""Sources of problems."""


@dataclass(frozen=True, slots=True)
class PrelabelPlan:
    """How pre-annotation works: sizes in tasks, times in seconds.

    `manages_queue`: Label Studio is told which version to serve and how to order its queue.
    `patience_s`: what /predict gave away is looked up in Label Studio only after that long.
    `debounce_s`: a label config that asks something new is followed once it stays for that long, so
    that several changes in a row start one version.
    """

    annotate_chunk: int = 256
    publish_chunk: int = 500
    manages_queue: bool = True
    full_sync_interval_s: float = 3600.0
    retry_abstentions_s: float = 3600.0
    patience_s: float = 30.0
    debounce_s: float = 60.0


@dataclass(frozen=True)
class Synchronizer:
    """Finds out what has changed in Label Studio, and what work follows from it.

    Counts are compared often, a full listing is made when they differ, but never for more than a
    tenth of the time: it costs Label Studio two seconds per 1,000 tasks.
    """

    platform: LabelingPlatform
    connections: Connections
    config: ConfigReader
    stores: Stores
    plan: PrelabelPlan
    is_order_due: Callable[[Project], bool]

    def work_due(self, project_id: ProjectId) -> str | None:
        """Return why a project needs its worker now, or None; asks Label Studio once."""
        project, info = self._refreshed(project_id) or (None, None)
        if project is None or self._is_settling(project):
            return None
        if info is not None and self._is_listing_due(project, info):
            return "tasks or annotations have changed"
        self._follow_edits(project)
        progress = self.stores.labels.progress(project)
        if progress.n_to_label:
            return f"{progress.n_to_label} tasks have no label"
        n_unreachable = progress.abstentions.get(AbstentionReason.UNREACHABLE, 0)
        if n_unreachable:
            return f"the LLM could not be reached about {n_unreachable} tasks"
        if not progress.is_complete:
            return "predictions are not published yet"
        if self.is_order_due(project):
            return "the queue has no order yet, or has grown out of it"
        if self.stores.releases.pending(project) is not None:
            return "a release waits to be published"
        is_served = self.stores.projects.served_version(project_id) is not None
        if self.plan.manages_queue and progress.n_published and not is_served:
            return "the queue's model version is not set"
        problems = self.stores.jobs.problems(project_id)
        if any(datetime.now(UTC) - each.last_seen_at > _MAX_PROBLEM_AGE for each in problems):
            return "an earlier problem may be gone"
        return None

    def sync(self, project_id: ProjectId, *, is_thorough: bool = False) -> dict[str, int]:
        """Bring a project up to date; a step. Failures are recorded, not raised.

        Its counts say when it began (`started_at`, s since 1970), and `is_stopped` where nothing
        may be done for the project now.

        `is_thorough` lists also where the counts agree: an answer that was changed counts as
        before, and its webhook may have been lost.
        """
        counts = {"n_listed": 0, "started_at": int(time.time())}
        project, info = self._refreshed(project_id) or (None, None)
        if project is None or self._is_settling(project):
            return {**counts, "is_stopped": 1}
        if info is None:
            return counts
        self._follow_edits(project)
        is_due = self._is_listing_due(project, info)
        if not is_due and not (is_thorough and self._may_list(project.id)):
            return counts
        try:
            return {**counts, "n_listed": self._list(project, info)}
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, PLATFORM, str(exc))
            return counts

    def clear_problems(self, project_id: ProjectId, *, started_at: int) -> dict[str, int]:
        """Forget the problems that a run which began then has not met again; a step."""
        before = datetime.fromtimestamp(started_at, UTC)
        return {"n_cleared": self.stores.jobs.clear_problems(project_id, before=before)}

    def _refreshed(self, project_id: ProjectId) -> tuple[Project, ProjectInfo | None] | None:
        """Return a connected project with its config as it is now in Label Studio."""
        project = self.stores.projects.get(project_id)
        checked = self.connections.check(project) if project and project.is_followed else None
        if checked is None or checked[1] is None:
            return checked
        return self._adopt(checked[0], checked[1]), checked[1]

    def _adopt(self, project: Project, info: ProjectInfo) -> Project:
        served = self.stores.projects.served_version(project.id)
        is_sampled = info.sampling in (None, UNCERTAINTY_SAMPLING)
        if served is not None and not (info.model_version == served and is_sampled):
            self.stores.projects.note_served(project.id, None)
        try:
            self.config.read_schema(info.label_config)
        except UnsupportedLabelConfig as exc:
            self.stores.jobs.note_problem(project.id, LABEL_CONFIG, str(exc))
            self.stores.state.put(project.id, ASKED, None)
            return project
        self.stores.jobs.clear_problem(project.id, LABEL_CONFIG)
        is_same = asks_the_same(self.config, project, info.label_config)
        if not is_same or project.instruction != info.instruction:
            note_asked(self.stores, project, info.label_config, info.instruction)
            if not is_debounced(self.stores, project, self.plan.debounce_s):
                return project
        saved, is_new_question = self.stores.projects.save(
            project.id,
            label_config=info.label_config,
            title=info.title,
            instruction=info.instruction,
            asks_the_same=is_same,
        )
        self.stores.state.put(project.id, ASKED, None)
        if is_new_question:
            _LOG.info("project=%s asks something new: version=%s", saved.id, saved.model_version)
            if project.instruction == info.instruction:
                self._carry_over(project, saved)
        return saved

    def _carry_over(self, before: Project, after: Project) -> None:
        try:
            schemas = (self.config.read_schema(each.label_config) for each in (before, after))
            carry_over(self.stores, before, after, compare(*schemas))
        except UnsupportedLabelConfig:
            return  # the reader has learned to refuse the old one: nothing is kept

    def _is_settling(self, project: Project) -> bool:
        """Return whether the project is to ask something new, as soon as it is sure what."""
        return self.stores.state.get(project.id, ASKED) is not None

    def _follow_edits(self, project: Project) -> None:
        """Take up edits of tasks since the last look, of which no webhook tells.

        Labels and predictions of a text that was changed go at once, here and in Label Studio.
        """
        started_at = datetime.now(UTC)
        looked = self.stores.state.get(project.id, _LOOKED_AT)
        since = datetime.fromisoformat(looked) if looked else started_at
        try:
            edited = self.platform.tasks(project.platform_id, updated_since=since - _CLOCK_SKEW)
            while page := list(islice(edited, _PAGE)):
                changed = self.stores.tasks.save_listing(project.id, page, started_at)
                self._reconcile(project, [t for t in page if t.id in set(changed)], set(changed))
        except PlatformError as exc:
            self.stores.jobs.note_problem(project.id, PLATFORM, str(exc))
            return
        self.stores.state.put(project.id, _LOOKED_AT, started_at.isoformat())

    def _is_listing_due(self, project: Project, info: ProjectInfo) -> bool:
        state = self.stores.projects.sync_state(project.id)
        if state.full_sync_at is None:
            return True
        age = datetime.now(UTC) - state.full_sync_at
        if age > timedelta(seconds=self.plan.full_sync_interval_s):
            return True
        # more prediction rows than these are doubles, fewer are lost ones: a listing repairs both
        n_predictions = state.n_foreign_predictions + self.stores.publication.n_published(project)
        counts = (*self.stores.tasks.counts(project.id), n_predictions)
        differs = counts != (info.n_tasks, info.n_annotations, info.n_predictions)
        return differs and self._may_list(project.id)

    def _may_list(self, project_id: ProjectId) -> bool:
        """Return whether the last full listing is long enough ago to afford another."""
        state = self.stores.projects.sync_state(project_id)
        if state.full_sync_at is None:
            return True
        age = datetime.now(UTC) - state.full_sync_at
        return age.total_seconds() > state.full_sync_s / _LISTING_SHARE

    def _list(self, project: Project, info: ProjectInfo) -> int:
        started_at, clock = datetime.now(UTC), time.monotonic()
        own = set(self.stores.projects.versions(project.id))
        task_ids: set[int] = set()
        annotation_ids: set[int] = set()
        n_foreign = 0
        tasks = iter(self.platform.tasks(project.platform_id))
        while page := list(islice(tasks, _PAGE)):
            task_ids.update(task.id for task in page)
            annotation_ids.update(a.annotation_id for task in page for a in task.annotations or ())
            changed = self.stores.tasks.save_listing(project.id, page, started_at)
            versions = [(v, ids) for t in page for v, ids in (t.prediction_ids or {}).items()]
            n_foreign += sum(len(ids) for version, ids in versions if version not in own)
            self._reconcile(project, page, set(changed))
        n_tasks = n_labels = 0
        listing = (started_at, task_ids, annotation_ids)
        doubt = self._doubt(project, info, listing)
        if doubt is None:
            n_tasks, n_labels = self.stores.tasks.close_listing(project.id, *listing)
            self.stores.jobs.clear_problem(project.id, LISTING)
        else:
            self.stores.jobs.note_problem(project.id, LISTING, doubt)
            _LOG.warning("project=%s %s", project.id, doubt)
        self.stores.projects.note_full_sync(project.id, time.monotonic() - clock, n_foreign)
        line = "project=%s listed n_tasks=%d gone_tasks=%d gone_annotations=%d"
        _LOG.info(line, project.id, len(task_ids), n_tasks, n_labels)
        return len(task_ids)

    def _doubt(
        self, project: Project, info: ProjectInfo, listing: tuple[datetime, set[int], set[int]]
    ) -> str | None:
        """Return why nothing that a listing leaves out may be taken as deleted; None if it may.

        A listing has to show as many rows as the project counts. Where much would go, a second one
        has to say the same some minutes later: what is deleted here takes its labels with it.
        """
        _, task_ids, annotation_ids = listing
        for listed, counted, what in (
            (len(task_ids), info.n_tasks, "tasks"),
            (len(annotation_ids), info.n_annotations, "annotations"),
        ):
            if counted is not None and listed < counted:
                return f"the listing shows {listed:,} of {counted:,} {what}: nothing is removed"
        gone = self.stores.tasks.unlisted(project.id, *listing)
        kept = self.stores.tasks.counts(project.id)
        n_gone = max(
            (len(ids) for ids, n in zip(gone, kept, strict=True) if len(ids) > n * _MASS_SHARE),
            default=0,
        )
        seen_at = self.stores.state.get(project.id, _MASS_REMOVAL)
        if n_gone <= _MIN_MASS:
            if seen_at is not None:
                self.stores.state.put(project.id, _MASS_REMOVAL, None)
            return None
        now = datetime.now(UTC)
        if seen_at is not None and now - datetime.fromisoformat(seen_at) >= _SECOND_LOOK:
            self.stores.state.put(project.id, _MASS_REMOVAL, None)
            return None
        if seen_at is None:
            self.stores.state.put(project.id, _MASS_REMOVAL, now.isoformat())
        return (
            f"{n_gone:,} rows are gone in Label Studio, over a fifth: they are removed here when a "
            f"listing says the same in {_SECOND_LOOK.seconds // 60} minutes"
        )

    def _reconcile(self, project: Project, page: Sequence[Task], changed: set[int]) -> None:
        """Make what we hold as published equal to what Label Studio has, without doubles."""
        version = project.model_version
        rows = {task.id: (task.prediction_ids or {}).get(version, ()) for task in page}
        ours = self.stores.publication.publication(project, list(rows))
        news = {task_id: bool(rows[task_id]) for task_id in ours}
        arrived = [task_id for task_id in ours if news[task_id] and not ours[task_id]]
        lost = [task_id for task_id in ours if ours[task_id] and not news[task_id]]
        self.stores.publication.note_published(project, arrived)
        self.stores.publication.note_unpublished(project, lost)
        superfluous: list[int] = []
        for task_id, prediction_ids in rows.items():
            n_wanted = 1 if task_id in ours and task_id not in changed else 0
            superfluous += sorted(prediction_ids, reverse=True)[n_wanted:]
        if superfluous:
            self.platform.delete_predictions(superfluous)
