"""Rounds by project: at most one of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import Project, ProjectId
from backend.domain.rounds import Round, RoundRecipe, RoundState
from backend.store import tables as t
from backend.store.database import Database, now

_OUTDATED = "the project asks something else now"


class RoundStore:
    """Every write is one transaction and safe to repeat."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def open(self, project: Project, *, recipe: RoundRecipe, reason: str, n_human: int) -> Round:
        """Return the round that runs, or start the next one.

        A running round of an earlier question is cancelled: its labels answer another question.
        """
        table = t.rounds
        with self._db.write() as connection:
            is_running = sa.and_(
                table.c.project_id == project.id, table.c.state == RoundState.RUNNING
            )
            connection.execute(
                sa.update(table)
                .where(is_running, table.c.question_version != project.question_version)
                .values(state=RoundState.CANCELLED, error=_OUTDATED, finished_at=now())
            )
            row = connection.execute(sa.select(table).where(is_running)).first()
            if row is not None:
                return _round(row)
            last = connection.execute(
                sa.select(sa.func.max(table.c.number)).where(table.c.project_id == project.id)
            ).scalar()
            number = (last or 0) + 1
            values: dict[str, Any] = {
                "project_id": project.id,
                "number": number,
                "question_version": project.question_version,
                "recipe": recipe,
                "reason": reason,
                "state": RoundState.RUNNING,
                "n_human": n_human,
                "step": "begin",
                "progress": {},
                "metrics": {},
                "started_at": now(),
            }
            connection.execute(sa.insert(table).values(values))
            wanted = _these(project.id, number)
            return _round(connection.execute(sa.select(table).where(wanted)).one())

    def running(self, project_id: ProjectId) -> Round | None:
        """Return the project's round that runs, None without one."""
        return next((r for r in self.history(project_id) if r.state is RoundState.RUNNING), None)

    def history(self, project_id: ProjectId) -> list[Round]:
        """Return all rounds of a project, the first one first."""
        table = t.rounds
        query = sa.select(table).where(table.c.project_id == project_id).order_by(table.c.number)
        with self._db.read() as connection:
            return [_round(row) for row in connection.execute(query)]

    def note(self, found: Round, *, step: str, progress: Mapping[str, Any]) -> bool:
        """Record where a round is; False when it does not run any more (it was cancelled)."""
        return self._update(found, {"step": step, "progress": dict(progress)})

    def finish(
        self,
        found: Round,
        state: RoundState,
        *,
        metrics: Mapping[str, Any] | None = None,
        model_version: str | None = None,
        error: str | None = None,
    ) -> bool:
        """Close a round; False when it was closed already."""
        return self._update(
            found,
            {
                "state": state,
                "metrics": dict(metrics or {}),
                "model_version": model_version,
                "error": error,
                "finished_at": now(),
            },
        )

    def _update(self, found: Round, values: dict[str, Any]) -> bool:
        statement = (
            sa.update(t.rounds)
            .where(
                _these(found.project_id, found.number),
                t.rounds.c.state == RoundState.RUNNING,
            )
            .values(values)
        )
        with self._db.write() as connection:
            return bool(connection.execute(statement).rowcount)


def _these(project_id: ProjectId, number: int) -> sa.ColumnElement[bool]:
    return sa.and_(t.rounds.c.project_id == project_id, t.rounds.c.number == number)


def _round(row: Any) -> Round:
    values = {**row._mapping, "state": RoundState(row.state), "project_id": ProjectId(row[0])}
    return Round(**values)
