"""The durable workflow that gets every unlabelled task its prediction, and the queue its order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.pipeline.annotation import PreAnnotator
from backend.pipeline.ordering import Orderer
from backend.pipeline.publish import Publisher
from backend.pipeline.sync import Synchronizer

PRELABEL = "prelabel"


@dataclass(frozen=True, slots=True)
class PrelabelSteps:
    """Who does the steps."""

    synchronizer: Synchronizer
    annotator: PreAnnotator
    publisher: Publisher
    orderer: Orderer


def prelabel(
    project_id: ProjectId,
    runner: StepRunner,
    steps: PrelabelSteps,
    *,
    is_thorough: bool = False,
) -> None:
    """Sync, then label and publish chunk by chunk until nothing more can be done now; then order.

    Each step is safe to repeat and finds its own work in the database, so a kill costs at most
    the chunk under way. What could not be done (a server is down) is left to the next run.
    `is_thorough`: the sync finds changed answers too, which counts do not tell, and what the LLM
    left unanswered is asked again however short ago that was.
    """
    sync = partial(steps.synchronizer.sync, is_thorough=is_thorough)
    reopen = partial(steps.annotator.reopen, is_thorough=is_thorough)
    runner.run("sync", sync, project_id)
    runner.run("study", steps.annotator.fit_sample, project_id)
    runner.run("reopen", reopen, project_id)
    is_labelled = False
    while not is_labelled:
        labelled = runner.run("annotate", steps.annotator.annotate_chunk, project_id)
        runner.run("publish", steps.publisher.publish_chunk, project_id)
        runner.run("serve", steps.publisher.serve, project_id)
        is_labelled = bool(labelled["is_done"])
    publish(project_id, runner, steps)
    ordered = runner.run("order", steps.orderer.order, project_id)
    if ordered["is_ordered"]:
        publish(project_id, runner, steps)


def publish(project_id: ProjectId, runner: StepRunner, steps: PrelabelSteps) -> None:
    """Publish all that waits, a draft after the present release, and serve what is whole."""
    is_published = is_drafted = False
    while not (is_published and is_drafted):
        published = runner.run("publish", steps.publisher.publish_chunk, project_id)
        drafted = runner.run("draft", steps.publisher.publish_draft, project_id)
        runner.run("serve", steps.publisher.serve, project_id)
        is_published = bool(published["is_done"])
        is_drafted = bool(drafted["is_done"]) and not drafted.get("is_promoted")
