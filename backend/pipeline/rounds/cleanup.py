"""Delete the files of rounds that have ended, but for what stored releases are made of."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backend.domain.projects import ProjectId
from backend.domain.rounds import RoundState
from backend.pipeline.release import LABELS_FROM, LEARNED, MODEL_FROM
from backend.pipeline.rounds.context import FINAL, MODEL, RoundContext
from backend.store import Stores

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Needed:
    """The rounds whose labels, and the rounds and cycles whose students, releases are made of."""

    labels: set[int]
    models: set[tuple[int, int]]


@dataclass(frozen=True)
class RoundCleaner:
    """Keeps students and labels of the releases that a rollback can ask for."""

    context: RoundContext
    stores: Stores

    def clean(self, project_id: ProjectId, *, is_thorough: bool = False) -> dict[str, int]:
        """Delete checkpoints and students of the project's ended rounds; a step.

        Of a release the student labels later tasks, and the next round compares its labels with the
        release's. All other arrays are for people who look at a round, and go if `is_thorough`.
        """
        needed = self._needed(project_id)
        n_deleted = 0
        for made in self.stores.rounds.history(project_id):
            if made.state is not RoundState.RUNNING:
                folder = self.context.folder / project_id / str(made.number)
                unneeded = [*_unneeded(folder, made.number, needed)]
                unneeded += _unneeded_arrays(folder, made.number, needed) if is_thorough else ()
                for path in unneeded:
                    _delete(path)
                    n_deleted += 1
        if n_deleted:
            _LOG.info("project=%s n_deleted=%d files of rounds", project_id, n_deleted)
        return {"n_deleted": n_deleted}

    def _needed(self, project_id: ProjectId) -> _Needed:
        releases = self.stores.releases
        sources = [
            source
            for version in self.stores.projects.versions(project_id)
            for source in releases.provenance(project_id, version).get(LEARNED, {}).values()
        ]
        return _Needed(
            {int(source[LABELS_FROM]) for source in sources if LABELS_FROM in source},
            {
                (int(source[MODEL_FROM][0]), int(source[MODEL_FROM][1]))
                for source in sources
                if MODEL_FROM in source
            },
        )


def _unneeded(folder: Path, number: int, needed: _Needed) -> Iterator[Path]:
    """Yield the checkpoints and students of a round that can go."""
    yield from folder.rglob("checkpoints")
    for path in folder.rglob(f"{MODEL}-*"):
        cycle = path.name.rpartition("-")[2]
        if not cycle.isdecimal() or (number, int(cycle)) not in needed.models:
            yield path


def _unneeded_arrays(folder: Path, number: int, needed: _Needed) -> Iterator[Path]:
    """Yield the arrays of a round that can go."""
    for path in folder.rglob("*.npz"):
        if path.stem != FINAL or number not in needed.labels:
            yield path


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
