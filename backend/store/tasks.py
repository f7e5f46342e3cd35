"""Tasks and human labels, kept the same whatever order Label Studio's news comes in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from backend.domain.labels import HumanLabel
from backend.domain.projects import Event, ProjectId, Task
from backend.store import tables as t
from backend.store.database import Database, in_slices, insert_new, now, upsert
from backend.store.jobs import request_job


class TaskStore:
    """Tasks and human labels of all projects.

    Deletions leave a marker, so that a creation that arrives late does not bring the row back:
    Label Studio never uses an id twice.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def apply(self, project_id: ProjectId, event: Event, job: tuple[str, str] | None) -> bool:
        """Apply what Label Studio reported, once; return whether it was news.

        `job` is the kind and reason of the job that the news calls for; it is asked for in the
        same transaction, so that no news is ever kept without its work.
        """
        with self._db.write() as connection:
            if not _is_news(connection, project_id, event):
                return False
            _save_tasks(connection, project_id, event.tasks)
            _mark_tasks_deleted(connection, project_id, event.deleted_task_ids)
            _save_human_labels(connection, project_id, event.annotations)
            _mark_labels_deleted(connection, project_id, event.deleted_annotation_ids)
            if job is not None:
                request_job(connection, project_id, *job)
            return True

    def save(self, project_id: ProjectId, tasks: Sequence[Task]) -> None:
        """Save tasks as they are now."""
        with self._db.write() as connection:
            _save_tasks(connection, project_id, tasks)

    def save_listing(
        self, project_id: ProjectId, tasks: Sequence[Task], started_at: datetime
    ) -> list[int]:
        """Save a page of a full listing; return the tasks whose data has changed since.

        Their weak labels and predictions are dropped: they answer another text. What the listing
        shows is there, whatever was reported as deleted before it was started.
        """
        with self._db.write() as connection:
            _revive(connection, project_id, tasks, started_at)
            known = _digests(connection, project_id, [task.id for task in tasks])
            changed = [
                task.id for task in tasks if known.get(task.id, task.digest()) != task.digest()
            ]
            _save_tasks(connection, project_id, tasks)
            for table in (t.weak_labels, t.predictions):
                for ids in in_slices(changed):
                    connection.execute(
                        sa.delete(table).where(
                            table.c.project_id == project_id, table.c.task_id.in_(ids)
                        )
                    )
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
        """Mark as deleted what a full listing did not show; return how many tasks and labels.

        Rows newer than the listing's start are left alone.
        """
        tasks, labels = t.tasks, t.human_labels
        with self._db.write() as connection:
            stored_tasks = connection.execute(
                sa.select(tasks.c.id).where(
                    tasks.c.project_id == project_id,
                    tasks.c.deleted_at.is_(None),
                    tasks.c.created_at < started_at,
                )
            ).scalars()
            gone_tasks = sorted(set(stored_tasks) - task_ids)
            stored_labels = connection.execute(
                sa.select(labels.c.annotation_id).where(
                    labels.c.project_id == project_id,
                    labels.c.deleted_at.is_(None),
                    labels.c.updated_at < started_at,
                )
            ).scalars()
            gone_labels = sorted(set(stored_labels) - annotation_ids)
            _mark_tasks_deleted(connection, project_id, gone_tasks)
            _mark_labels_deleted(connection, project_id, gone_labels)
            return len(gone_tasks), len(gone_labels)

    def counts(self, project_id: ProjectId) -> tuple[int, int]:
        """Return how many tasks and how many annotations (skipped ones too) are known."""
        queries = [
            sa.select(sa.func.count())
            .select_from(table)
            .where(table.c.project_id == project_id, table.c.deleted_at.is_(None))
            for table in (t.tasks, t.human_labels)
        ]
        with self._db.read() as connection:
            n_tasks, n_labels = (connection.execute(query).scalar_one() for query in queries)
            return n_tasks, n_labels

    def human_labels(self, project_id: ProjectId) -> list[HumanLabel]:
        """Return all labels by people, by annotation id; a skipped task is not a label."""
        table = t.human_labels
        query = (
            sa.select(table)
            .where(
                table.c.project_id == project_id,
                table.c.deleted_at.is_(None),
                table.c.was_cancelled.is_(False),
            )
            .order_by(table.c.annotation_id)
        )
        with self._db.read() as connection:
            return [_human_label(row) for row in connection.execute(query).mappings()]

    def ids(self, project_id: ProjectId) -> list[int]:
        """Return the ids of all tasks that are there, ascending."""
        table = t.tasks
        query = (
            sa.select(table.c.id)
            .where(table.c.project_id == project_id, table.c.deleted_at.is_(None))
            .order_by(table.c.id)
        )
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def get(self, project_id: ProjectId, task_ids: Sequence[int]) -> list[Task]:
        """Return tasks with their data, by id; those that are gone are left out."""
        table = t.tasks
        found: list[Task] = []
        with self._db.read() as connection:
            for ids in in_slices(task_ids):
                query = sa.select(table.c.id, table.c.data).where(
                    table.c.project_id == project_id,
                    table.c.deleted_at.is_(None),
                    table.c.id.in_(ids),
                )
                found += [Task(row.id, row.data) for row in connection.execute(query)]
        return sorted(found, key=lambda task: task.id)

    def events(self, project_id: ProjectId) -> dict[str, int]:
        """Return how many events of each action were taken."""
        query = (
            sa.select(t.events.c.action, sa.func.count())
            .where(t.events.c.project_id == project_id)
            .group_by(t.events.c.action)
        )
        with self._db.read() as connection:
            return {action: n for action, n in connection.execute(query)}


def _is_news(connection: sa.Connection, project_id: ProjectId, event: Event) -> bool:
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


def _digests(
    connection: sa.Connection, project_id: ProjectId, task_ids: Sequence[int]
) -> dict[int, str]:
    table = t.tasks
    found: dict[int, str] = {}
    for ids in in_slices(task_ids):
        query = sa.select(table.c.id, table.c.digest).where(
            table.c.project_id == project_id, table.c.id.in_(ids)
        )
        found.update({task_id: digest for task_id, digest in connection.execute(query)})
    return found


def _save_tasks(connection: sa.Connection, project_id: ProjectId, tasks: Sequence[Task]) -> None:
    rows = [
        {
            "project_id": project_id,
            "id": task.id,
            "data": dict(task.data),
            "digest": task.digest(),
            "created_at": now(),
        }
        for task in tasks
    ]
    upsert(connection, t.tasks, rows, keep=("created_at",))


def _save_human_labels(
    connection: sa.Connection, project_id: ProjectId, labels: Sequence[HumanLabel]
) -> None:
    rows = [
        {
            "project_id": project_id,
            "annotation_id": label.annotation_id,
            "task_id": label.task_id,
            "annotator_id": label.annotator_id,
            "result": list(label.result),
            "was_cancelled": label.was_cancelled,
            "is_ground_truth": label.is_ground_truth,
            "is_copied": label.is_copied,
            "updated_at": label.updated_at,
        }
        for label in labels
    ]
    is_not_older = t.human_labels.c.updated_at <= sa.literal_column("excluded.updated_at")
    upsert(connection, t.human_labels, rows, where=is_not_older)


def _revive(
    connection: sa.Connection, project_id: ProjectId, tasks: Sequence[Task], moment: datetime
) -> None:
    labels = [label.annotation_id for task in tasks for label in task.annotations or ()]
    for column, listed in (
        (t.tasks.c.id, [task.id for task in tasks]),
        (t.human_labels.c.annotation_id, labels),
    ):
        table = column.table
        for ids in in_slices(listed):
            connection.execute(
                sa.update(table)
                .where(
                    table.c.project_id == project_id, column.in_(ids), table.c.deleted_at < moment
                )
                .values(deleted_at=None)
            )


def _mark_tasks_deleted(
    connection: sa.Connection, project_id: ProjectId, task_ids: Sequence[int]
) -> None:
    table = t.tasks
    rows = [
        {
            "project_id": project_id,
            "id": task_id,
            "data": {},
            "digest": "",
            "created_at": now(),
            "deleted_at": now(),
        }
        for task_id in task_ids
    ]
    upsert(connection, table, rows, keep=("created_at",))
    for ids in in_slices(task_ids):
        for child in (t.weak_labels, t.predictions):
            connection.execute(
                sa.delete(child).where(child.c.project_id == project_id, child.c.task_id.in_(ids))
            )
        connection.execute(
            sa.update(t.human_labels)
            .where(
                t.human_labels.c.project_id == project_id,
                t.human_labels.c.task_id.in_(ids),
                t.human_labels.c.deleted_at.is_(None),
            )
            .values(deleted_at=now())
        )


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


def _human_label(row: Mapping[Any, Any]) -> HumanLabel:
    return HumanLabel(
        annotation_id=row["annotation_id"],
        task_id=row["task_id"],
        annotator_id=row["annotator_id"],
        result=tuple(row["result"]),
        was_cancelled=row["was_cancelled"],
        is_ground_truth=row["is_ground_truth"],
        updated_at=row["updated_at"],
        is_copied=row["is_copied"],
    )
