"""/health answers whatever is broken, /ready says what is, and neither waits for long."""

from __future__ import annotations

import base64
import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest

from backend.domain.projects import ProjectId
from backend.errors import StoreUnavailable
from backend.pipeline import readiness
from backend.pipeline.readiness import Part, PartState, Readiness
from backend.setting_values import Secret
from backend.store import Database, JobStore
from tests.web.test_ml_routes import ONE, choices, predict_body, setup_body


@contextmanager
def locked(services):
    """Hold the database as another process that never ends its transaction."""
    if not services.database.is_sqlite:
        pytest.skip("only SQLite has one lock for all")
    path = services.settings.home / "freeal.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.rollback()
        holder.close()


@pytest.fixture
def services(make_services):
    """A deployment whose servers are down, and answer so at once."""
    nowhere = {"llm_base_url": "http://127.0.0.1:9/v1", "label_studio_url": "http://127.0.0.1:9"}
    return make_services(**nowhere)


def states(client):
    return {name: part["state"] for name, part in client.get("/ready").get_json()["parts"].items()}


def test_every_part_has_a_state_and_only_our_own_make_it_unready(services, client):
    services.stores.jobs.record_heartbeat("worker")
    answer = client.get("/ready")
    assert answer.status_code == 200
    assert answer.get_json()["is_ready"] is True
    assert states(client) == {
        "database": "ok",
        "disk": "ok",
        "worker": "ok",
        "llm": "warning",
        "label_studio": "warning",
        "queue": "ok",
    }


def test_without_a_worker_it_is_not_ready_but_healthy(client):
    assert client.get("/ready").status_code == 503
    assert client.get("/health").get_json()["status"] == "UP"


def test_a_locked_database_is_told_in_time_and_leaves_health_alone(services, client):
    services.stores.jobs.record_heartbeat("worker")
    with locked(services):
        started_at = time.monotonic()
        answer = client.get("/ready")
        assert time.monotonic() - started_at < 8
        assert answer.status_code == 503
        part = answer.get_json()["parts"]["database"]
        assert part == {"state": "failure", "message": "cannot be written within 1 s"}
        assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200


def test_a_database_that_is_gone_leaves_health_alone(services, client):
    if not services.database.is_sqlite:
        pytest.skip("a file of SQLite is deleted here")
    services.database.close()
    path = services.settings.home / "freeal.db"
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.mkdir()
    assert client.get("/health").status_code == 200
    assert states(client)["database"] == "failure"


def test_neither_asks_for_a_password_nor_tells_an_address(make_services, client_for):
    services = make_services(
        basic_auth_user="ann",
        basic_auth_pass=Secret("secret"),
        llm_base_url="http://127.0.0.1:9/v1",
        label_studio_url="http://127.0.0.1:9",
    )
    client = client_for(services)
    text = client.get("/ready").get_data(as_text=True)
    assert client.get("/health").status_code == 200
    assert not [word for word in ("127.0.0.1", str(services.settings.home), "ann") if word in text]
    assert client.get("/metrics").status_code == 401
    header = "Basic " + base64.b64encode(b"ann:secret").decode()
    assert client.get("/metrics", headers={"Authorization": header}).status_code == 200


def test_a_check_that_hangs_is_late_and_is_not_started_again():
    release, starts = threading.Event(), []

    def hang():
        starts.append(True)
        release.wait(30)
        return Part(PartState.OK, "at last")

    report = Readiness({"llm": hang, "disk": lambda: Part(PartState.OK, "fine")}, budget_s=0.1)
    for _ in range(3):
        parts = report.report()["parts"]
        assert parts["llm"]["state"] == "failure"
        assert parts["disk"]["state"] == "ok"
    assert len(starts) == 1
    release.set()


def test_a_check_that_breaks_is_a_failure():
    report = Readiness({"database": lambda: 1 / 0}).report()
    assert not report["is_ready"]
    assert report["parts"]["database"]["state"] == "failure"


@pytest.mark.parametrize(
    ("n_free_gb", "state"), [(50, "ok"), (1, "warning"), (0.1, "failure"), (0, "failure")]
)
def test_a_disk_is_full_before_nothing_is_left(monkeypatch, tmp_path, n_free_gb, state):
    class Usage:
        free = int(n_free_gb * 1024**3)

    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda _: Usage)
    assert readiness.check_disk(tmp_path).state == state


def test_a_job_that_waits_for_hours_is_told(services):
    services.stores.jobs.request_job(ProjectId(ONE), "prelabel", "test")
    assert readiness.check_queue(services.stores.jobs).state == "ok"
    assert "1 jobs wait" in readiness.check_queue(services.stores.jobs).message


def test_predict_answers_in_time_what_it_may_while_the_database_is_locked(services, client):
    client.post("/setup", json=setup_body())
    client.post("/predict", json=predict_body("good", "bad"))
    project = services.stores.projects.get(ProjectId(ONE))
    services.stores.publication.note_published(project, [1])
    services.stores.publication.note_unpublished(project, [2])
    with locked(services):
        started_at = time.monotonic()
        answer = client.post("/predict", json=predict_body("good", "bad", "good"))
        assert time.monotonic() - started_at < 8
    assert answer.status_code == 200
    assert choices(answer) == ["Positive", None, None]
    assert choices(client.post("/predict", json=predict_body("good", "bad", "good"))) == [
        "Positive",
        "Negative",
        "Positive",
    ]


def test_calls_beyond_those_that_may_wait_for_the_llm_leave_their_tasks_to_the_worker(
    make_services, client_for, language_model
):
    services = make_services(web_threads=2)
    client = client_for(services)
    client.post("/setup", json=setup_body())
    assert services.prediction.max_parallel == 1
    services.prediction._slots.acquire()
    answer = client.post("/predict", json=predict_body("good"))
    assert choices(answer) == [None]
    assert language_model.calls == []
    kinds = [kind for _, kind, _ in services.stores.jobs.job_requests()]
    assert kinds == ["prelabel"]
    services.prediction._slots.release()
    assert choices(client.post("/predict", json=predict_body("good"))) == ["Positive"]


def test_a_locked_database_does_not_take_all_threads(services):
    database = Database(services.settings.state_url, max_writers=1)
    jobs, refusals = JobStore(database), []

    def write():
        try:
            jobs.record_heartbeat("a")
        except StoreUnavailable as exc:
            refusals.append(str(exc))

    with locked(services):
        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        while len(refusals) < 2:
            time.sleep(0.05)
        assert sum(writer.is_alive() for writer in writers) == 1
        assert len(refusals) == 2
        assert all("busy" in refusal for refusal in refusals)
    for writer in writers:
        writer.join()
    assert jobs.live_workers() == ["a"]
    database.close()
