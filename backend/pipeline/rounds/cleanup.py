"""Delete what a finished round needs no more: checkpoints, and all but a few models."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.domain.projects import Project, ProjectId
from backend.domain.rounds import Round, RoundState
from backend.pipeline.release import LEARNED, MODEL_FROM
from backend.pipeline.rounds.context import RoundContext
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_N_MODELS_KEPT = 3
_WITH_MODEL = (RoundState.RELEASED, RoundState.REFUSED)


@dataclass(frozen=True)
class RoundCleaner:
    """Keeps weights and cards of the served model and of the last three rounds that made one."""

    context: RoundContext
    stores: Stores

    def clean_all(self) -> None:
        """Clean the rounds of every project."""
        for project in self.stores.projects.all():
            self.clean(project.id)

    def clean(self, project_id: ProjectId) -> dict[str, int]:
        """Delete checkpoints and old models of all rounds that have ended; a step.

        A round's arrays stay: the next round compares its labels with theirs, and they are small.
        """
        project = self.stores.projects.get(project_id)
        if project is None:
            return {"n_deleted": 0}
        history = self.stores.rounds.history(project_id)
        kept = self._kept(project, history)
        n_deleted = 0
        for made in history:
            if made.state is not RoundState.RUNNING:
                folder = self.context.folder / project_id / str(made.number)
                n_deleted += _delete(_unneeded(folder, keeps_model=made.number in kept))
        if n_deleted:
            _LOG.info("project=%s n_deleted=%d folders of rounds", project_id, n_deleted)
        return {"n_deleted": n_deleted}

    def _kept(self, project: Project, history: Iterable[Round]) -> set[int]:
        """Return the numbers of the rounds whose model stays."""
        releases = self.stores.releases
        pending = releases.pending(project)
        served = [project, *([] if pending is None else [pending])]
        learned = [
            source
            for each in served
            for source in releases.provenance(project.id, each.model_version)
            .get(LEARNED, {})
            .values()
        ]
        recent = [made.number for made in history if made.state in _WITH_MODEL]
        return {
            *recent[-_N_MODELS_KEPT:],
            *(int(found[MODEL_FROM][0]) for found in learned if MODEL_FROM in found),
        }


def _unneeded(folder: Path, *, keeps_model: bool) -> Iterator[Path]:
    """Yield the folders of a round to delete; of a question's models the last one may stay."""
    yield from folder.rglob("checkpoints")
    by_question: dict[Path, list[Path]] = {}
    for model in folder.rglob("model-*"):
        by_question.setdefault(model.parent, []).append(model)
    for models in by_question.values():
        models.sort(key=lambda model: int(model.name.rpartition("-")[2]))
        yield from models[:-1] if keeps_model else models


def _delete(folders: Iterator[Path]) -> int:
    found = list(folders)
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return len(found)
