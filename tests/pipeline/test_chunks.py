"""A project's work in chunks: planned in order, a few ahead, each once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from backend.domain.chunks import Chunk, ChunkKind
from backend.domain.ports import Step
from backend.domain.projects import ProjectId
from backend.pipeline.chunks import ChunkedWork, planned, work_in_chunks

PROJECT = ProjectId("1.1795215594")


@dataclass
class QueuedSteps:
    """Keeps queued chunks until somebody waits for them; the one after `fails_after` fails."""

    fails_after: int = -1
    queued: list[Chunk] = field(default_factory=list)
    started: list[Chunk] = field(default_factory=list)
    most_queued: list[int] = field(default_factory=list)

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        return step(project_id)

    def start(
        self, kind: ChunkKind, project_id: ProjectId, chunk: Chunk
    ) -> Callable[[], dict[str, int]]:
        self.started.append(chunk)
        self.queued.append(chunk)
        self.most_queued.append(len(self.queued))

        def wait() -> dict[str, int]:
            self.queued.remove(chunk)
            if chunk.after == self.fails_after:
                return {"is_stopped": 1}
            return {"n_tasks": chunk.through - chunk.after, "ms": 1_000}

        return wait


def plan_of(n_tasks: int, n_ahead: int = 3):
    def plan(project_id: ProjectId, *, after: int, size: int) -> dict[str, int]:
        ids = range(1, n_tasks + 1)[after : after + size]
        return {"n_tasks": len(ids), "through": ids[-1] if ids else after, "n_ahead": n_ahead}

    return plan


def work(n_tasks: int, limit: int = 4, **options) -> ChunkedWork:
    return ChunkedWork(ChunkKind.LABEL, plan_of(n_tasks), limit, **options)


def test_all_tasks_are_parted_in_the_order_of_their_ids():
    steps = QueuedSteps()
    assert work_in_chunks(PROJECT, steps, work(10))
    assert [(c.after, c.through) for c in steps.started] == [(0, 4), (4, 8), (8, 10)]
    assert steps.queued == []


def test_one_chunk_is_queued_at_first_and_one_more_with_each_that_is_done_up_to_the_limit():
    steps = QueuedSteps()
    work_in_chunks(PROJECT, steps, work(40))
    assert steps.most_queued == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]


def test_the_size_follows_what_chunks_took():
    steps = QueuedSteps()
    work_in_chunks(PROJECT, steps, work(400, limit=256))
    assert [c.through - c.after for c in steps.started] == [16, 64, 64, 256]


def test_after_a_chunk_that_fails_no_more_are_planned_and_the_queued_ones_are_waited_for():
    steps = QueuedSteps(fails_after=8)
    assert not work_in_chunks(PROJECT, steps, work(400))
    assert steps.started[-1].after <= 20
    assert steps.queued == []


def test_no_more_tasks_are_planned_than_asked_for():
    steps = QueuedSteps()
    work_in_chunks(PROJECT, steps, work(400), max_tasks=10)
    assert [(c.after, c.through) for c in steps.started] == [(0, 4), (4, 8), (8, 12)]


def test_a_project_s_first_chunks_go_before_later_ones_of_others():
    steps = QueuedSteps()
    work_in_chunks(PROJECT, steps, work(60))
    turns = [c.turn for c in steps.started]
    assert turns == sorted(turns)
    assert turns[:9] == list(range(9))
    assert set(turns[8:]) == {8}


def test_what_follows_a_chunk_is_done_after_each():
    calls = []
    work_in_chunks(PROJECT, QueuedSteps(), work(10, then=lambda: calls.append(1)))
    assert len(calls) == 3


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_more_chunks_are_queued_the_more_workers_live(stores, n_workers):
    for number in range(n_workers):
        stores.jobs.record_heartbeat(f"worker-{number}")
    assert planned(stores, [3, 7], 0) == {
        "n_tasks": 2,
        "through": 7,
        "n_ahead": 8 * max(1, n_workers),
    }
    assert planned(stores, [], 9)["through"] == 9
