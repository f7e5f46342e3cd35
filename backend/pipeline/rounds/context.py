"""Shared by all steps of a round: its plan, its files, and how a failing step ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.projects import Project, ProjectId
from backend.domain.rounds import Round, RoundRecipeName, RoundState
from backend.domain.student import Student
from backend.errors import BackendError, LanguageModelError, StoreUnavailable, TrainingCancelled
from backend.files import replacing_file
from backend.pipeline.rounds.recipes import RoundRecipe
from backend.store import Stores

_LOG = logging.getLogger(__name__)
ROUNDS = "round"
"""Source of problems with a round."""
STOPPED = {"is_stopped": 1}

Arrays = dict[str, NDArray[Any]]
StudentFactory = Callable[[RoundRecipeName], Student]


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """How rounds are made.

    `max_cycles` of relabeling and training; `n_shots` in-context examples per prompt. `llm_share`
    in (0, 1] of the pool is asked again in each cycle; None: as much as the measured rate answers
    in an hour. `chunk` texts are asked in one step.
    """

    recipe: RoundRecipeName = "default"
    max_cycles: int = 3
    n_shots: int = 8
    llm_share: float | None = None
    chunk: int = 256


@dataclass(frozen=True, slots=True)
class RoundArtifacts:
    """The files of a round. A file that is there is finished, so it marks its step as done."""

    folder: Path

    def model(self, cycle: int) -> Path:
        """Return the folder of the student that a cycle ended with."""
        return self.folder / f"model-{cycle}"

    def read(self, name: str) -> Arrays | None:
        """Return the arrays of a file, None when it is not there."""
        if not self.has(name):
            return None
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.folder / f"{name}.npz").exists()

    def write(self, name: str, **arrays: NDArray[Any]) -> None:
        """Write arrays under a temporary name, then under their own; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.npz"
        with replacing_file(path, fsync=True) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ActiveRound:
    """A round that runs, its project, its files and its recipe."""

    round: Round
    project: Project
    files: RoundArtifacts
    recipe: RoundRecipe

    def rng(self, cycle: int) -> np.random.Generator:
        """Return a generator that is the same whenever the step is run again."""
        return np.random.default_rng([self.round.number, cycle, self.project.platform_id])


@dataclass(frozen=True)
class RoundContext:
    """Finds the open round of a project and keeps its state in the database."""

    stores: Stores
    folder: Path
    plan: RoundPlan
    recipes: Mapping[RoundRecipeName, RoundRecipe]

    def files(self, project_id: ProjectId, number: int) -> RoundArtifacts:
        """Return where a round's files are."""
        return RoundArtifacts(self.folder / project_id / str(number))

    def run(
        self, project_id: ProjectId, work: Callable[[ActiveRound], dict[str, int]]
    ) -> dict[str, int]:
        """Do a step's work for the open round; `is_stopped`: there is nothing more to do now.

        Failures that may pass by themselves (the LLM is down, the disk is full) leave the round
        open: the worker looks for open rounds and goes on. Other failures of ours end it.
        """
        active = self.open(project_id)
        if active is None:
            return dict(STOPPED)
        jobs, number = self.stores.jobs, active.round.number
        try:
            counts = work(active)
        except StoreUnavailable:
            raise
        except (LanguageModelError, OSError) as exc:
            jobs.note_problem(project_id, ROUNDS, f"the round waits: {exc}")
            _LOG.warning("project=%s round=%d waits: %s", project_id, number, exc)
        except TrainingCancelled:
            self.stores.rounds.finish(active.round, RoundState.CANCELLED)
        except BackendError as exc:
            self.stores.rounds.finish(active.round, RoundState.FAILED, error=str(exc))
            jobs.note_problem(project_id, ROUNDS, str(exc))
            _LOG.error("project=%s round=%d failed: %s", project_id, number, exc)
        else:
            jobs.clear_problem(project_id, ROUNDS)
            return counts
        return dict(STOPPED)

    def open(self, project_id: ProjectId) -> ActiveRound | None:
        """Return the round that runs, unless the project asks something else by now."""
        project = self.stores.projects.connected(project_id)
        running = self.stores.rounds.running(project_id)
        if project is None or running is None:
            return None
        if running.question_version != project.question_version:
            self.stores.rounds.finish(
                running, RoundState.CANCELLED, error="the project asks something else now"
            )
            return None
        files = self.files(project_id, running.number)
        return ActiveRound(running, project, files, self.recipes[running.recipe])

    def note(self, active: ActiveRound, step: str, **progress: Any) -> None:
        """Record where the round is; raises TrainingCancelled when it was cancelled."""
        if not self.stores.rounds.note(active.round, step=step, progress=progress):
            raise TrainingCancelled("the round was cancelled")


def student_name(recipe: RoundRecipeName) -> str:
    """Return the student's name as an annotator."""
    return f"small-model:{recipe}"
