"""What every step of a round starts from, and what becomes of a step that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import WeakLabel
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import Question, TaskSchema
from backend.domain.rounds import Round, RoundRecipe, RoundState
from backend.errors import BackendError, LanguageModelError, StoreUnavailable, TrainingCancelled
from backend.pipeline.rounds.artifacts import RoundArtifacts
from backend.store import Stores

_LOG = logging.getLogger(__name__)
ROUNDS = "round"
STOPPED = {"is_stopped": 1}
SHOTS = "+shots"
"""Ends the name of an LLM that answered with in-context examples."""
SMALL_MODEL = "small-model:"
"""Starts the small model's name as an annotator."""


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """How rounds are made. `limit` cycles of refinement and training at most.

    `llm_share` in (0, 1] of the pool is asked again in each cycle; None: as much as the measured
    rate answers in an hour. `chunk` texts are asked in one step. `max_changed`: labels are stable
    when two cycles in a row change at most this share of them.
    """

    recipe: RoundRecipe = "default"
    limit: int = 3
    n_shots: int = 8
    llm_share: float | None = None
    chunk: int = 256
    max_changed: float = 0.02


@dataclass(frozen=True, slots=True)
class ActiveRound:
    """A round that runs, its project and its files."""

    round: Round
    project: Project
    files: RoundArtifacts

    @property
    def is_paper(self) -> bool:
        """Return whether FreeAL is run as published."""
        return self.round.recipe == "paper"

    def rng(self, cycle: int) -> np.random.Generator:
        """Return a generator that is the same whenever the step is run again."""
        return np.random.default_rng([self.round.number, cycle, self.project.platform_id])

    def seed(self, cycle: int) -> int:
        """Return a training's seed."""
        return 100 * self.round.number + cycle


class RoundContext:
    """Finds the open round of a project and keeps its state in the database."""

    def __init__(self, stores: Stores, folder: Path, plan: RoundPlan) -> None:
        self._stores = stores
        self._folder = folder
        self.plan = plan

    def files(self, project_id: ProjectId, number: int) -> RoundArtifacts:
        """Return where a round's files are."""
        return RoundArtifacts(self._folder / project_id / str(number))

    def run(
        self, project_id: ProjectId, work: Callable[[ActiveRound], dict[str, int]]
    ) -> dict[str, int]:
        """Do a step's work for the open round; `is_stopped`: there is nothing more to do now.

        What may pass by itself (the LLM is down, the disk is full) leaves the round open: the
        worker looks for open rounds and goes on. Other failures of ours end it, in plain words.
        """
        found = self.open(project_id)
        if found is None:
            return dict(STOPPED)
        try:
            counts = work(found)
        except StoreUnavailable:
            raise
        except (LanguageModelError, OSError) as exc:
            self._stores.jobs.note_problem(project_id, ROUNDS, f"the round waits: {exc}")
            _LOG.warning("project=%s round=%d waits: %s", project_id, found.round.number, exc)
            return dict(STOPPED)
        except TrainingCancelled:
            self._stores.rounds.finish(found.round, RoundState.CANCELLED)
            return dict(STOPPED)
        except BackendError as exc:
            self._stores.rounds.finish(found.round, RoundState.FAILED, error=str(exc))
            self._stores.jobs.note_problem(project_id, ROUNDS, str(exc))
            _LOG.error("project=%s round=%d failed: %s", project_id, found.round.number, exc)
            return dict(STOPPED)
        self._stores.jobs.clear_problem(project_id, ROUNDS)
        return counts

    def finish(self, found: ActiveRound, state: RoundState, **outcome: Any) -> None:
        """Close a round with its `metrics`, `model_version` or `error`."""
        self._stores.rounds.finish(found.round, state, **outcome)

    def open(self, project_id: ProjectId) -> ActiveRound | None:
        """Return the round that runs, unless the project asks something else by now."""
        project = self._stores.projects.get(project_id)
        found = self._stores.rounds.running(project_id)
        if project is None or found is None or not project.is_connected:
            return None
        if found.question_version != project.question_version:
            self._stores.rounds.finish(
                found, RoundState.CANCELLED, error="the project asks something else now"
            )
            return None
        return ActiveRound(found, project, self.files(project_id, found.number))

    def note(self, found: ActiveRound, step: str, **progress: Any) -> None:
        """Record where the round is; raises TrainingCancelled when it was cancelled."""
        if not self._stores.rounds.note(found.round, step=step, progress=progress):
            raise TrainingCancelled("the round was cancelled")


def question_of(schema: TaskSchema) -> Question | None:
    """Return the question that rounds are made for: the first exclusive one with two labels."""
    fitting = (q for q in schema.questions if q.kind.is_exclusive and len(q.labels) > 1)
    return next(fitting, None)


def is_derived(annotator: str) -> bool:
    """Return whether an annotator's votes come from an earlier round."""
    return annotator.endswith(SHOTS) or annotator.startswith(SMALL_MODEL)


def as_votes(
    ids: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    question: Question,
    annotator: str,
    *,
    version: str,
) -> list[WeakLabel]:
    """Return posteriors (n, K) as votes; rows that are not finite are left out."""
    rows = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    return [
        WeakLabel(
            int(ids[row]),
            question.name,
            annotator,
            version,
            probabilities=tuple(probabilities[row].tolist()),
        )
        for row in rows
    ]
