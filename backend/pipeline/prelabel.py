"""The durable workflow that gives every unlabeled task a prediction, and the queue its order."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import partial

from backend.domain.labels import AbstentionReason
from backend.domain.llm_usage import track_usage
from backend.domain.ports import StepRunner
from backend.domain.projects import Project, ProjectId
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.predict import LANGUAGE_MODEL, Labeler
from backend.pipeline.publish import Publisher
from backend.pipeline.release import Orderer
from backend.pipeline.status import read_llm_budget, request_release
from backend.pipeline.sync import PrelabelPlan, Synchronizer
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_FIRST_SIZE = 16
_TARGET_S = 60.0
_MAX_GROWTH = 4
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class AdaptiveBatchSize:
    """The size of the next chunk of tasks: what takes about a minute, at most `limit`.

    A chunk is saved and published as a whole, and lost as a whole by a kill: where an answer takes
    a minute, 256 of them would show nothing for hours. The first chunk is small; sizes grow at most
    fourfold at a time.
    """

    limit: int
    n: int = 0

    @property
    def size(self) -> int:
        """Return how many tasks the next chunk may have."""
        return max(1, min(self.n or _FIRST_SIZE, self.limit))

    def after(self, n_done: int, seconds: float) -> AdaptiveBatchSize:
        """Return the size that follows a chunk of `n_done` tasks that took so long."""
        fitting = int(n_done * _TARGET_S / max(seconds, 1e-6))
        return AdaptiveBatchSize(
            self.limit, max(1, min(fitting, _MAX_GROWTH * self.size, self.limit))
        )


@dataclass
class PreAnnotator:
    """Labels a project chunk by chunk, each saved in one transaction."""

    labeler: Labeler
    aggregator: Aggregator
    budget: LLMBudgetPlanner
    stores: Stores
    plan: PrelabelPlan
    _sizes: dict[ProjectId, AdaptiveBatchSize] = field(default_factory=dict, init=False)

    def fit_sample(self, project_id: ProjectId) -> dict[str, int]:
        """Fit the ensemble on a sample and plan the LLM's budget before tasks are labeled; a step.

        Once per question, and again when the pool has grown fourfold since.
        """
        project = self.stores.projects.connected(project_id)
        if project is None:
            return {"is_studied": 0}
        try:
            with track_usage(project_id, "study"):
                is_fitted = int(self.aggregator.fit_sample_if_due(project))
            return {"is_studied": is_fitted, **self.budget.plan(project)}
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self.stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {"is_studied": 0}

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

    def annotate_chunk(self, project_id: ProjectId) -> dict[str, int]:
        """Label the next chunk; a step. `is_done`: nothing more can be labeled now."""
        stores = self.stores
        project = stores.projects.connected(project_id)
        if project is None:
            return {"n_labelled": 0, "is_done": 1}
        size = self._sizes.get(project_id, AdaptiveBatchSize(self.plan.annotate_chunk))
        tasks = stores.labels.next_unlabelled(project, size.size)
        if not tasks:
            return {"n_labelled": 0, "is_done": 1}
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
            return {"n_labelled": 0, "is_done": 1}
        n_outdated = stores.labels.save(project, weak_labels, predictions, tasks=tasks)
        if n_outdated:
            request_release(stores, project, f"{n_outdated} tasks have another label now")
        self._sizes[project_id] = size.after(len(tasks), time.monotonic() - started_at)
        stores.jobs.clear_problem(project_id, LANGUAGE_MODEL)
        return {"n_labelled": len(predictions), "is_done": int(len(tasks) < size.size)}


@dataclass(frozen=True, slots=True)
class PrelabelSteps:
    """The use cases that the workflow's steps call."""

    synchronizer: Synchronizer
    annotator: PreAnnotator
    publisher: Publisher
    orderer: Orderer


def prelabel(
    project_id: ProjectId, runner: StepRunner, steps: PrelabelSteps, *, is_thorough: bool = False
) -> None:
    """Sync, label and publish chunk by chunk until nothing more can be done now, then order.

    Each step is safe to repeat and finds its own work in the database, so a kill costs at most
    the chunk under way. What could not be done (a server is down) is left to the next run.

    `is_thorough`: the sync finds changed answers too, which counts do not show, and the LLM is
    asked again about what it left unanswered however short ago.
    """
    sync = partial(steps.synchronizer.sync, is_thorough=is_thorough)
    reopen = partial(steps.annotator.reopen, is_thorough=is_thorough)
    begun = runner.run("sync", sync, project_id)
    if begun.get("is_stopped"):
        return
    runner.run("study", steps.annotator.fit_sample, project_id)
    runner.run("reopen", reopen, project_id)
    is_labeled = False
    while not is_labeled:
        counts = runner.run("annotate", steps.annotator.annotate_chunk, project_id)
        runner.run("publish", steps.publisher.publish_chunk, project_id)
        runner.run("serve", steps.publisher.serve, project_id)
        is_labeled = bool(counts["is_done"])
    publish(project_id, runner, steps)
    ordered = runner.run("order", steps.orderer.order, project_id)
    if ordered["is_ordered"]:
        publish(project_id, runner, steps)
    clear = partial(steps.synchronizer.clear_problems, started_at=begun["started_at"])
    runner.run("clear", clear, project_id)


def publish(project_id: ProjectId, runner: StepRunner, steps: PrelabelSteps) -> None:
    """Publish the present release, then a draft after it, and serve what is whole."""
    is_published = is_drafted = False
    while not (is_published and is_drafted):
        published = runner.run("publish", steps.publisher.publish_chunk, project_id)
        drafted = runner.run("draft", steps.publisher.publish_draft, project_id)
        runner.run("serve", steps.publisher.serve, project_id)
        is_published = bool(published["is_done"])
        is_drafted = bool(drafted["is_done"]) and not drafted.get("is_promoted")
