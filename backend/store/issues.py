"""Store which probable label errors people dismissed, and tell which errors still stand."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store import tables as t
from backend.store.database import Repository, execute_for, insert_into, now
from backend.store.tables import existing, human_answers


class Dismissal(NamedTuple):
    """Who said that a label is right, and when."""

    by: str
    at: datetime


class IssueStore(Repository):
    """Store dismissals by an issue's key; every write is safe to repeat."""

    def dismiss(self, project_id: ProjectId, task_id: int, key: str, by: str) -> bool:
        """Dismiss an issue with the task's present text; False where the task is gone."""
        table, tasks = t.dismissed_issues, t.tasks
        digest = sa.select(tasks.c.digest).where(existing(tasks, project_id), tasks.c.id == task_id)
        with self._db.write() as connection:
            found = connection.execute(digest).scalar()
            if found is None:
                return False
            row = {"project_id": project_id, "key": key, "task_id": task_id, "digest": found}
            statement = insert_into(connection, table).values(row | {"by": by, "at": now()})
            changed = {name: statement.excluded[name] for name in ("digest", "by", "at")}
            is_outdated = table.c.digest != statement.excluded.digest
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["project_id", "key"], set_=changed, where=is_outdated
                )
            )
            return True

    def undo(self, project_id: ProjectId, key: str) -> bool:
        """Forget a dismissal; False where there was none."""
        table = t.dismissed_issues
        is_named = sa.and_(table.c.project_id == project_id, table.c.key == key)
        return bool(self._db.execute(sa.delete(table).where(is_named)))

    def dismissed(self, project_id: ProjectId) -> dict[str, Dismissal]:
        """Return the dismissals by key, without those of texts that have changed since."""
        table, tasks = t.dismissed_issues, t.tasks
        query = sa.select(table.c.key, table.c.by, table.c.at).where(
            table.c.project_id == project_id,
            existing(tasks, project_id),
            tasks.c.id == table.c.task_id,
            tasks.c.digest == table.c.digest,
        )
        return {row[0]: Dismissal(row[1], row[2]) for row in self._db.fetch(query)}

    def standing(
        self, project_id: ProjectId, task_ids: Collection[int], since: datetime
    ) -> set[int]:
        """Return which tasks exist and have no answer by people that is newer than `since`.

        A label that was accepted as an annotation is nobody's answer.
        """
        tasks, labels = t.tasks, t.human_labels
        is_answered = sa.exists().where(
            human_answers(project_id), labels.c.task_id == tasks.c.id, labels.c.updated_at > since
        )
        query = sa.select(tasks.c.id).where(existing(tasks, project_id), ~is_answered)
        with self._db.read() as connection:
            rows = execute_for(connection, query, tasks.c.id, sorted(set(task_ids)))
        return {row.id for row in rows}
