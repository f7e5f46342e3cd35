"""Store tasks and human labels, independent of the order in which events arrive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.labels import HumanLabel
from backend.domain.projects import Event, JobKind, ProjectId, Task
from backend.store import tables as t
from backend.store.database import Repository, execute_for, insert_into, insert_new, now, upsert
from backend.store.jobs import request_job
from backend.store.labels import changed_tasks
from backend.store.tables import existing, human_answers, submitted

_MAX_AHEAD = timedelta(days=1)
_LABEL_FIELDS = [field.name for field in fields(HumanLabel)]


class TaskStore(Repository):
    """Store tasks and human labels of all projects.

    A deleted row stays with its `deleted_at`, so that a creation event that arrives late does not
    restore it: Label Studio never uses an id twice.
    """

    def apply(self, project_id: ProjectId, event: Event, job: tuple[str, str] | None) -> bool:
        """Apply an event of Label Studio once; return whether it was new.

        `job` is the kind and reason of the job that the event requires; it is requested in the
        same transaction, so that no event is stored without its job.
        """
        with self._db.write() as connection:
            if not _is_new(connection, project_id, event):
                return False
            _add_tasks(connection, project_id, event.tasks)
            if changed_tasks(connection, project_id, event.tasks):
                request_job(connection, project_id, JobKind.PRELABEL, "a text has changed")
            _mark_tasks_deleted(connection, project_id, event.deleted_task_ids)
            _save_human_labels(connection, project_id, event.annotations)
            _mark_labels_deleted(connection, project_id, event.deleted_annotation_ids)
            if job is not None:
                request_job(connection, project_id, *job)
            return True

    def save(self, project_id: ProjectId, tasks: Sequence[Task]) -> set[int]:
        """Insert tasks that are new; return the known ones that have other data by now.

        Those stay as they are: only a listing, which shows what Label Studio holds as their
        predictions, can replace text and labels together.
        """
        with self._db.write() as connection:
            _add_tasks(connection, project_id, tasks)
            return changed_tasks(connection, project_id, tasks)

    def save_listing(
        self, project_id: ProjectId, tasks: Sequence[Task], started_at: datetime
    ) -> list[int]:
        """Save a page of a full listing; return the tasks whose data has changed since.

        Their weak labels and predictions are deleted: they answer another text. Listed rows that
        were marked as deleted before the listing started are restored.
        """
        with self._db.write() as connection:
            changed = sorted(changed_tasks(connection, project_id, tasks, is_locked=True))
            _restore(connection, project_id, tasks, started_at)
            upsert(connection, t.tasks, _rows(project_id, tasks), keep=("created_at",))
            _delete_labels(connection, project_id, changed)
            for task in tasks:
                _save_human_labels(connection, project_id, task.annotations or ())
            return changed

    def close_listing(
        self,
        project_id: ProjectId,
        started_at: datetime,
        task_ids: set[int],
        annotation_ids: set[int],
    ) -> tuple[int, int]:
        """Mark as deleted what a full listing did not show; return how many tasks and labels."""
        with self._db.write() as connection:
            gone = self.unlisted(project_id, started_at, task_ids, annotation_ids)
            _mark_tasks_deleted(connection, project_id, gone[0])
            _mark_labels_deleted(connection, project_id, gone[1])
            return len(gone[0]), len(gone[1])

    def unlisted(
        self,
        project_id: ProjectId,
        started_at: datetime,
        task_ids: set[int],
        annotation_ids: set[int],
    ) -> tuple[list[int], list[int]]:
        """Return the ids of stored tasks and labels that a full listing did not show.

        Rows newer than the listing's start are left out.
        """
        tasks, labels = t.tasks, t.human_labels
        stored_tasks = sa.select(tasks.c.id).where(
            existing(tasks, project_id), tasks.c.created_at < started_at
        )
        stored_labels = sa.select(labels.c.annotation_id).where(
            existing(labels, project_id),
            sa.or_(labels.c.updated_at < started_at, labels.c.updated_at > now() + _MAX_AHEAD),
        )
        gone_tasks = set(self._db.fetch_column(stored_tasks)) - task_ids
        gone_labels = set(self._db.fetch_column(stored_labels)) - annotation_ids
        return sorted(gone_tasks), sorted(gone_labels)

    def counts(self, project_id: ProjectId) -> tuple[int, int]:
        """Return how many tasks and how many annotations (skipped ones too) exist."""
        counts = (
            sa.select(sa.func.count()).where(existing(table, project_id)).scalar_subquery()
            for table in (t.tasks, t.human_labels)
        )
        (row,) = self._db.fetch(sa.select(*counts))
        return row[0], row[1]

    def human_labels(self, project_id: ProjectId) -> list[HumanLabel]:
        """Return all annotations, copies of predictions too, by id; a skipped task has none."""
        query = sa.select(*(t.human_labels.c[name] for name in _LABEL_FIELDS))
        rows = self._db.fetch(
            query.where(submitted(project_id)).order_by(t.human_labels.c.annotation_id)
        )
        return [HumanLabel(**{**row._mapping, "result": tuple(row.result)}) for row in rows]

    def answered_ids(self, project_id: ProjectId) -> list[int]:
        """Return the ids of the tasks that people have answered."""
        query = sa.select(t.human_labels.c.task_id).distinct().where(human_answers(project_id))
        return self._db.fetch_column(query)

    def answer_times(self, project_id: ProjectId, limit: int) -> list[tuple[int | None, datetime]]:
        """Return who answered, and when, of the last answers by people, newest first."""
        table = t.human_labels
        query = sa.select(table.c.annotator_id, table.c.updated_at)
        query = query.where(human_answers(project_id)).order_by(table.c.updated_at.desc())
        return [(row[0], row[1]) for row in self._db.fetch(query.limit(limit))]

    def skipped_ids(self, project_id: ProjectId) -> set[int]:
        """Return the tasks that somebody skipped."""
        table = t.human_labels
        query = sa.select(table.c.task_id).where(existing(table, project_id))
        return set(self._db.fetch_column(query.where(table.c.was_cancelled.is_(True))))

    def ids(self, project_id: ProjectId) -> list[int]:
        """Return the ids of all tasks that exist, ascending."""
        table = t.tasks
        query = sa.select(table.c.id).where(existing(table, project_id))
        return self._db.fetch_column(query.order_by(table.c.id))

    def get(self, project_id: ProjectId, task_ids: Sequence[int]) -> list[Task]:
        """Return tasks with their data, by id; deleted ones are left out."""
        table = t.tasks
        query = sa.select(table.c.id, table.c.data).where(existing(table, project_id))
        with self._db.read() as connection:
            rows = execute_for(connection, query, table.c.id, task_ids)
        return sorted((Task(row.id, row.data) for row in rows), key=lambda task: task.id)

    def events(self, project_id: ProjectId) -> dict[str, int]:
        """Return the number of stored events by action."""
        table = t.events
        query = sa.select(table.c.action, sa.func.count()).where(table.c.project_id == project_id)
        return {action: n for action, n in self._db.fetch(query.group_by(table.c.action))}


def _is_new(connection: sa.Connection, project_id: ProjectId, event: Event) -> bool:
    content = [
        event.action,
        [(task.id, task.digest()) for task in event.tasks],
        [(label.annotation_id, str(label.updated_at)) for label in event.annotations],
        list(event.deleted_annotation_ids),
        list(event.deleted_task_ids),
    ]
    if not any(content[1:]):
        content.append(str(now()))
    row = {
        "project_id": project_id,
        "key": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "action": event.action,
        "received_at": now(),
    }
    return insert_new(connection, t.events, row)


def _add_tasks(connection: sa.Connection, project_id: ProjectId, tasks: Sequence[Task]) -> None:
    rows = _rows(project_id, tasks)
    upsert(connection, t.tasks, rows, keep=("data", "digest", "created_at"))


def _rows(project_id: ProjectId, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [
        {
            "project_id": project_id,
            "id": task.id,
            "data": dict(task.data),
            "digest": task.digest(),
            "created_at": now(),
        }
        for task in sorted(tasks, key=lambda task: task.id)  # as all who lock them
    ]


def _save_human_labels(
    connection: sa.Connection, project_id: ProjectId, labels: Sequence[HumanLabel]
) -> None:
    """Save each label's newest state; one of over a day from now is taken as of now.

    A clock that is wrong by years would otherwise keep its label from ever changing again.
    """
    moment = now()
    latest = moment + _MAX_AHEAD
    rows = [
        {name: getattr(label, name) for name in _LABEL_FIELDS}
        | {
            "project_id": project_id,
            "result": list(label.result),
            "updated_at": label.updated_at if label.updated_at <= latest else moment,
        }
        for label in labels
    ]
    if rows:
        statement = insert_into(connection, t.human_labels)
        new = statement.excluded
        newer_wins = statement.on_conflict_do_update(
            index_elements=["project_id", "annotation_id"],
            set_={name: new[name] for name in _LABEL_FIELDS},
            where=sa.or_(
                t.human_labels.c.updated_at <= new.updated_at,
                t.human_labels.c.updated_at > latest,
            ),
        )
        connection.execute(newer_wins, rows)


def _restore(
    connection: sa.Connection, project_id: ProjectId, tasks: Sequence[Task], moment: datetime
) -> None:
    labels = [label.annotation_id for task in tasks for label in task.annotations or ()]
    for column, listed in (
        (t.tasks.c.id, [task.id for task in tasks]),
        (t.human_labels.c.annotation_id, labels),
    ):
        table = column.table
        is_restored = sa.and_(table.c.project_id == project_id, table.c.deleted_at < moment)
        statement = sa.update(table).where(is_restored).values(deleted_at=None)
        execute_for(connection, statement, column, listed)


def _delete_labels(
    connection: sa.Connection, project_id: ProjectId, task_ids: Sequence[int]
) -> None:
    """Delete the weak labels and predictions of tasks."""
    for table in (t.weak_labels, t.predictions):
        statement = sa.delete(table).where(table.c.project_id == project_id)
        execute_for(connection, statement, table.c.task_id, task_ids)


def _mark_tasks_deleted(
    connection: sa.Connection, project_id: ProjectId, task_ids: Sequence[int]
) -> None:
    rows = [
        {
            "project_id": project_id,
            "id": task_id,
            "data": {},
            "digest": "",
            "created_at": now(),
            "deleted_at": now(),
        }
        for task_id in sorted(task_ids)
    ]
    upsert(connection, t.tasks, rows, keep=("created_at",))
    _delete_labels(connection, project_id, task_ids)
    labels = t.human_labels
    statement = sa.update(labels).where(existing(labels, project_id)).values(deleted_at=now())
    execute_for(connection, statement, labels.c.task_id, task_ids)


def _mark_labels_deleted(
    connection: sa.Connection, project_id: ProjectId, annotation_ids: Sequence[int]
) -> None:
    rows = [
        {
            "project_id": project_id,
            "annotation_id": annotation_id,
            "result": [],
            "updated_at": now(),
            "deleted_at": now(),
        }
        for annotation_id in annotation_ids
    ]
    upsert(connection, t.human_labels, rows, keep=("result", "updated_at"))
