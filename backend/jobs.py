"""Run durable workflows on DBOS: steps finished before a kill are not run again.

Two queues: projects, each a workflow of one worker, and chunks of their work, which all workers
take in turns.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Semaphore
from typing import cast

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions
from dbos import error as dbos_error

from backend.domain.chunks import CHUNKS_AT_ONCE, STEPS_AT_ONCE, Chunk, ChunkKind
from backend.domain.ports import ChunkWork, Step, StepRunner
from backend.domain.projects import ProjectId
from backend.errors import StoreUnavailable

_LOG = logging.getLogger(__name__)
_NAME = "freeal"
_CHUNKS = "freeal-chunks"
_MAX_PROJECTS = 64
_POLLING_INTERVAL_S = 0.5
_CHUNK_POLLING_INTERVAL_S = 0.2
_MAX_FINISHED_AGE = timedelta(days=7)
_BATCH_SIZE = 500

Workflow = Callable[[ProjectId, StepRunner], None]


class DbosSteps:
    """Checkpoint each step of the running DBOS workflow.

    Of the steps of one name at most four run at a time in a process: many projects can be under
    way, and none waits behind another one's training with anything but its own training.
    """

    def __init__(self, chunks: Mapping[str, Callable[..., dict[str, int]]]) -> None:
        self._chunks = chunks
        self._turns: dict[str, Semaphore] = defaultdict(lambda: Semaphore(STEPS_AT_ONCE))

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run one step to its end, or return what it returned before a restart."""

        def in_turn(project_id: ProjectId) -> dict[str, int]:
            with self._turns[name]:
                return step(project_id)

        return DBOS.run_step({"name": name}, in_turn, project_id)

    def start(
        self, kind: ChunkKind, project_id: ProjectId, chunk: Chunk
    ) -> Callable[[], dict[str, int]]:
        """Queue a chunk of work for any worker; return what waits for its counts."""
        with SetEnqueueOptions(priority=1 + chunk.turn):
            handle = DBOS.enqueue_workflow(
                _CHUNKS, self._chunks[kind], project_id, chunk.after, chunk.through
            )
        return partial(handle.get_result, polling_interval_sec=_POLLING_INTERVAL_S)


class DurableJobs:
    """Enqueue and run workflows in this process; one per process, `launch` first.

    The application version is fixed on purpose: DBOS recovers only workflows of its own version,
    and every step finds its work in the database, so an upgraded worker can resume it.
    """

    def __init__(
        self,
        url: str,
        *,
        executor_id: str,
        workflows: Mapping[str, Workflow],
        chunks: Mapping[str, ChunkWork],
    ) -> None:
        config: DBOSConfig = {
            "name": _NAME,
            "system_database_url": url,
            "application_version": _NAME,
            "executor_id": executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "console_log_level": "WARNING",
        }
        DBOS(config=config)
        log = logging.getLogger("dbos")
        log.handlers.clear()  # its lines are written as all others are
        log.propagate = True
        registered: dict[str, Callable[..., dict[str, int]]] = {}
        steps = DbosSteps(registered)
        registered |= {kind: _register_chunk(kind, body, steps) for kind, body in chunks.items()}
        self._workflows = {kind: _register(kind, body, steps) for kind, body in workflows.items()}

    def launch(self) -> None:
        """Create DBOS's tables if need be, resume interrupted workflows and start the queue.

        Raises StoreUnavailable: whatever DBOS runs into here, its database is the reason.
        """
        log = logging.getLogger("dbos")
        level = log.level
        log.setLevel(logging.CRITICAL)  # it would write the whole traceback of what is raised here
        try:
            DBOS.launch()
            for name, n_at_once, interval_s in (
                (_NAME, _MAX_PROJECTS, _POLLING_INTERVAL_S),
                (_CHUNKS, CHUNKS_AT_ONCE, _CHUNK_POLLING_INTERVAL_S),
            ):
                DBOS.register_queue(
                    name,
                    worker_concurrency=n_at_once,
                    polling_interval_sec=interval_s,
                    on_conflict="always_update",
                )
        except Exception as exc:
            DBOS.destroy()
            reason = str(getattr(exc, "orig", None) or type(exc).__name__).splitlines()[0]
            raise StoreUnavailable(
                f"the database of jobs failed: {reason}; check that it is writable and has space "
                "left"
            ) from exc
        finally:
            log.setLevel(level)

    def submit(self, project_id: ProjectId, kind: str) -> bool:
        """Enqueue a job; False while any job of the project is queued or running.

        One project has one workflow at a time, several projects run side by side.
        """
        try:
            with SetEnqueueOptions(deduplication_id=project_id):
                DBOS.enqueue_workflow(_NAME, self._workflows[kind], project_id)
        except dbos_error.DBOSQueueDeduplicatedError:
            return False
        return True

    def resume(self, executor_id: str) -> int:
        """Resume the workflows that another worker left; return how many.

        They keep their place in the queue and their finished steps. DBOS offers this at its own
        start only: its recovery is called for another name here.
        """
        return len(DBOS._recover_pending_workflows([executor_id]))

    def delete_finished(self) -> int:
        """Delete the records of workflows that finished over a week ago; return how many."""
        before = (datetime.now(UTC) - _MAX_FINISHED_AGE).isoformat()
        ended = ["SUCCESS", "ERROR", "CANCELLED"]
        n_deleted = 0
        while old := DBOS.list_workflows(status=ended, completed_before=before, limit=_BATCH_SIZE):
            DBOS.delete_workflows([status.workflow_id for status in old])
            n_deleted += len(old)
        return n_deleted

    def close(self, *, wait_s: int = 0) -> None:
        """Stop, waiting `wait_s` seconds for running workflows; the rest is resumed later."""
        DBOS.destroy(workflow_completion_timeout_sec=wait_s)


def _register(kind: str, body: Workflow, steps: DbosSteps) -> Callable[[str], None]:
    @DBOS.workflow(name=kind)
    def run(project_id: str) -> None:
        _LOG.info("project=%s job=%s started", project_id, kind)
        body(ProjectId(project_id), steps)
        _LOG.info("project=%s job=%s finished", project_id, kind)

    return cast(Callable[[str], None], run)


def _register_chunk(
    kind: str, body: ChunkWork, steps: DbosSteps
) -> Callable[[str, int, int], dict[str, int]]:
    """Register a chunk's workflow: one that fails says so to its project's, which goes on."""

    @DBOS.workflow(name=kind)
    def run(project_id: str, after: int, through: int) -> dict[str, int]:
        try:
            return body(ProjectId(project_id), Chunk(after, through), steps)
        except Exception:
            _LOG.exception("project=%s job=%s failed after task %d", project_id, kind, after)
            return {"is_stopped": 1}

    return cast(Callable[[str, int, int], dict[str, int]], run)
