"""The durable workflow of a FreeAL round: train, select, relabel, train, aggregate, release."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.pipeline.prelabel import PrelabelSteps, prelabel, publish
from backend.pipeline.rounds.promote import PromoteStep
from backend.pipeline.rounds.relabel import RelabelStep
from backend.pipeline.rounds.scheduler import RoundScheduler
from backend.pipeline.rounds.train import TrainStep


@dataclass(frozen=True, slots=True)
class RoundSteps:
    """The use cases that the workflow's steps call."""

    prelabel: PrelabelSteps
    scheduler: RoundScheduler
    train: TrainStep
    relabel: RelabelStep
    promote: PromoteStep


def run_round(
    project_id: ProjectId, runner: StepRunner, steps: RoundSteps, *, is_asked: bool = False
) -> None:
    """Label what has no label yet, then relabel and train until labels are stable, and release.

    A finished step leaves a file, or a row in the database, by which it is known: run again, it
    does nothing. A round that cannot go on now (the LLM is down) stays open and is taken up again.
    People's answers are listed in full first: a round learns from them, and a webhook that told of
    a changed one may be lost.
    """
    prelabel(project_id, runner, steps.prelabel, is_thorough=True)
    begin = partial(steps.scheduler.begin, is_asked=is_asked)
    if runner.run("begin", begin, project_id).get("is_stopped"):
        return
    cycle = 0
    is_stable = False
    if not _train(project_id, runner, steps, cycle):
        return
    while not is_stable:
        cycle += 1
        if not _relabel(project_id, runner, steps, cycle):
            return
        if not _train(project_id, runner, steps, cycle):
            return
        counts = runner.run("fuse", partial(steps.promote.aggregate, cycle=cycle), project_id)
        if counts.get("is_stopped"):
            return
        is_stable = bool(counts["is_stable"])
    runner.run("release", partial(steps.promote.release, cycle=cycle), project_id)
    publish(project_id, runner, steps.prelabel)


def _train(project_id: ProjectId, runner: StepRunner, steps: RoundSteps, cycle: int) -> bool:
    counts = runner.run("train", partial(steps.train.train, cycle=cycle), project_id)
    return not counts.get("is_stopped")


def _relabel(project_id: ProjectId, runner: StepRunner, steps: RoundSteps, cycle: int) -> bool:
    """Select demonstrations and ask the LLM again, chunk by chunk; False: it cannot go on now."""
    selected = runner.run("select", partial(steps.relabel.select, cycle=cycle), project_id)
    if selected.get("is_stopped"):
        return False
    while True:
        counts = runner.run("refine", partial(steps.relabel.relabel, cycle=cycle), project_id)
        if counts.get("is_stopped") or counts["is_done"]:
            return not counts.get("is_stopped")
