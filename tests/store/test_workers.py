"""Who is at work, and who takes over from whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from backend.store.tables import workers


def silence(database, worker_id: str, seconds: float) -> None:
    seen_at = datetime.now(UTC) - timedelta(seconds=seconds)
    with database.write() as connection:
        statement = sa.update(workers).where(workers.c.id == worker_id).values(seen_at=seen_at)
        connection.execute(statement)


def test_a_worker_that_was_silent_for_a_minute_is_claimed_once(database, work):
    for worker_id in ("old", "new", "other"):
        work.record_heartbeat(worker_id)
    silence(database, "old", 61)
    assert work.claim_dead_worker("new") == "old"
    assert work.claim_dead_worker("other") is None


def test_a_worker_claims_neither_itself_nor_one_that_was_seen_just_now(database, work):
    work.record_heartbeat("own")
    work.record_heartbeat("other")
    silence(database, "own", 500)
    silence(database, "other", 40)
    assert work.claim_dead_worker("own") is None
