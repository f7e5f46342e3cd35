"""What projects want done, what keeps it from being done, and who is there to do it."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from backend.domain.projects import Problem, ProjectId
from backend.store import tables as t
from backend.store.database import Database, now, upsert

_WORKER_IS_DEAD = timedelta(seconds=60)
_WORKER_IS_ALIVE = timedelta(seconds=30)


class JobStore:
    """Job requests, problems and workers."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def request_job(self, project_id: ProjectId, kind: str, reason: str) -> None:
        """Ask the worker for a job; requests of one kind for one project are one request."""
        with self._db.write() as connection:
            request_job(connection, project_id, kind, reason)

    def job_requests(self) -> list[tuple[ProjectId, str, datetime]]:
        """Return what is asked for: project, kind, since when."""
        table = t.job_requests
        query = sa.select(table.c.project_id, table.c.kind, table.c.requested_at)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(table.c.requested_at)).all()
            return [(ProjectId(row[0]), row[1], row[2]) for row in rows]

    def drop_request(self, project_id: ProjectId, kind: str, requested_at: datetime) -> None:
        """Take a request as granted, unless it was made anew after `requested_at`."""
        table = t.job_requests
        with self._db.write() as connection:
            connection.execute(
                sa.delete(table).where(
                    table.c.project_id == project_id,
                    table.c.kind == kind,
                    table.c.requested_at <= requested_at,
                )
            )

    def note_problem(self, project_id: ProjectId, source: str, message: str) -> None:
        """Record that something outside keeps work from going on."""
        moment = now()
        row = {
            "project_id": project_id,
            "source": source,
            "message": message,
            "first_seen_at": moment,
            "last_seen_at": moment,
            "n_times": 1,
        }
        with self._db.write() as connection:
            known = connection.execute(
                sa.update(t.problems)
                .where(t.problems.c.project_id == project_id, t.problems.c.source == source)
                .values(message=message, last_seen_at=moment, n_times=t.problems.c.n_times + 1)
            )
            if known.rowcount == 0:
                upsert(connection, t.problems, [row])

    def clear_problem(self, project_id: ProjectId, source: str) -> None:
        """Record that `source` works again."""
        with self._db.write() as connection:
            connection.execute(
                sa.delete(t.problems).where(
                    t.problems.c.project_id == project_id, t.problems.c.source == source
                )
            )

    def problems(self, project_id: ProjectId) -> list[Problem]:
        """Return what is wrong now, oldest first."""
        table = t.problems
        query = sa.select(
            table.c.source,
            table.c.message,
            table.c.first_seen_at,
            table.c.last_seen_at,
            table.c.n_times,
        ).where(table.c.project_id == project_id)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(table.c.first_seen_at)).all()
            return [Problem(*row) for row in rows]

    def beat(self, worker_id: str) -> None:
        """Record that a worker is alive."""
        moment = now()
        with self._db.write() as connection:
            row = {"id": worker_id, "started_at": moment, "seen_at": moment}
            upsert(connection, t.workers, [row], keep=("started_at",))

    def claim_dead_worker(self, own_id: str) -> str | None:
        """Take over from a worker without a sign of life for a minute; return its name.

        Only one of several claimants gets it. A worker that comes back has lost nothing: its
        workflows go on elsewhere.
        """
        table = t.workers
        is_dead = sa.and_(table.c.seen_at < now() - _WORKER_IS_DEAD, table.c.id != own_id)
        with self._db.write() as connection:
            query = sa.select(table.c.id).where(is_dead).order_by(table.c.seen_at).limit(1)
            dead = connection.execute(query.with_for_update(skip_locked=True)).scalar()
            if dead is not None:
                connection.execute(sa.delete(table).where(table.c.id == dead))
            return dead

    def live_workers(self) -> list[str]:
        """Return the workers that gave a sign of life in the last 30 s."""
        query = sa.select(t.workers.c.id).where(t.workers.c.seen_at > now() - _WORKER_IS_ALIVE)
        with self._db.read() as connection:
            return list(connection.execute(query.order_by(t.workers.c.id)).scalars())


def request_job(connection: sa.Connection, project_id: ProjectId, kind: str, reason: str) -> None:
    """Ask for a job inside a caller's transaction."""
    row = {"project_id": project_id, "kind": kind, "reason": reason, "requested_at": now()}
    upsert(connection, t.job_requests, [row])
