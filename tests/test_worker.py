"""The worker loop: requests become jobs, and work without a webhook is found."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pytest

from backend.domain.projects import Disconnection, Event, JobKind, ProjectId
from backend.errors import EmbeddedModelError, SettingsError
from backend.launcher import model_files
from backend.services import Adapters, build_services
from backend.settings import Settings
from backend.worker import Dispatcher, _for_all_workers, run_worker
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel, FakePlatform
from tests.pipeline.annotators import FakeEncoder


@dataclass
class FakeJobs:
    """Takes one job of a kind per project, until it is told that the job is done."""

    running: set[tuple[str, str]] = field(default_factory=set)

    def submit(self, project_id: ProjectId, kind: str) -> bool:
        if (project_id, kind) in self.running:
            return False
        self.running.add((project_id, kind))
        return True


@pytest.fixture
def services(tmp_path):
    services = build_services(
        Settings(home=tmp_path, sync_interval_s=0.2),
        Adapters(
            FakePlatform(),
            FakeLanguageModel(lambda prompt: {"positive": 0.8, "negative": 0.1}),
            FakeEncoder(),
        ),
    )
    yield services
    services.close()


@pytest.fixture
def project_id(services):
    number = services.platform.create_project(SENTIMENT)
    services.platform.import_tasks(number, [{"text": f"text {i}"} for i in range(5)])
    project_id = services.platform.projects[number].info.id
    services.events.connect(project_id, SENTIMENT)
    return project_id


def test_a_request_becomes_one_job_and_is_kept_while_one_runs(services, project_id):
    jobs = FakeJobs()
    dispatcher = Dispatcher(services, jobs)
    assert dispatcher.dispatch() == 1
    assert services.stores.jobs.job_requests() == []
    services.stores.jobs.request_job(project_id, "prelabel", "TASKS_CREATED")
    assert dispatcher.dispatch() == 0
    assert len(services.stores.jobs.job_requests()) == 1
    jobs.running.clear()
    assert dispatcher.dispatch() == 1


def test_what_was_asked_for_waits_while_label_studio_refuses_the_project(services, project_id):
    stores, jobs = services.stores, FakeJobs()
    dispatcher = Dispatcher(services, jobs)
    dispatcher.dispatch()
    jobs.running.clear()
    stores.jobs.request_job(project_id, JobKind.ROUND_NOW, "asked for")
    stores.projects.disconnect(project_id, Disconnection.REFUSED, "no proper answer")
    assert dispatcher.dispatch() == 0
    stores.projects.reconnect(stores.projects.get(project_id))
    assert dispatcher.dispatch() == 1
    assert jobs.running == {(project_id, JobKind.ROUND_NOW)}


def test_a_round_whose_job_died_before_it_began_is_asked_for_again(services, project_id):
    stores, jobs = services.stores, FakeJobs()
    dispatcher = Dispatcher(services, jobs)
    dispatcher.dispatch()
    services.events.receive(Event("START_TRAINING", services.platform.project(1)))
    dispatcher.dispatch()
    jobs.running.clear()  # the jobs have died
    dispatcher.request_due_jobs()
    kinds = {kind for _, kind, _ in stores.jobs.job_requests()}
    assert JobKind.ROUND_NOW in kinds
    dispatcher.dispatch()
    services.round_steps.scheduler.begin(project_id, is_asked=True)
    dispatcher.request_due_jobs()
    kinds = {kind for _, kind, _ in stores.jobs.job_requests()}
    assert JobKind.ROUND_NOW not in kinds


def test_what_was_asked_for_is_forgotten_with_a_project_that_is_removed(services, project_id):
    services.events.receive(Event("START_TRAINING", services.platform.project(1)))
    services.stores.projects.disconnect(project_id, Disconnection.REMOVED, "not listed")
    assert services.stores.jobs.job_requests() == []
    services.stores.projects.reconnect(services.stores.projects.get(project_id))
    Dispatcher(services, FakeJobs()).request_due_jobs()
    kinds = {kind for _, kind, _ in services.stores.jobs.job_requests()}
    assert JobKind.ROUND_NOW not in kinds


def test_work_without_a_webhook_is_found(services, project_id):
    (request,) = services.stores.jobs.job_requests()
    services.stores.jobs.drop_request(*request)
    Dispatcher(services, FakeJobs()).request_due_jobs()
    assert len(services.stores.jobs.job_requests()) == 1


def test_training_is_requested_at_once(services, project_id):
    services.events.receive(Event("START_TRAINING", services.platform.project(1)))
    kinds = {kind for _, kind, _ in services.stores.jobs.job_requests()}
    assert kinds == {"prelabel", "round-now"}


def test_a_project_that_fails_leaves_the_others_their_pass(services, project_id, monkeypatch):
    (request,) = services.stores.jobs.job_requests()
    services.stores.jobs.drop_request(*request)
    number = services.platform.create_project(SENTIMENT)
    other = services.platform.projects[number].info.id
    services.stores.projects.save(other, label_config=SENTIMENT)
    synchronizer = type(services.round_steps.prelabel.synchronizer)
    work_due = synchronizer.work_due

    def failing(self, asked):
        if asked == project_id:
            raise RecursionError("too deep")
        return work_due(self, asked)

    monkeypatch.setattr(synchronizer, "work_due", failing)
    dispatcher = Dispatcher(services, FakeJobs())
    dispatcher.request_due_jobs()
    assert [asked for asked, _, _ in services.stores.jobs.job_requests()] == [other]
    (problem,) = services.stores.jobs.problems(project_id)
    assert (problem.source, "RecursionError" in problem.message) == ("worker", True)
    monkeypatch.setattr(synchronizer, "work_due", work_due)
    dispatcher.request_due_jobs()
    assert services.stores.jobs.problems(project_id) == []


def test_a_job_that_cannot_be_submitted_leaves_the_others_theirs(services, project_id):
    services.stores.jobs.request_job(ProjectId("\u00b2.1"), "prelabel", "poisoned")
    services.stores.jobs.request_job(ProjectId("9.1"), "prelabel", "after it")

    class PickyJobs(FakeJobs):
        def submit(self, project_id: ProjectId, kind: str) -> bool:
            if not project_id.isascii():
                raise ValueError(project_id)
            return super().submit(project_id, kind)

    assert Dispatcher(services, PickyJobs()).dispatch() == 2


def test_an_unfinished_round_is_continued(services, project_id):
    (request,) = services.stores.jobs.job_requests()
    services.stores.jobs.drop_request(*request)
    project = services.stores.projects.get(project_id)
    services.stores.rounds.open(project, recipe="default", reason="asked for", n_human=0)
    Dispatcher(services, FakeJobs()).request_due_jobs()
    assert [kind for _, kind, _ in services.stores.jobs.job_requests()] == ["round"]


def test_a_disconnected_project_gets_no_jobs(services, project_id):
    (request,) = services.stores.jobs.job_requests()
    services.stores.jobs.drop_request(*request)
    services.stores.projects.disconnect(project_id)
    Dispatcher(services, FakeJobs()).request_due_jobs()
    assert services.stores.jobs.job_requests() == []


def test_the_whole_worker_labels_and_publishes_a_project_and_stops(services, project_id, caplog):
    caplog.set_level("INFO", "backend.jobs")
    stop = threading.Event()
    remote = services.platform.projects[int(project_id.split(".")[0])]

    def wait():
        while "job=prelabel finished" not in caplog.text:  # a thread of an open one would go on
            if stop.wait(0.05):
                return
        stop.set()

    watcher = threading.Thread(target=wait)
    guard = threading.Timer(40, stop.set)
    watcher.start()
    guard.start()
    run_worker(services, stop)
    watcher.join()
    guard.cancel()
    assert len(remote.predictions) == 5
    assert services.stores.jobs.live_workers() == [services.settings.own_worker_id]


def test_a_worker_whose_encoder_cannot_be_had_does_not_start(services, monkeypatch):
    def fail(model, **options):
        raise EmbeddedModelError(f"{model.name} could not be downloaded")

    monkeypatch.setattr(model_files, "ensure_encoder", fail)
    settings = replace(services.settings, student_model="all-mpnet-base-v2")
    with pytest.raises(EmbeddedModelError, match="all-mpnet-base-v2 could not be downloaded"):
        run_worker(replace(services, settings=settings), threading.Event())


def test_a_second_worker_of_the_same_name_is_refused(services):
    stop = threading.Event()
    stop.set()
    path = services.settings.home / f"{services.settings.own_worker_id}.lock"
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="WORKER_ID"):
            run_worker(services, stop)


def test_one_of_several_workers_does_what_is_done_once_for_all(services):
    calls = []
    own_id = services.settings.own_worker_id
    for other, n_calls in (("zz-last", 1), ("aa-first", 1)):
        services.stores.jobs.record_heartbeat(own_id)
        services.stores.jobs.record_heartbeat(other)
        _for_all_workers(services, lambda: calls.append(1))
        assert len(calls) == n_calls
