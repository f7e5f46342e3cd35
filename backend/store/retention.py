"""Delete what is past its time, and tell how much space the tables take."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import Project, ProjectId
from backend.errors import StoreUnavailable
from backend.store import tables as t
from backend.store.database import Repository, now
from backend.store.projects import EXPIRED, RELEASED, WAS_FOUND

_MAX_ROWS = 2_000
_MIN_STRAY_AGE = timedelta(days=1)
_LARGE = (
    (t.queue_places, t.queue_places.c.task_id),
    (t.accepted_labels, t.accepted_labels.c.task_id),
    (t.predictions, t.predictions.c.task_id),
    (t.weak_labels, t.weak_labels.c.task_id),
    (t.human_labels, t.human_labels.c.annotation_id),
    (t.tasks, t.tasks.c.id),
    (t.events, t.events.c.id),
)
"""Tables with a row per task or label, and the column by which they are deleted in slices. Events
come last: by them the rest of a project is found whose deletion was interrupted.
"""
_SMALL = (
    *(t.model_versions, t.rounds, t.llm_usage, t.project_state, t.job_requests, t.problems),
    t.dismissed_issues,
)


class RetentionStore(Repository):
    """Deletes in slices of a few thousand rows, so that no webhook waits for a long transaction."""

    def forget_events(self, days: int) -> int:
        """Delete events, and marks of deleted tasks and labels, that are older; return how many.

        The marks keep an event of creation that comes late from restoring a deleted row.
        """
        oldest = now() - timedelta(days=days)
        return sum(
            self._delete(table, key, column < oldest)
            for table, key, column in (
                (t.events, t.events.c.id, t.events.c.received_at),
                (t.human_labels, t.human_labels.c.annotation_id, t.human_labels.c.deleted_at),
                (t.tasks, t.tasks.c.id, t.tasks.c.deleted_at),
            )
        )

    def prune_releases(self, project: Project, keep: int, *, even_unwithdrawn: bool) -> list[str]:
        """Delete all but the newest `keep` releases, and the labels of questions without any.

        The served release and drafts stay in any case. So does one whose predictions are still to
        be withdrawn from Label Studio, unless `even_unwithdrawn`.

        Returns:
            The names of the deleted releases.
        """
        versions = t.model_versions
        of_project = versions.c.project_id == project.id
        query = sa.select(versions).where(of_project).order_by(versions.c.number.desc())
        rows = self._db.fetch(query)
        released = [row for row in rows if row.state == RELEASED]
        kept = {row.name for row in released[:keep]} | {project.model_version}
        old = [
            row.name
            for row in released[keep:]
            if row.name not in kept and (even_unwithdrawn or row.withdrawn_at is not None)
        ]
        # in one statement: from here on no rollback asks for them, even if this is interrupted
        served = sa.select(t.projects.c.model_version).where(t.projects.c.id == project.id)
        is_old = sa.and_(
            of_project,
            versions.c.name.in_(old),
            versions.c.state == RELEASED,
            versions.c.name != served.scalar_subquery(),
        )
        self._db.execute(sa.update(versions).where(is_old).values(state=EXPIRED))
        is_gone = sa.and_(of_project, versions.c.state == EXPIRED)
        gone: list[str] = self._db.fetch_column(sa.select(versions.c.name).where(is_gone))
        for name in gone:
            self._delete_release(project.id, name)
        self._delete_former_labels(project)
        return gone

    def disconnected_for(self, days: float) -> list[ProjectId]:
        """Return the projects that Label Studio has not used for so long, by id.

        Those that it never showed, and for which nothing was predicted, are due after a day.
        """
        table, moment = t.projects, now()
        has_predictions = sa.exists().where(t.predictions.c.project_id == table.c.id)
        is_old = sa.or_(
            table.c.disconnected_at <= moment - timedelta(days=days),
            sa.and_(
                ~WAS_FOUND, ~has_predictions, table.c.disconnected_at <= moment - _MIN_STRAY_AGE
            ),
        )
        query = sa.select(table.c.id).where(table.c.is_connected.is_(False), is_old)
        return [ProjectId(found) for found in self._db.fetch_column(query.order_by(table.c.id))]

    def strays(self) -> list[ProjectId]:
        """Return ids that events named a day ago or earlier, and that are no project's."""
        table = t.events
        is_stray = ~sa.exists().where(t.projects.c.id == table.c.project_id)
        query = sa.select(table.c.project_id).where(is_stray).group_by(table.c.project_id)
        query = query.having(sa.func.max(table.c.received_at) < now() - _MIN_STRAY_AGE)
        return [ProjectId(found) for found in self._db.fetch_column(query)]

    def delete_project(self, project_id: ProjectId) -> bool:
        """Delete all that is stored of a project; False if Label Studio uses it."""
        table = t.projects
        is_project = table.c.id == project_id
        with self._db.write() as connection:
            connection.execute(sa.delete(table).where(is_project, table.c.is_connected.is_(False)))
            if connection.execute(sa.select(table.c.id).where(is_project)).first() is not None:
                return False
            for small in _SMALL:
                connection.execute(sa.delete(small).where(small.c.project_id == project_id))
        for large, key in _LARGE:
            self._delete(large, key, large.c.project_id == project_id)
        return True

    def table_sizes(self) -> dict[str, int]:
        """Return the bytes of each table with its indexes; none where SQLite does not tell."""
        if self._db.is_sqlite:
            try:
                rows = self._db.fetch(sa.text(_SQLITE_SIZES))
            except StoreUnavailable:  # built without the table of pages
                return {}
            return {name: int(size) for name, size in rows}
        names = [table.name for table in t.metadata.sorted_tables]
        sizes = (sa.func.pg_total_relation_size(f"public.{name}").label(name) for name in names)
        (row,) = self._db.fetch(sa.select(*sizes))
        return {name: int(size) for name, size in row._mapping.items()}

    def compact(self) -> None:
        """Give the space of deleted rows back to the disk, unnoticed by writers."""
        self._db.compact(is_partial=True)

    def _delete_release(self, project_id: ProjectId, name: str) -> None:
        for table in (t.queue_places, t.predictions):
            is_part = sa.and_(table.c.project_id == project_id, table.c.model_version == name)
            self._delete(table, table.c.task_id, is_part)
        versions = t.model_versions
        is_release = sa.and_(versions.c.project_id == project_id, versions.c.name == name)
        self._db.execute(sa.delete(versions).where(is_release))

    def _delete_former_labels(self, project: Project) -> None:
        """Delete weak labels whose question neither the project nor any of its releases asks."""
        table, versions = t.weak_labels, t.model_versions
        of_project = table.c.project_id == project.id
        asked = sa.select(versions.c.question_version).where(versions.c.project_id == project.id)
        is_former = sa.and_(
            of_project,
            table.c.question_version != project.question_version,
            table.c.question_version.not_in(asked),
        )
        self._delete(table, table.c.task_id, is_former)

    def _delete(
        self, table: sa.Table, key: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]
    ) -> int:
        """Delete rows in slices by the values of one of their columns; return how many."""
        part = sa.select(key).where(condition).limit(_MAX_ROWS)
        statement = sa.delete(table).where(condition, key.in_(part))
        n_deleted = 0
        while n := self._db.execute(statement):
            n_deleted += n
        return n_deleted


_SQLITE_SIZES = """
SELECT owner.tbl_name, sum(page.pgsize) FROM dbstat AS page
JOIN sqlite_master AS owner ON owner.name = page.name GROUP BY owner.tbl_name
"""
