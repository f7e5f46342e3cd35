"""The worker process: finds out what is due, and runs it as durable workflows."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from backend.domain.ports import Jobs
from backend.errors import BackendError, SettingsError
from backend.jobs import DurableJobs
from backend.pipeline.prelabel import PRELABEL, prelabel
from backend.pipeline.rounds.workflow import ROUND, ROUND_NOW, run_round
from backend.services import Services
from backend.settings import Settings

_LOG = logging.getLogger(__name__)
_TICK_S = 0.5
_BEAT_S = 5.0
_CLEAN_S = 3600.0


class Dispatcher:
    """Turns requests into jobs, and looks for work that no webhook told of.

    What is due is read from the database and from Label Studio, never only from a message: a
    lost webhook, a lost request or a killed worker delays work and loses none.
    """

    def __init__(self, services: Services, jobs: Jobs) -> None:
        self._services = services
        self._jobs = jobs

    def dispatch(self) -> int:
        """Enqueue what is asked for; return how many jobs were new."""
        n_new = 0
        for project_id, kind, requested_at in self._services.stores.jobs.job_requests():
            if self._jobs.submit(project_id, kind):
                self._services.stores.jobs.drop_request(project_id, kind, requested_at)
                n_new += 1
        return n_new

    def look(self) -> None:
        """Ask for a job for each connected project that has work due."""
        for project in self._services.stores.projects.all():
            if not project.is_connected:
                continue
            kind, reason = (
                PRELABEL,
                self._services.round_steps.prelabel.synchronizer.work_due(project.id),
            )
            round_reason = self._services.round_steps.scheduler.due(project)
            if round_reason is not None:
                kind, reason = ROUND, round_reason
            if reason is not None:
                _LOG.debug("project=%s needs work: %s", project.id, reason)
                self._services.stores.jobs.request_job(project.id, kind, reason)


def run_worker(services: Services, stop: threading.Event) -> None:
    """Work until `stop` is set. Raises SettingsError when another worker has this name here."""
    settings = services.settings
    with _only_one(settings):
        round_steps = services.round_steps
        jobs = DurableJobs(
            settings.jobs_url,
            executor_id=settings.own_worker_id,
            workflows={
                PRELABEL: partial(prelabel, steps=round_steps.prelabel),
                ROUND: partial(run_round, steps=round_steps),
                ROUND_NOW: partial(run_round, steps=round_steps, is_asked=True),
            },
        )
        jobs.launch()
        _LOG.info("worker=%s started", settings.own_worker_id)
        looking = threading.Thread(
            target=_every,
            args=(settings.sync_interval_s, Dispatcher(services, jobs).look, stop),
            daemon=True,
        )
        looking.start()
        try:
            _loop(services, jobs, stop)
        finally:
            jobs.close()
            _LOG.info("worker=%s stopped", settings.own_worker_id)


def _loop(services: Services, jobs: DurableJobs, stop: threading.Event) -> None:
    dispatcher = Dispatcher(services, jobs)
    beat_at = clean_at = 0.0
    while not stop.is_set():
        try:
            if time.monotonic() >= beat_at:
                services.stores.jobs.record_heartbeat(services.settings.own_worker_id)
                beat_at = time.monotonic() + _BEAT_S
                _take_over(services, jobs)
            dispatcher.dispatch()
            if time.monotonic() >= clean_at:
                jobs.forget_finished()
                services.stores.llm_cache.forget(services.settings.llm_cache_days)
                clean_at = time.monotonic() + _CLEAN_S
        except BackendError as exc:
            _LOG.error("worker: %s", exc)
        except Exception:
            _LOG.exception("worker: unexpected failure, going on")
        stop.wait(_TICK_S)


def _take_over(services: Services, jobs: DurableJobs) -> None:
    """Go on with the work of a worker that is gone, on whatever machine it was."""
    dead = services.stores.jobs.claim_dead_worker(services.settings.own_worker_id)
    if dead is not None:
        n_workflows = jobs.take_over(dead)
        _LOG.warning("worker=%s is gone; n_workflows=%d go on here", dead, n_workflows)


def _every(interval_s: float, action: partial[None], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            action()
        except BackendError as exc:
            _LOG.error("worker: %s", exc)
        except Exception:
            _LOG.exception("worker: unexpected failure, going on")
        stop.wait(interval_s)


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold a lock that the system frees when this process ends, however it ends."""
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / f"{settings.own_worker_id}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise SettingsError(
                f"a worker named {settings.own_worker_id!r} runs here already; "
                "give this one another WORKER_ID"
            ) from exc
        yield
