"""Run a round's steps in this process, timed, with every student kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from backend.domain.chunks import Chunk, ChunkKind
from backend.domain.ports import ChunkWork, Step
from backend.domain.projects import ProjectId
from backend.pipeline.rounds.cleanup import RoundCleaner


class KeepsStudents(RoundCleaner):
    """Cleans nothing: a student that is not served is tried on test texts all the same."""

    def __init__(self) -> None:
        """Need no store."""

    def clean(self, project_id: ProjectId, *, is_thorough: bool = False) -> dict[str, int]:
        """Leave every file."""
        return {"n_deleted": 0}


class TimedSteps:
    """Runs steps in this process and sums their seconds by name."""

    def __init__(self, chunks: Mapping[str, ChunkWork]) -> None:
        self.seconds: dict[str, float] = {}
        self._chunks = chunks

    def start(
        self, kind: ChunkKind, project_id: ProjectId, chunk: Chunk
    ) -> Callable[[], dict[str, int]]:
        """Do a chunk at once."""
        counts = self._chunks[kind](project_id, chunk, self)
        return lambda: counts

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run a step."""
        started = time.perf_counter()
        counts = step(project_id)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return counts
