"""Job requests, problems, and workers that replace dead ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store.tables import workers

ONE = ProjectId("1.1795215594")


def set_last_heartbeat(database, worker_id: str, seconds: float) -> None:
    seen_at = datetime.now(UTC) - timedelta(seconds=seconds)
    with database.write() as connection:
        statement = sa.update(workers).where(workers.c.id == worker_id).values(seen_at=seen_at)
        connection.execute(statement)


def test_a_worker_without_a_heartbeat_for_a_minute_is_claimed_once(database, jobs):
    for worker_id in ("old", "new", "other"):
        jobs.record_heartbeat(worker_id)
    set_last_heartbeat(database, "old", 61)
    assert jobs.claim_dead_worker("new") == "old"
    assert jobs.claim_dead_worker("other") is None


def test_a_worker_claims_neither_itself_nor_one_that_was_seen_just_now(database, jobs):
    jobs.record_heartbeat("own")
    jobs.record_heartbeat("other")
    set_last_heartbeat(database, "own", 500)
    set_last_heartbeat(database, "other", 40)
    assert jobs.claim_dead_worker("own") is None


def test_requests_of_one_kind_are_one_request_and_a_newer_one_is_not_dropped(jobs):
    jobs.request_job(ONE, "prelabel", "connected")
    (_, _, asked_at) = jobs.job_requests()[0]
    jobs.request_job(ONE, "prelabel", "TASKS_CREATED")
    assert len(jobs.job_requests()) == 1
    jobs.drop_request(ONE, "prelabel", asked_at - timedelta(seconds=1))
    assert len(jobs.job_requests()) == 1
    jobs.drop_request(ONE, "prelabel", datetime.now(UTC))
    assert jobs.job_requests() == []


def test_a_problem_keeps_its_beginning_and_counts(jobs):
    jobs.note_problem(ONE, "llm", "connection refused")
    jobs.note_problem(ONE, "llm", "503")
    (problem,) = jobs.problems(ONE)
    assert (problem.message, problem.n_times) == ("503", 2)
    assert problem.first_seen_at <= problem.last_seen_at
    jobs.clear_problem(ONE, "llm")
    assert jobs.problems(ONE) == []


def test_a_worker_with_a_heartbeat_is_live(jobs):
    jobs.record_heartbeat("worker-a")
    jobs.record_heartbeat("worker-a")
    assert jobs.live_workers() == ["worker-a"]
