"""Store which predictions Label Studio has, so that each gets there once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.chunks import ALL_TASKS, Chunk
from backend.domain.projects import Prediction, Project, Task
from backend.errors import StoreUnavailable
from backend.store import tables as t
from backend.store.database import Repository, execute_for, in_slices, now
from backend.store.tables import in_chunk, of_version

_IS_UNPUBLISHED = sa.and_(t.predictions.c.published_at.is_(None), t.predictions.c.refusal.is_(None))
_STORED = sa.select(t.predictions, t.tasks.c.digest).where(
    t.tasks.c.project_id == t.predictions.c.project_id,
    t.tasks.c.id == t.predictions.c.task_id,
    t.predictions.c.project_id == sa.bindparam("project_id"),
    t.predictions.c.model_version == sa.bindparam("model_version"),
    t.predictions.c.task_id.in_(sa.bindparam("task_ids", expanding=True)),
)
"""Built once: composing it takes longer than running it, and /predict runs it for every task."""


class PublicationStore(Repository):
    """Store the way of predictions into Label Studio, always of one model version."""

    def predictions(self, project: Project, tasks: Sequence[Task]) -> dict[int, Prediction]:
        """Return the stored predictions of the project's version for these texts, by task.

        A task whose data has changed since has none. Those returned are marked as offered; where
        the database cannot be written, only those that are published already are returned.
        """
        digests = {task.id: task.digest() for task in tasks}
        key = {"project_id": project.id, "model_version": project.model_version}
        found: dict[int, Prediction] = {}
        unpublished: list[int] = []
        with self._db.read() as connection:
            for ids in in_slices(list(digests)):
                for row in connection.execute(_STORED, {**key, "task_ids": list(ids)}):
                    if row.digest == digests[row.task_id]:
                        found[row.task_id] = _prediction(row)
                        if row.published_at is None:
                            unpublished.append(row.task_id)
        if unpublished:
            try:
                self.offer(project, unpublished)
            except StoreUnavailable:  # without the mark the publisher would send them once more
                found = {task_id: p for task_id, p in found.items() if task_id not in unpublished}
        return found

    def offer(self, project: Project, task_ids: Sequence[int]) -> set[int]:
        """Mark predictions as returned by /predict, whose answers Label Studio stores.

        Returns the tasks whose prediction was neither returned nor sent before: returning another
        one would make a duplicate. The publisher looks in Label Studio before it imports these.
        """
        table = t.predictions
        is_new = (table.c[name].is_(None) for name in ("offered_at", "sent_at", "published_at"))
        statement = sa.update(table).where(of_version(project, table), *is_new)
        statement = statement.values(offered_at=now())
        with self._db.write() as connection:
            column = table.c.task_id
            rows = execute_for(connection, statement.returning(column), column, task_ids)
            return {row.task_id for row in rows}

    def unpublished_ids(
        self, project: Project, limit: int, *, after: int = 0, patience_s: float
    ) -> list[int]:
        """Return the first tasks above `after` whose prediction `take_unpublished` would return."""
        column = t.predictions.c.task_id
        query = sa.select(column).where(_is_due(project, patience_s), column > after)
        return self._db.fetch_column(query.order_by(column).limit(limit))

    def take_unpublished(
        self, project: Project, limit: int, *, patience_s: float, chunk: Chunk = ALL_TASKS
    ) -> tuple[list[Prediction], set[int]]:
        """Return predictions to import, and the tasks to look up in Label Studio first.

        Those that /predict returned less than `patience_s` ago are left out: Label Studio stores
        its answers one by one. All are marked as sent in the same transaction, so that /predict
        does not return them while they are on their way, and so that a kill leaves a trace.
        """
        table = t.predictions
        query = sa.select(table).where(_is_due(project, patience_s))
        query = query.where(in_chunk(table.c.task_id, chunk))
        query = query.order_by(table.c.task_id).limit(limit).with_for_update()
        with self._db.write() as connection:
            rows = connection.execute(query).all()
            _mark(connection, project, [row.task_id for row in rows], sent_at=now())
        doubtful = {row.task_id for row in rows if row.offered_at or row.sent_at}
        return [_prediction(row) for row in rows], doubtful

    def note_published(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio has these predictions."""
        with self._db.write() as connection:
            _mark(connection, project, task_ids, published_at=now(), refusal=None)

    def note_unpublished(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio does not have these predictions (any more)."""
        with self._db.write() as connection:
            _mark(connection, project, task_ids, published_at=None, offered_at=None, sent_at=None)

    def note_refused(self, project: Project, task_ids: Sequence[int], why: str) -> None:
        """Record that Label Studio refuses these predictions; they are not sent again."""
        with self._db.write() as connection:
            _mark(connection, project, task_ids, refusal=why)

    def publication(self, project: Project, task_ids: Sequence[int]) -> dict[int, bool]:
        """Return, for those of the tasks that have a prediction, whether it is published."""
        table = t.predictions
        query = sa.select(table.c.task_id, table.c.published_at).where(of_version(project, table))
        with self._db.read() as connection:
            rows = execute_for(connection, query, table.c.task_id, task_ids)
        return {row.task_id: row.published_at is not None for row in rows}

    def results(self, project: Project) -> dict[int, list[Any]]:
        """Return what the version's predictions that Label Studio has say, by task."""
        table = t.predictions
        query = sa.select(table.c.task_id, table.c.result)
        query = query.where(of_version(project, table), table.c.published_at.is_not(None))
        return {row.task_id: row.result for row in self._db.fetch(query)}

    def has_any(self, project: Project) -> bool:
        """Return whether there is any prediction of the present version."""
        return self._has_prediction(project, sa.true())

    def has_published(self, project: Project) -> bool:
        """Return whether Label Studio has any prediction of the present version."""
        return self._has_prediction(project, t.predictions.c.published_at.is_not(None))

    def has_unpublished(self, project: Project) -> bool:
        """Return whether Label Studio lacks a prediction of this version that it would take."""
        return self._has_prediction(project, _IS_UNPUBLISHED)

    def _has_prediction(self, project: Project, condition: sa.ColumnElement[bool]) -> bool:
        is_present = of_version(project, t.predictions)
        query = sa.select(t.predictions.c.task_id).where(is_present, condition)
        return self._db.fetch_value(query.limit(1)) is not None

    def n_published(self, project: Project) -> int:
        """Return how many predictions Label Studio has of all the project's releases."""
        table = t.predictions
        query = sa.select(sa.func.count()).where(
            table.c.project_id == project.id, table.c.published_at.is_not(None)
        )
        return int(self._db.fetch_value(query))


def _is_due(project: Project, patience_s: float) -> sa.ColumnElement[bool]:
    offered_at, patience = t.predictions.c.offered_at, timedelta(seconds=patience_s)
    is_due = sa.or_(offered_at.is_(None), offered_at < now() - patience)
    return sa.and_(of_version(project, t.predictions), _IS_UNPUBLISHED, is_due)


def _mark(
    connection: sa.Connection, project: Project, task_ids: Sequence[int], **values: Any
) -> None:
    table = t.predictions
    statement = sa.update(table).where(of_version(project, table)).values(values)
    execute_for(connection, statement, table.c.task_id, task_ids)


def _prediction(row: Any) -> Prediction:
    return Prediction(row.task_id, row.model_version, tuple(row.result), row.score)
