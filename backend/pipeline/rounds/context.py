"""Shared by all steps of a round: its plan, its files, and how a failing step ends."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.projects import Project, ProjectId, Task
from backend.domain.questions import Question
from backend.domain.rounds import (
    LabelsChange,
    Round,
    RoundRecipeName,
    RoundState,
    changed_models,
)
from backend.errors import BackendError, LanguageModelError, StoreUnavailable, TrainingCancelled
from backend.files import replacing_file
from backend.pipeline.pool import GuidelinesReader, Pool
from backend.pipeline.rounds.recipes import RoundRecipe
from backend.pipeline.rounds.trial import DemonstrationTrial
from backend.store import Stores

_LOG = logging.getLogger(__name__)
ROUNDS = "round"
"""Source of problems with a round."""
STOPPED, GIVEN_UP = {"is_stopped": 1}, {"is_given_up": 1}
FUSED, FINAL, MODEL = "fused", "final", "model"
"""Names of the files of a cycle's aggregated labels, and of the last ones, held out."""
_FAILURE, _TRIAL = "failure.txt", "trial"
_FIRST_FILE = "train-0.npz"
DIGESTS = "digests"
"""Of the texts that a file's labels are about, in the order of its `ids`."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """How rounds are made.

    `max_cycles` of relabeling and training; `n_shots` in-context examples per prompt. `llm_share`
    in (0, 1] of the pool is asked again in each cycle; None: as much as the measured rate answers
    in an hour. `chunk` texts are asked in one step. `labels_change`: on what served labels change.
    """

    recipe: RoundRecipeName = "default"
    max_cycles: int = 3
    n_shots: int = 8
    llm_share: float | None = None
    chunk: int = 256
    labels_change: LabelsChange = "evidence"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a step is about: a learned question, by its position, and a cycle counted from 0."""

    question: int
    cycle: int


@dataclass(frozen=True, slots=True)
class RoundArtifacts:
    """A round's files on one question. A file that is there is finished: its step is done."""

    folder: Path

    def model(self, cycle: int) -> Path:
        """Return the folder of the student that a cycle ended with."""
        return self.folder / f"{MODEL}-{cycle}"

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

    @property
    def n_cycles(self) -> int:
        """Return how many cycles have ended in aggregated labels."""
        cycle = 0
        while self.has(f"{FUSED}-{cycle + 1}"):
            cycle += 1
        return cycle

    def trial(self, cycle: int) -> DemonstrationTrial | None:
        """Return why a cycle's demonstrations were left out, None where they were not."""
        found = self.read(f"{_TRIAL}-{cycle}")
        if found is None:
            return None
        return DemonstrationTrial(**{name: values.item() for name, values in found.items()})

    def write_trial(self, cycle: int, trial: DemonstrationTrial) -> None:
        """Keep why a cycle's demonstrations are left out; raises OSError."""
        values = {name: np.array(value) for name, value in asdict(trial).items()}
        self.write(f"{_TRIAL}-{cycle}", **values)

    @property
    def failure(self) -> str | None:
        """Return why the question was given up in this round, None where it was not."""
        path = self.folder / _FAILURE
        return path.read_text(encoding="utf-8") if path.exists() else None

    def give_up(self, reason: str) -> None:
        """Leave the question as it is in this round; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing_file(self.folder / _FAILURE, fsync=True) as part:
            part.write_text(reason, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ActiveRound:
    """A round that runs, at one of the project's questions, with its files and its recipe."""

    round: Round
    project: Project
    question: Question
    files: RoundArtifacts
    recipe: RoundRecipe

    def rng(self, cycle: int) -> np.random.Generator:
        """Return a generator that is the same whenever the step is run again."""
        return np.random.default_rng([self.round.number, cycle, self.project.platform_id])


Work = Callable[[ActiveRound], dict[str, int]]


@dataclass(frozen=True)
class RoundContext:
    """Finds the open round of a project and keeps its state in the database.

    `models` returns the names of the models that the settings name, by setting.
    """

    stores: Stores
    guidelines: GuidelinesReader
    folder: Path
    plan: RoundPlan
    recipes: Mapping[RoundRecipeName, RoundRecipe]
    models: Callable[[], Mapping[str, str]] = dict

    def run(self, project_id: ProjectId, at: int, work: Work) -> dict[str, int]:
        """Do a step's work for a question of the open round.

        `is_stopped`: there is nothing more to do now. Failures that may pass by themselves (the LLM
        is down, the disk is full) leave the round open: the worker looks for open rounds and goes
        on. `is_given_up`: this question cannot be learned; the others go on.
        """
        turns = self.open(project_id)
        if at >= len(turns):
            return dict(STOPPED)
        active = turns[at]
        if active.files.failure is not None:
            return dict(GIVEN_UP)
        try:
            return self._guarded(active.round, lambda: work(active))
        except StoreUnavailable:
            raise
        except BackendError as exc:
            name, number = active.question.name, active.round.number
            _LOG.error("project=%s round=%d question=%s: %s", project_id, number, name, exc)
            give_up = partial(_given_up, active, str(exc))
            return self._guarded(active.round, give_up)

    def run_all(
        self, project_id: ProjectId, work: Callable[[Sequence[ActiveRound]], dict[str, int]]
    ) -> dict[str, int]:
        """Do a step's work for all questions of the open round together; failures as in `run`."""
        turns = self.open(project_id)
        if not turns:
            return dict(STOPPED)
        try:
            return self._guarded(turns[0].round, lambda: work(turns))
        except StoreUnavailable:
            raise
        except BackendError as exc:
            self.fail(turns[0].round, str(exc))
            return dict(STOPPED)

    def _guarded(self, running: Round, work: Callable[[], dict[str, int]]) -> dict[str, int]:
        """Do work that waits for what may pass by itself, and ends with a cancelled round."""
        jobs, project_id = self.stores.jobs, running.project_id
        try:
            counts = work()
        except (LanguageModelError, OSError) as exc:
            jobs.note_problem(project_id, ROUNDS, f"the round waits: {exc}")
            _LOG.warning("project=%s round=%d waits: %s", project_id, running.number, exc)
        except TrainingCancelled:
            self.stores.rounds.finish(running, RoundState.CANCELLED)
        else:
            jobs.clear_problem(project_id, ROUNDS)
            return counts
        return dict(STOPPED)

    def fail(self, running: Round, error: str) -> None:
        """End a round of which nothing comes."""
        self.stores.rounds.finish(running, RoundState.FAILED, error=error)
        self.stores.jobs.note_problem(running.project_id, ROUNDS, error)
        _LOG.error("project=%s round=%d failed: %s", running.project_id, running.number, error)

    def open(self, project_id: ProjectId) -> tuple[ActiveRound, ...]:
        """Return the running round at each learned question.

        None if other questions are asked, or other models are set: the next job opens another one.
        """
        project = self.stores.projects.connected(project_id)
        running = self.stores.rounds.running(project_id)
        if project is None or running is None:
            return ()
        if running.question_version != project.question_version:
            self.stores.rounds.finish(
                running, RoundState.CANCELLED, error="the project asks something else now"
            )
            return ()
        if running.models and (changed := changed_models(running.models, self.models())):
            _LOG.warning("project=%s round=%d stops: %s", project_id, running.number, changed)
            return ()
        try:
            learned = self.guidelines.read(project).schema.learned
        except StoreUnavailable:
            raise
        except BackendError as exc:
            self.fail(running, str(exc))
            return ()
        recipe = self.recipes[running.recipe]
        folder = self.folder / project_id / str(running.number)
        return tuple(
            ActiveRound(running, project, q, artifacts(folder, q), recipe) for q in learned
        )

    def note(self, active: ActiveRound, step: str, **progress: Any) -> None:
        """Record where the round is; raises TrainingCancelled when it was cancelled."""
        progress = {"question": active.question.name, **progress}
        if not self.stores.rounds.note(active.round, step=step, progress=progress):
            raise TrainingCancelled("the round was cancelled")


def artifacts(folder: Path, question: Question) -> RoundArtifacts:
    """Return where the files on a question are in a round's folder.

    A question may have any name: its letters are followed by a digest of the whole. Files of a
    version that learned one question of a project are moved there: it was the first one with
    exactly one right label, which asks for its files first.
    """
    digest = hashlib.sha256(question.name.encode()).hexdigest()[:8]
    letters = re.sub(r"[^A-Za-z0-9_-]+", "_", question.name)[:40]
    own = folder / f"{letters}-{digest}"
    if question.kind.is_exclusive and (folder / _FIRST_FILE).exists():
        _adopt(folder, own)
    return RoundArtifacts(own)


def _adopt(folder: Path, own: Path) -> None:
    """Move a round's files; demonstrations, which are stored otherwise now, are selected again."""
    own.mkdir(exist_ok=True)
    for path in folder.glob("shots-*.npz"):
        path.unlink(missing_ok=True)
    found = [path for path in folder.iterdir() if path != own]
    for path in sorted(found, key=lambda path: path.name == _FIRST_FILE):  # that one last
        path.rename(own / path.name)


def text_digests(ids: NDArray[np.int64], tasks: Sequence[Task]) -> NDArray[np.str_]:
    """Return the digest of each id's task; "" for one that is not among them."""
    digests = {task.id: task.digest() for task in tasks}
    return np.array([digests.get(int(i), "") for i in ids], dtype=np.str_)


def has_other_text(read: Arrays, pool: Pool) -> NDArray[np.bool_]:
    """Return for which of a pool's examples (n,) a file's labels are about another text.

    Label Studio lets people edit a text during a round. Files of earlier versions do not tell.
    """
    digests = read.get(DIGESTS, np.empty(0, dtype=np.str_)).tolist()
    known = dict(zip(read["ids"].tolist(), digests, strict=False))
    is_other = [known.get(task.id, "") not in ("", task.digest()) for task in pool.tasks]
    return np.array(is_other, dtype=np.bool_)


def student_name(recipe: RoundRecipeName) -> str:
    """Return the student's name as an annotator."""
    return f"small-model:{recipe}"


def _given_up(active: ActiveRound, reason: str) -> dict[str, int]:
    active.files.give_up(reason)
    return dict(GIVEN_UP)
