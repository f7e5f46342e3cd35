"""Runners of a workflow's steps in this thread, which a test may kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from backend.domain.chunks import Chunk, ChunkKind
from backend.domain.ports import ChunkWork, Step
from backend.domain.projects import ProjectId


class KilledHere(BaseException):
    """Stands for kill -9: nothing catches it."""


class StepsHere:
    """Does chunks at once, in this thread; `House` says what they are."""

    chunks: Mapping[str, ChunkWork] = {}

    def start(
        self, kind: ChunkKind, project_id: ProjectId, chunk: Chunk
    ) -> Callable[[], dict[str, int]]:
        counts = self.chunks[kind](project_id, chunk, self)
        return lambda: counts


class PlainSteps(StepsHere):
    """Runs steps one after the other; `kill_after` ends it like kill -9."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kill_after: tuple[str, int] | None = None

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        counts = step(project_id)
        self.ran.append(name)
        if self.kill_after == (name, self.ran.count(name)):
            raise KilledHere
        return counts


class ReplayingSteps(StepsHere):
    """Runs steps as the durable runner does: what was recorded before a kill is not run again.

    `kill_after` ends it like kill -9.
    """

    def __init__(self, recorded: Sequence[tuple[str, dict[str, int]]] = ()) -> None:
        self.recorded = [*recorded]
        self.kill_after: tuple[str, int] | None = None
        self._position = 0

    def again(self) -> ReplayingSteps:
        """Return what a restarted worker runs the workflow with."""
        return ReplayingSteps(self.recorded)

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        self._position += 1
        if self._position <= len(self.recorded):
            known, counts = self.recorded[self._position - 1]
            assert known == name
            return counts
        counts = step(project_id)
        self.recorded.append((name, counts))
        if self.kill_after == (name, [known for known, _ in self.recorded].count(name)):
            raise KilledHere
        return counts
