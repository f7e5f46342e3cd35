"""The durable workflow of a FreeAL round: question by question, then one release of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.pipeline.prelabel import PrelabelSteps, prelabel, publish
from backend.pipeline.rounds.cleanup import RoundCleaner
from backend.pipeline.rounds.context import Turn
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
    cleaner: RoundCleaner


def run_round(
    project_id: ProjectId, runner: StepRunner, steps: RoundSteps, *, is_asked: bool = False
) -> None:
    """Label what has no label yet, then learn each question until its labels are stable; release.

    A finished step leaves a file, or a row in the database, by which it is known: run again, it
    does nothing. A round that cannot go on now (the LLM is down) stays open and is taken up again.
    People's answers are listed in full first: a round learns from them, and a webhook that told of
    a changed one may be lost.
    """
    prelabel(project_id, runner, steps.prelabel, is_thorough=True)
    begun = runner.run("begin", partial(steps.scheduler.begin, is_asked=is_asked), project_id)
    if begun.get("is_stopped"):
        return
    _learn_all(project_id, runner, steps, n_questions=begun.get("n_questions", 1))
    runner.run("clean", steps.cleaner.clean, project_id)


def _learn_all(
    project_id: ProjectId, runner: StepRunner, steps: RoundSteps, *, n_questions: int
) -> None:
    """Learn each question, then release; stop where a step says that the round cannot go on."""
    for question in range(n_questions):
        if _learn(project_id, runner, steps, question).get("is_stopped"):
            return
    runner.run("release", steps.promote.release, project_id)
    publish(project_id, runner, steps.prelabel)


def _learn(
    project_id: ProjectId, runner: StepRunner, steps: RoundSteps, question: int
) -> dict[str, int]:
    """Make a question's labels, cycle by cycle, until they are stable; return the last counts.

    Demonstrations are selected and the LLM is asked again, chunk by chunk, before each training but
    the first. `is_stopped`: the round cannot go on now; `is_given_up`: this question cannot.
    """
    turn = Turn(question, 0)
    counts = runner.run("train", partial(steps.train.train, turn=turn), project_id)
    while not _is_over(counts):
        turn = Turn(question, turn.cycle + 1)
        counts = runner.run("select", partial(steps.relabel.select, turn=turn), project_id)
        relabel = partial(steps.relabel.relabel, turn=turn)
        while not _is_over(counts) and not counts.get("is_done"):
            counts = runner.run("refine", relabel, project_id)
        if not _is_over(counts):
            counts = runner.run("train", partial(steps.train.train, turn=turn), project_id)
        if not _is_over(counts):
            counts = runner.run("fuse", partial(steps.promote.aggregate, turn=turn), project_id)
    return counts


def _is_over(counts: dict[str, int]) -> bool:
    return any(counts.get(name) for name in ("is_stopped", "is_given_up", "is_stable"))
