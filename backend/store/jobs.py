"""Store job requests, problems and workers' heartbeats."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta

import sqlalchemy as sa

from backend.domain.projects import Problem, ProjectId
from backend.store import tables as t
from backend.store.database import Repository, insert_new, now, upsert

_MIN_DEAD_AGE = timedelta(seconds=60)
_MAX_LIVE_AGE = timedelta(seconds=30)


class JobStore(Repository):
    """Store job requests, problems and workers."""

    def request_job(self, project_id: ProjectId, kind: str, reason: str) -> bool:
        """Request a job from the worker; requests of one kind for one project are one request.

        Returns whether it was requested before.
        """
        with self._db.write() as connection:
            return request_job(connection, project_id, kind, reason)

    def job_requests(self) -> list[tuple[ProjectId, str, datetime]]:
        """Return project, kind and time of every request, oldest first."""
        table = t.job_requests
        query = sa.select(table.c.project_id, table.c.kind, table.c.requested_at)
        rows = self._db.fetch(query.order_by(table.c.requested_at))
        return [(ProjectId(row[0]), row[1], row[2]) for row in rows]

    def drop_request(self, project_id: ProjectId, kind: str, requested_at: datetime) -> bool:
        """Delete a request unless it was made anew after `requested_at`; False without one."""
        table = t.job_requests
        is_request = sa.and_(table.c.project_id == project_id, table.c.kind == kind)
        is_old = table.c.requested_at <= requested_at
        return bool(self._db.execute(sa.delete(table).where(is_request, is_old)))

    def note_problem(self, project_id: ProjectId, source: str, message: str) -> None:
        """Record a failure outside that blocks a project's work, counting repetitions."""
        moment = now()
        row = {"project_id": project_id, "source": source, "message": message, "n_times": 1}
        times = {"first_seen_at": moment, "last_seen_at": moment}
        with self._db.write() as connection:
            upsert(connection, t.problems, [row | times], keep=("first_seen_at",), add=("n_times",))

    def clear_problem(self, project_id: ProjectId, source: str) -> None:
        """Delete the problem of a source that works again."""
        table = t.problems
        is_problem = sa.and_(table.c.project_id == project_id, table.c.source == source)
        self._db.execute(sa.delete(table).where(is_problem))

    def clear_problems(self, project_id: ProjectId, *, before: datetime) -> int:
        """Delete the problems that were last seen before a moment; return how many."""
        table = t.problems
        is_old = sa.and_(table.c.project_id == project_id, table.c.last_seen_at < before)
        return self._db.execute(sa.delete(table).where(is_old))

    def problems(self, project_id: ProjectId) -> list[Problem]:
        """Return a project's current problems, oldest first."""
        table = t.problems
        query = sa.select(*(table.c[field.name] for field in fields(Problem)))
        query = query.where(table.c.project_id == project_id).order_by(table.c.first_seen_at)
        return [Problem(*row) for row in self._db.fetch(query)]

    def record_heartbeat(self, worker_id: str) -> None:
        """Record that a worker is alive."""
        moment = now()
        with self._db.write() as connection:
            row = {"id": worker_id, "started_at": moment, "seen_at": moment}
            upsert(connection, t.workers, [row], keep=("started_at",))

    def claim_dead_worker(self, own_id: str) -> str | None:
        """Delete one worker without a heartbeat for a minute and return its name.

        Only one of several claimants gets it. A worker that comes back has lost nothing: its
        workflows continue elsewhere.
        """
        table = t.workers
        is_dead = sa.and_(table.c.seen_at < now() - _MIN_DEAD_AGE, table.c.id != own_id)
        with self._db.write() as connection:
            query = sa.select(table.c.id).where(is_dead).order_by(table.c.seen_at).limit(1)
            dead = connection.execute(query.with_for_update(skip_locked=True)).scalar()
            if dead is not None:
                connection.execute(sa.delete(table).where(table.c.id == dead))
            return dead

    def live_workers(self) -> list[str]:
        """Return the workers with a heartbeat in the last 30 s, by name."""
        table = t.workers
        is_live = table.c.seen_at > now() - _MAX_LIVE_AGE
        return self._db.fetch_column(sa.select(table.c.id).where(is_live).order_by(table.c.id))


def request_job(connection: sa.Connection, project_id: ProjectId, kind: str, reason: str) -> bool:
    """Request a job inside a caller's transaction; return whether it was requested before."""
    row = {"project_id": project_id, "kind": kind, "reason": reason, "requested_at": now()}
    if insert_new(connection, t.job_requests, row):
        return False
    upsert(connection, t.job_requests, [row])
    return True
