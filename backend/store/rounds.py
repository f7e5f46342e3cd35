"""Store rounds by project; at most one of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import Project, ProjectId
from backend.domain.rounds import Round, RoundRecipeName, RoundState, changed_models
from backend.store import tables as t
from backend.store.database import Repository, now
from backend.store.tables import of_question

_OUTDATED = "the project asks something else now"


class RoundStore(Repository):
    """Store rounds; every write is one transaction and safe to repeat."""

    def open(
        self,
        project: Project,
        *,
        recipe: RoundRecipeName,
        reason: str,
        n_human: int,
        models: Mapping[str, str] | None = None,
    ) -> Round:
        """Return the running round, or start the next one.

        A running round of an earlier question is cancelled: its labels answer another question. So
        is one that began with other models, whose vectors and students fit no others: the next
        round takes its place.
        """
        table = t.rounds
        of_project = table.c.project_id == project.id
        is_running = sa.and_(of_project, table.c.state == RoundState.RUNNING)
        running = sa.select(table).where(is_running)
        with self._db.write() as connection:
            connection.execute(
                sa.update(table)
                .where(is_running, table.c.question_version != project.question_version)
                .values(state=RoundState.CANCELLED, error=_OUTDATED, finished_at=now())
            )
            row = connection.execute(running).first()
            changed = "" if row is None else changed_models(row.models, models or {})
            if row is not None and changed:
                error = f"{changed} since it began: another round is made in its place"
                ended = {"state": RoundState.CANCELLED, "error": error, "finished_at": now()}
                connection.execute(sa.update(table).where(is_running).values(ended))
                reason = row.reason
            if row is None or changed:
                last = sa.select(sa.func.max(table.c.number)).where(of_project)
                values: dict[str, Any] = {
                    "project_id": project.id,
                    "number": (connection.execute(last).scalar() or 0) + 1,
                    "question_version": project.question_version,
                    "recipe": recipe,
                    "models": None if models is None else dict(models),
                    "reason": reason,
                    "state": RoundState.RUNNING,
                    "n_human": n_human,
                    "step": "begin",
                    "progress": {},
                    "metrics": {},
                    "started_at": now(),
                }
                connection.execute(sa.insert(table).values(values))
            return _round(connection.execute(running).one())

    def carry_over(self, before: Project, after: Project) -> None:
        """Have the finished rounds of an earlier question version count for the present one."""
        table = t.rounds
        is_carried = sa.and_(of_question(before, table), table.c.state.not_in([RoundState.RUNNING]))
        values = {"question_version": after.question_version}
        self._db.execute(sa.update(table).where(is_carried).values(values))

    def running(self, project_id: ProjectId) -> Round | None:
        """Return the project's running round, None without one."""
        return next((r for r in self.history(project_id) if r.state is RoundState.RUNNING), None)

    def history(self, project_id: ProjectId) -> list[Round]:
        """Return all rounds of a project, the first one first."""
        table = t.rounds
        query = sa.select(table).where(table.c.project_id == project_id).order_by(table.c.number)
        return [_round(row) for row in self._db.fetch(query)]

    def current(self, project: Project) -> list[Round]:
        """Return the rounds that answer the present question, the first one first."""
        version = project.question_version
        return [r for r in self.history(project.id) if r.question_version == version]

    def note(self, running: Round, *, step: str, progress: Mapping[str, Any]) -> bool:
        """Record a round's step and progress; False when it no longer runs (was cancelled)."""
        return self._update(running, step=step, progress=dict(progress))

    def finish(
        self,
        running: Round,
        state: RoundState,
        *,
        metrics: Mapping[str, Any] | None = None,
        model_version: str | None = None,
        error: str | None = None,
    ) -> bool:
        """Close a round; False when it was closed already."""
        return self._update(
            running,
            state=state,
            metrics=dict(metrics or {}),
            model_version=model_version,
            error=error,
            finished_at=now(),
        )

    def _update(self, running: Round, **values: Any) -> bool:
        table = t.rounds
        statement = sa.update(table).where(
            table.c.project_id == running.project_id,
            table.c.number == running.number,
            table.c.state == RoundState.RUNNING,
        )
        return bool(self._db.execute(statement.values(values)))


def _round(row: Any) -> Round:
    values = {**row._mapping, "state": RoundState(row.state), "project_id": ProjectId(row[0])}
    return Round(**values)
