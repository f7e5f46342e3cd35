"""The durable workflow that gives every unlabeled task a prediction, and the queue its order.

One worker runs it; the chunks of labeling and publishing are any worker's.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial

from backend.domain.chunks import ALL_TASKS, Chunk, ChunkKind
from backend.domain.labels import AbstentionReason
from backend.domain.llm_usage import STUDY, track_usage
from backend.domain.ports import ChunkWork, StepRunner
from backend.domain.projects import Project, ProjectId
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.chunks import ChunkedWork, planned, work_in_chunks
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.ordering import Orderer
from backend.pipeline.predict import LANGUAGE_MODEL, Labeler
from backend.pipeline.publish import Publisher
from backend.pipeline.status import read_llm_budget, request_release
from backend.pipeline.sync import PrelabelPlan, Synchronizer
from backend.pipeline.tabs import TabKeeper
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0
_N_FIRST = 8


@dataclass
class PreAnnotator:
    """Labels a project chunk by chunk, each saved in one transaction."""

    labeler: Labeler
    aggregator: Aggregator
    budget: LLMBudgetPlanner
    stores: Stores
    plan: PrelabelPlan

    def fit_sample(self, project_id: ProjectId) -> dict[str, int]:
        """Fit the ensemble on a sample and plan the LLM's budget before tasks are labeled; a step.

        Once per question, and again when the pool has grown fourfold since.
        """
        project = self.stores.projects.connected(project_id)
        if project is None:
            return {"is_studied": 0}
        try:
            with track_usage(project_id, STUDY):
                is_fitted = int(self.aggregator.fit_sample_if_due(project))
            return {"is_studied": is_fitted, **self.budget.plan(project)}
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self.stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {"is_studied": 0}

    def label_first(self, project_id: ProjectId) -> dict[str, int]:
        """Predict a few tasks before the sample is fitted, which can take minutes; a step.

        Only what people see of them is kept. They are labeled with the others, by the prompts that
        the sample selects; a later release shows that label.
        """
        stores, project = self.stores, self.stores.projects.connected(project_id)
        if project is None or not self.aggregator.is_sample_due(project):
            return {"n_labelled": 0}
        ids = stores.labels.next_unlabeled(project, _N_FIRST)
        if not ids or stores.publication.has_any(project):
            return {"n_labelled": 0}
        tasks = stores.tasks.get(project_id, ids)
        try:
            with track_usage(project_id, "annotate"):
                _, predictions = self.labeler.label(project, tasks)
        except (LanguageModelError, UnsupportedLabelConfig):
            return {"n_labelled": 0}  # the next steps meet it again, and note it
        stores.labels.save(project, [], predictions, tasks=tasks)
        return {"n_labelled": len(predictions)}

    def reopen(self, project_id: ProjectId, *, is_thorough: bool = False) -> dict[str, int]:
        """Forget abstentions of answers that did not come or could not be read; a step.

        Only those older than the setting says, unless `is_thorough`. Those that did not come are
        forgotten as soon as the LLM answers one of them: its return is noticed, not waited for.
        """
        project, labels = self.stores.projects.get(project_id), self.stores.labels
        if project is None:
            return {"n_reopened": 0}
        older_than_s = 0.0 if is_thorough else self.plan.retry_abstentions_s
        n = labels.reopen(project, older_than_s=older_than_s)
        task_id = labels.unreachable_task(project)
        if task_id is not None and self._is_answered(project, task_id):
            n += labels.reopen(project, reasons=[AbstentionReason.UNREACHABLE])
        return {"n_reopened": n}

    def _is_answered(self, project: Project, task_id: int) -> bool:
        """Return whether the LLM answers about a task now; what it says is cached."""
        tasks = self.stores.tasks.get(project.id, [task_id])
        try:
            with track_usage(project.id, "annotate"):
                labels, _ = self.labeler.label(project, tasks, deadline_s=_PATIENCE_S)
        except (LanguageModelError, UnsupportedLabelConfig):
            return False
        abstentions = [label.abstention for label in labels if label.abstention is not None]
        return all(why.reason is not AbstentionReason.UNREACHABLE for why in abstentions)

    def plan_chunk(self, project_id: ProjectId, *, after: int, size: int) -> dict[str, int]:
        """Name the next tasks to label; a step."""
        project = self.stores.projects.connected(project_id)
        labels = self.stores.labels
        ids = labels.unlabeled_ids(project, size, after=after) if project else []
        return planned(self.stores, ids, after)

    def annotate_chunk(self, project_id: ProjectId, *, chunk: Chunk) -> dict[str, int]:
        """Label a chunk of tasks; a step. `is_stopped`: nothing more can be labeled now."""
        stores = self.stores
        project = stores.projects.connected(project_id)
        if project is None:
            return {"n_labelled": 0, "is_stopped": 1}
        tasks = stores.labels.unlabeled(project, chunk)
        started_at = time.monotonic()
        try:
            with track_usage(project_id, "annotate"):
                not_sampled = set(read_llm_budget(stores, project).left_out)
                weak_labels, predictions = self.labeler.label(
                    project, tasks, not_sampled=not_sampled
                )
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            _LOG.warning("project=%s cannot label: %s", project_id, exc)
            return {"n_labelled": 0, "is_stopped": 1}
        n_outdated = stores.labels.save(project, weak_labels, predictions, tasks=tasks)
        if n_outdated:
            request_release(stores, project, f"{n_outdated} tasks have another label now")
        stores.jobs.clear_problem(project_id, LANGUAGE_MODEL)
        ms = int(1000 * (time.monotonic() - started_at))
        return {"n_labelled": len(predictions), "n_tasks": len(tasks), "ms": ms}


@dataclass(frozen=True, slots=True)
class PrelabelSteps:
    """The use cases that the workflow's steps call."""

    synchronizer: Synchronizer
    annotator: PreAnnotator
    publisher: Publisher
    orderer: Orderer
    tabs: TabKeeper


def prelabel(
    project_id: ProjectId, runner: StepRunner, steps: PrelabelSteps, *, is_thorough: bool = False
) -> None:
    """Sync, order, label and publish chunk by chunk until nothing more can be done, then release.

    The first order needs the texts alone; a prediction is imported with its place in it as score,
    and it is made anew as labels come.

    Each step is safe to repeat and finds its own work in the database, so a kill costs at most
    the chunks under way. What could not be done (a server is down) is left to the next run.

    `is_thorough`: the sync finds changed answers too, which counts do not show, and the LLM is
    asked again about what it left unanswered however short ago.
    """
    sync = partial(steps.synchronizer.sync, is_thorough=is_thorough)
    reopen = partial(steps.annotator.reopen, is_thorough=is_thorough)
    begun = runner.run("sync", sync, project_id)
    if begun.get("is_stopped"):
        return
    serve = partial(runner.run, "serve", steps.publisher.serve, project_id)
    rank = partial(runner.run, "rank", steps.orderer.rank, project_id)

    def follow() -> None:
        serve()
        rank()

    rank()
    if runner.run("first", steps.annotator.label_first, project_id)["n_labelled"]:
        _publish_chunk(project_id, ALL_TASKS, runner, publisher=steps.publisher)
        serve()
    runner.run("study", steps.annotator.fit_sample, project_id)
    rank()
    runner.run("reopen", reopen, project_id)
    plan, limit = steps.annotator.plan_chunk, steps.annotator.plan.annotate_chunk
    work_in_chunks(project_id, runner, ChunkedWork(ChunkKind.LABEL, plan, limit, follow))
    publish(project_id, runner, steps)
    ordered = runner.run("order", steps.orderer.order, project_id)
    if ordered["is_ordered"]:
        publish(project_id, runner, steps)
    clear = partial(steps.synchronizer.clear_problems, started_at=begun["started_at"])
    runner.run("clear", clear, project_id)


def publish(project_id: ProjectId, runner: StepRunner, steps: PrelabelSteps) -> None:
    """Publish the present release, then a draft after it, and serve what is whole."""
    publisher = steps.publisher
    serve = partial(runner.run, "serve", publisher.serve, project_id)

    def publish_all(kind: ChunkKind) -> None:
        plan = partial(publisher.plan_chunk, is_draft=kind is ChunkKind.DRAFT)
        limit = publisher.plan.publish_chunk
        work_in_chunks(project_id, runner, ChunkedWork(kind, plan, limit, serve))

    publish_all(ChunkKind.PUBLISH)
    publish_all(ChunkKind.DRAFT)
    runner.run("promote", publisher.promote, project_id)
    serve()
    publish_all(ChunkKind.PUBLISH)  # of tasks that were labeled while the draft was published
    runner.run("tabs", steps.tabs.keep_if_due, project_id)


def chunk_work(steps: PrelabelSteps) -> dict[str, ChunkWork]:
    """Return what workers do with a chunk, by kind."""
    return {
        ChunkKind.LABEL: partial(_label_chunk, steps=steps),
        ChunkKind.PUBLISH: partial(_publish_chunk, publisher=steps.publisher),
        ChunkKind.DRAFT: partial(_publish_chunk, publisher=steps.publisher, is_draft=True),
    }


def _label_chunk(
    project_id: ProjectId, chunk: Chunk, runner: StepRunner, *, steps: PrelabelSteps
) -> dict[str, int]:
    """Label a chunk and publish it."""
    step = partial(steps.annotator.annotate_chunk, chunk=chunk)
    counts = runner.run("annotate", step, project_id)
    _publish_chunk(project_id, chunk, runner, publisher=steps.publisher)
    return counts


def _publish_chunk(
    project_id: ProjectId,
    chunk: Chunk,
    runner: StepRunner,
    *,
    publisher: Publisher,
    is_draft: bool = False,
) -> dict[str, int]:
    """Publish what a chunk's tasks have of the present release, or of the draft.

    The counts are those of the last import: one that finds nothing more has no duration.
    """
    step = partial(publisher.publish_chunk, chunk=chunk, is_draft=is_draft)
    name = "draft" if is_draft else "publish"
    counts = runner.run(name, step, project_id)
    while not counts["is_done"]:
        counts = {**counts, **runner.run(name, step, project_id)}
    return counts
