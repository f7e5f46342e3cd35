"""Part a project's work into chunks that all workers take from one queue, each chunk once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from backend.domain.chunks import CHUNKS_AT_ONCE, Chunk, ChunkKind
from backend.domain.ports import StepRunner
from backend.domain.projects import ProjectId
from backend.store import Stores

_FIRST_SIZE = 16
_TARGET_S = 20.0
_MAX_GROWTH = 4
_N_AHEAD = 2 * CHUNKS_AT_ONCE
_N_EARLY = 8


class PlanChunk(Protocol):
    """Names the next chunk of a project's work; a step. See `planned` for what it returns."""

    def __call__(self, project_id: ProjectId, *, after: int, size: int) -> dict[str, int]:
        """Plan a chunk of at most `size` tasks above `after`; `is_stopped`: none can be now."""
        ...


@dataclass(frozen=True, slots=True)
class AdaptiveBatchSize:
    """The size of the next chunk of tasks: what takes about 20 s, at most `limit`.

    A chunk is saved and published as a whole, and lost as a whole by a kill: where an answer takes
    a minute, 256 of them would show nothing for hours. Projects take turns chunk by chunk, so that
    a chunk is also what another project waits for. The first one is small; sizes grow at most
    fourfold at a time.
    """

    limit: int
    n: int = 0

    @property
    def size(self) -> int:
        """Return how many tasks the next chunk may have."""
        return max(1, min(self.n or _FIRST_SIZE, self.limit))

    def after(self, n_done: int, seconds: float) -> AdaptiveBatchSize:
        """Return the size that follows a chunk of `n_done` tasks that took so long.

        A chunk that was done already, before a kill or by /predict, says nothing.
        """
        if not n_done:
            return self
        fitting = int(n_done * _TARGET_S / max(seconds, 1e-6))
        return AdaptiveBatchSize(
            self.limit, max(1, min(fitting, _MAX_GROWTH * self.size, self.limit))
        )


@dataclass(frozen=True, slots=True)
class ChunkedWork:
    """Work that workers share: how chunks are planned, at most `limit` tasks each.

    `then` is called after each chunk, in the order in which they were planned.
    """

    kind: ChunkKind
    plan: PlanChunk
    limit: int
    then: Callable[[], object] = lambda: None


def planned(stores: Stores, task_ids: Sequence[int], after: int) -> dict[str, int]:
    """Return a planned chunk's counts.

    `n_tasks` (0: nothing is left), `through` (the last task's id) and `n_ahead` (how many chunks
    may be queued, so that no worker waits and other projects get their turns).
    """
    n_workers = max(1, len(stores.jobs.live_workers()))
    through = task_ids[-1] if task_ids else after
    return {"n_tasks": len(task_ids), "through": through, "n_ahead": _N_AHEAD * n_workers}


def work_in_chunks(
    project_id: ProjectId, runner: StepRunner, work: ChunkedWork, *, max_tasks: int | None = None
) -> bool:
    """Have the workers do a project's work until nothing is left, or `max_tasks` are planned.

    Chunks are planned in the order of the tasks' ids, a few ahead of the workers: one at first,
    and one more with each that is done. After one that could not be done no more are planned.
    A project's first chunks go before other projects' later ones, which take turns.

    Returns:
        Whether nothing stopped the work: planning, or a chunk that could not be done.
    """
    waiting: deque[Callable[[], dict[str, int]]] = deque()
    size, after, is_planned = AdaptiveBatchSize(work.limit), 0, False
    n_started = n_done = n_tasks = 0
    n_ahead, is_stopped = 1, False
    while waiting or not is_planned:
        while not is_planned and len(waiting) < min(1 + n_done, n_ahead):
            step = partial(work.plan, after=after, size=size.size)
            counts = runner.run("plan", step, project_id)
            is_planned = not counts["n_tasks"]
            is_stopped = is_stopped or bool(counts.get("is_stopped"))
            if not is_planned:
                chunk = Chunk(after, counts["through"], min(n_started, _N_EARLY))
                waiting.append(runner.start(work.kind, project_id, chunk))
                after, n_ahead = chunk.through, counts["n_ahead"]
                n_started, n_tasks = n_started + 1, n_tasks + counts["n_tasks"]
                is_planned = max_tasks is not None and n_tasks >= max_tasks
        if waiting:
            counts = waiting.popleft()()
            n_done += 1
            is_stopped = is_stopped or bool(counts.get("is_stopped"))
            is_planned = is_planned or is_stopped
            if "ms" in counts:
                size = size.after(counts["n_tasks"], counts["ms"] / 1000)
            work.then()
    return not is_stopped
