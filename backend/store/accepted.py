"""Store which labels were accepted as annotations in Label Studio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import AcceptedLabel, ProjectId
from backend.store import tables as t
from backend.store.database import Repository, execute_for, insert_into, now

_MAX_ROWS = 2_000
_COPIED = ("task_id", "unique_id", "model_version", "confidence", "annotation_id")


class AcceptedStore(Repository):
    """A row is planned, marked as sent before its annotation is made, and has its id after."""

    def plan(self, project_id: ProjectId, labels: Sequence[AcceptedLabel]) -> None:
        """Add labels to be accepted; one that is there already stays as it is."""
        key = {"project_id": project_id, "created_at": now()}
        rows = [
            key
            | {name: getattr(label, name) for name in _COPIED}
            | {"result": list(label.result), "sent_at": None}
            for label in labels
        ]
        for start in range(0, len(rows), _MAX_ROWS):
            with self._db.write() as connection:
                statement = insert_into(connection, t.accepted_labels).on_conflict_do_nothing()
                connection.execute(statement, rows[start : start + _MAX_ROWS])

    def count(self, project_id: ProjectId) -> int:
        """Return how many labels are accepted or to be accepted."""
        table = t.accepted_labels
        query = sa.select(sa.func.count()).where(table.c.project_id == project_id)
        return int(self._db.fetch_value(query))

    def all(self, project_id: ProjectId, *, limit: int | None = None) -> list[AcceptedLabel]:
        """Return all labels that are accepted or to be accepted, by task, or the first ones."""
        table = t.accepted_labels
        query = sa.select(table).where(table.c.project_id == project_id)
        query = query.order_by(table.c.task_id).limit(limit)
        return [_label(row) for row in self._db.fetch(query)]

    def send_next(self, project_id: ProjectId, limit: int) -> list[AcceptedLabel]:
        """Return labels to be accepted as they were, and mark them as sent."""
        table = t.accepted_labels
        is_waiting = sa.and_(table.c.project_id == project_id, table.c.annotation_id.is_(None))
        query = sa.select(table).where(is_waiting).order_by(table.c.task_id).limit(limit)
        with self._db.write() as connection:
            rows = connection.execute(query).all()
            sent = sa.update(table).where(is_waiting, table.c.sent_at.is_(None))
            execute_for(
                connection, sent.values(sent_at=now()), table.c.task_id, [r.task_id for r in rows]
            )
        return [_label(row) for row in rows]

    def note_made(self, project_id: ProjectId, annotation_ids: dict[int, int]) -> None:
        """Record the annotations that were made, by task."""
        table = t.accepted_labels
        with self._db.write() as connection:
            for task_id, annotation_id in annotation_ids.items():
                is_row = sa.and_(table.c.project_id == project_id, table.c.task_id == task_id)
                connection.execute(
                    sa.update(table).where(is_row).values(annotation_id=annotation_id)
                )

    def forget(self, project_id: ProjectId, task_ids: Sequence[int]) -> None:
        """Delete labels that were not accepted, or are no longer."""
        table = t.accepted_labels
        statement = sa.delete(table).where(table.c.project_id == project_id)
        with self._db.write() as connection:
            execute_for(connection, statement, table.c.task_id, task_ids)


def _label(row: Any) -> AcceptedLabel:
    return AcceptedLabel(
        **{name: getattr(row, name) for name in _COPIED},
        result=tuple(row.result),
        is_sent=row.sent_at is not None,
    )
