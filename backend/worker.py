"""Run the worker process: find the jobs that are due and run them as durable workflows."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from backend.domain.chunks import ChunkKind
from backend.domain.ports import Jobs
from backend.domain.projects import JobKind, Project, ProjectId
from backend.errors import BackendError, LanguageModelError, SettingsError, StoreUnavailable
from backend.factories import pretrained_source
from backend.jobs import DurableJobs
from backend.pipeline.accept import accept
from backend.pipeline.annotator_change import change_annotator, relabel_chunk
from backend.pipeline.origins import LLM_NAME, SIMILARITY_NAME
from backend.pipeline.prelabel import chunk_work, prelabel
from backend.pipeline.rounds.workflow import run_round
from backend.pipeline.status import LLM_SERVER
from backend.pipeline.tabs import keep_tabs
from backend.services import Services
from backend.settings import Settings

WORKER = "worker"
"""Source of problems with a project that a pass over all projects runs into."""

_LOG = logging.getLogger(__name__)
_DISPATCH_INTERVAL_S = 0.5
_HEARTBEAT_INTERVAL_S = 5.0
_CLEANUP_INTERVAL_S = 3600.0
_HOUSEKEEPING_INTERVAL_S = 6 * 3600.0
_DESCRIBE_WAIT_S = 10.0
_STOP_WAIT_S = 3  # a short step ends in this time, and is not repeated at the next start


class Dispatcher:
    """Enqueue requested jobs, and request those that no webhook asked for.

    What is due is read from the database and from Label Studio, never only from a message: a
    lost webhook, a lost request or a killed worker delays work and loses none.
    """

    def __init__(self, services: Services, jobs: Jobs) -> None:
        self._services = services
        self._jobs = jobs

    def dispatch(self) -> int:
        """Enqueue the requested jobs; return how many were new.

        Those of a project that may be connected again by itself wait until it is.
        """
        stores, n_new = self._services.stores, 0
        requests = stores.jobs
        for project_id, kind, requested_at in requests.job_requests():
            with self._isolated(project_id):
                project = stores.projects.get(project_id)
                if project is not None and project.is_refused:
                    continue
                if self._jobs.submit(project_id, kind):
                    requests.drop_request(project_id, kind, requested_at)
                    n_new += 1
        return n_new

    def request_due_jobs(self) -> None:
        """Request a job for each connected project that has work due."""
        for project in self._services.stores.projects.all():
            if project.is_followed:
                with self._isolated(project.id):
                    self._request_due_job(project)

    def _request_due_job(self, project: Project) -> None:
        stores, steps = self._services.stores, self._services.round_steps
        prelabel_reason = steps.prelabel.synchronizer.work_due(project.id)
        if stores.projects.connected(project.id) is None:
            return
        round_reason = steps.scheduler.due(project)
        self._services.annotator_change.note_guidelines(project)
        if self._services.annotator_change.is_due(project):
            stores.jobs.request_job(project.id, JobKind.RELABEL, "not finished")
        if self._services.tabs.is_due(project):
            stores.jobs.request_job(project.id, JobKind.TABS, "they show other tasks now")
        if self._services.acceptor.is_due(project):
            stores.jobs.request_job(project.id, JobKind.ACCEPT, "not finished")
        self._services.round_requests.repeat(project)
        self._services.certifier.refresh(project)
        if any(problem.source == WORKER for problem in stores.jobs.problems(project.id)):
            stores.jobs.clear_problem(project.id, WORKER)
        reason = round_reason or prelabel_reason
        if reason is not None:
            _LOG.debug("project=%s needs work: %s", project.id, reason)
            kind = JobKind.ROUND if round_reason else JobKind.PRELABEL
            stores.jobs.request_job(project.id, kind, reason)

    @contextmanager
    def _isolated(self, project_id: ProjectId) -> Iterator[None]:
        """Note the failure of one project, and let the others go on."""
        try:
            yield
        except StoreUnavailable:
            raise
        except Exception as exc:
            _LOG.exception("project=%s is left out of this pass", project_id)
            message = f"the worker cannot look after it ({type(exc).__name__}); see its log"
            self._services.stores.jobs.note_problem(project_id, WORKER, message)


def run_worker(services: Services, stop: threading.Event) -> None:
    """Work until `stop` is set.

    Raises:
        SettingsError: another worker of this name runs on this machine.
        EmbeddedModelError: an encoder that the settings name cannot be had.
    """
    settings = services.settings
    with _exclusive(settings):
        for model in {settings.encoder_model, settings.student_model}:
            pretrained_source(model, settings.home)
        steps = services.round_steps
        jobs = DurableJobs(
            settings.jobs_url,
            executor_id=settings.own_worker_id,
            workflows={
                JobKind.ACCEPT: partial(accept, acceptor=services.acceptor, steps=steps.prelabel),
                JobKind.PRELABEL: partial(prelabel, steps=steps.prelabel),
                JobKind.RELABEL: partial(
                    change_annotator, change=services.annotator_change, steps=steps.prelabel
                ),
                JobKind.ROUND: partial(run_round, steps=steps),
                JobKind.ROUND_NOW: partial(run_round, steps=steps, is_asked=True),
                JobKind.TABS: partial(keep_tabs, keeper=services.tabs),
            },
            chunks={
                **chunk_work(steps.prelabel),
                ChunkKind.RELABEL: partial(relabel_chunk, change=services.annotator_change),
            },
        )
        jobs.launch()
        _LOG.info("worker=%s started", settings.own_worker_id)
        dispatcher = Dispatcher(services, jobs)
        # apart: Label Studio may take long to answer, and much may be to delete
        actions_apart: tuple[tuple[Callable[[], object], float], ...] = (
            (partial(_note_annotators, services), settings.sync_interval_s),
            (dispatcher.request_due_jobs, settings.sync_interval_s),
            (services.housekeeper.run, _HOUSEKEEPING_INTERVAL_S),
        )
        for action, interval_s in actions_apart:
            once = {partial(_for_all_workers, services, action): interval_s}
            threading.Thread(target=_repeat, args=(once, stop), daemon=True).start()
        actions: dict[Callable[[], object], float] = {
            partial(_send_heartbeat, services, jobs): _HEARTBEAT_INTERVAL_S,
            dispatcher.dispatch: _DISPATCH_INTERVAL_S,
            jobs.delete_finished: _CLEANUP_INTERVAL_S,
        }
        try:
            _repeat(actions, stop)
        finally:
            jobs.close(wait_s=_STOP_WAIT_S)
            _LOG.info("worker=%s stopped", settings.own_worker_id)


def _repeat(actions: Mapping[Callable[[], object], float], stop: threading.Event) -> None:
    """Call each action at its interval in seconds until `stop` is set; failures are logged."""
    next_at = dict.fromkeys(actions, 0.0)
    while not stop.is_set():
        for action, interval_s in actions.items():
            if time.monotonic() < next_at[action]:
                continue
            try:
                action()
            except BackendError as exc:
                _LOG.error("worker: %s", exc)
            except Exception:
                _LOG.exception("worker: unexpected failure, continuing")
            next_at[action] = time.monotonic() + interval_s
        stop.wait(min(_DISPATCH_INTERVAL_S, *actions.values()))


def _for_all_workers(services: Services, action: Callable[[], object]) -> None:
    """Run an action that one of several workers runs for all: the first by name that lives."""
    first = services.stores.jobs.live_workers()[:1]
    if first in ([], [services.settings.own_worker_id]):
        action()


def _note_annotators(services: Services) -> None:
    """Record which annotators answer now, and what the LLM's server offers, where it answers."""
    similarity = services.ensemble.similarity.name
    services.stores.state.put(ProjectId(""), SIMILARITY_NAME, similarity)
    with suppress(LanguageModelError):
        name = services.ensemble.llm_name(deadline_s=_DESCRIBE_WAIT_S)
        services.stores.state.put(ProjectId(""), LLM_NAME, name)
        offered = asdict(services.language_model.describe(deadline_s=_DESCRIBE_WAIT_S))
        seen = {"seen_at": datetime.now(UTC).isoformat(), **offered}
        services.stores.state.put(ProjectId(""), LLM_SERVER, seen)


def _send_heartbeat(services: Services, jobs: DurableJobs) -> None:
    """Record that this worker is alive, and resume the workflows of one that is not."""
    own_id, workers = services.settings.own_worker_id, services.stores.jobs
    workers.record_heartbeat(own_id)
    dead = workers.claim_dead_worker(own_id)
    if dead is not None:
        n_workflows = jobs.resume(dead)
        _LOG.warning("worker=%s is gone; n_workflows=%d are resumed here", dead, n_workflows)


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Hold a lock that the operating system releases when this process ends, even if killed."""
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
