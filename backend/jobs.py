"""Run durable workflows on DBOS: steps finished before a kill are not run again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions
from dbos import error as dbos_error

from backend.domain.ports import Step, StepRunner
from backend.domain.projects import ProjectId
from backend.errors import StoreUnavailable

_LOG = logging.getLogger(__name__)
_NAME = "freeal"
_N_PARALLEL = 4
_POLLING_INTERVAL_S = 0.5
_MAX_FINISHED_AGE = timedelta(days=7)
_BATCH_SIZE = 500

Workflow = Callable[[ProjectId, StepRunner], None]


class DbosSteps:
    """Checkpoint each step of the running DBOS workflow."""

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run one step to its end, or return what it returned before a restart."""
        return DBOS.run_step({"name": name}, step, project_id)


class DurableJobs:
    """Enqueue and run workflows in this process; one per process, `launch` first.

    The application version is fixed on purpose: DBOS recovers only workflows of its own version,
    and every step finds its work in the database, so an upgraded worker can resume it.
    """

    def __init__(self, url: str, *, executor_id: str, workflows: Mapping[str, Workflow]) -> None:
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
        self._workflows = {kind: _register(kind, body) for kind, body in workflows.items()}

    def launch(self) -> None:
        """Create DBOS's tables if need be, resume interrupted workflows and start the queue.

        Raises StoreUnavailable: whatever DBOS runs into here, its database is the reason.
        """
        log = logging.getLogger("dbos")
        level = log.level
        log.setLevel(logging.CRITICAL)  # it would write the whole traceback of what is raised here
        try:
            DBOS.launch()
            DBOS.register_queue(
                _NAME, worker_concurrency=_N_PARALLEL, polling_interval_sec=_POLLING_INTERVAL_S
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


def _register(kind: str, body: Workflow) -> Callable[[str], None]:
    @DBOS.workflow(name=kind)
    def run(project_id: str) -> None:
        _LOG.info("project=%s job=%s started", project_id, kind)
        body(ProjectId(project_id), DbosSteps())
        _LOG.info("project=%s job=%s finished", project_id, kind)

    return cast(Callable[[str], None], run)
