"""Weak labels and predictions: what is still to do, what is done, what Label Studio has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.labels import AbstentionReason, WeakLabel
from backend.domain.projects import Prediction, Progress, Project, Task
from backend.store import progress
from backend.store import tables as t
from backend.store import weak_labels as weak_labels_table
from backend.store.database import Database, in_slices, now, upsert
from backend.store.filters import answering, is_open, of_version

_PASSING = [reason for reason in AbstentionReason if reason.is_transient]
_STORED = (
    sa.select(t.predictions, t.tasks.c.digest)
    .join(
        t.tasks,
        sa.and_(
            t.tasks.c.project_id == t.predictions.c.project_id,
            t.tasks.c.id == t.predictions.c.task_id,
        ),
    )
    .where(
        t.predictions.c.project_id == sa.bindparam("project_id"),
        t.predictions.c.model_version == sa.bindparam("model_version"),
        t.predictions.c.task_id.in_(sa.bindparam("task_ids", expanding=True)),
    )
)
"""Built once: composing it takes longer than running it, and /predict runs it for every task."""


class LabelStore:
    """Weak labels and predictions of all projects, always under one model version."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def next_unlabelled(self, project: Project, limit: int) -> list[Task]:
        """Return the first tasks, by id, that neither people nor annotators have answered."""
        table = t.tasks
        query = (
            sa.select(table.c.id, table.c.data)
            .where(is_open(project))
            .order_by(table.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [Task(id=row[0], data=row[1]) for row in connection.execute(query)]

    def save(
        self,
        project: Project,
        weak_labels: Sequence[WeakLabel],
        predictions: Sequence[Prediction],
    ) -> None:
        """Save a chunk's weak labels and predictions in one transaction.

        A prediction that is there already stays, with its marks: while the worker labels a chunk,
        /predict may label a task of it and give the answer away. If a release has taken over
        meanwhile, the predictions belong to that one.
        """
        moment = now()
        labels = [weak_labels_table.to_row(project, label, moment) for label in weak_labels]
        with self._db.write() as connection:
            served = connection.execute(_served_version(project)).scalar() or project.model_version
            rows = [
                {
                    "project_id": project.id,
                    "model_version": served,
                    "task_id": prediction.task_id,
                    "result": list(prediction.result),
                    "score": prediction.score,
                    "created_at": moment,
                }
                for prediction in predictions
            ]
            upsert(connection, t.weak_labels, labels)
            upsert(connection, t.predictions, rows, keep=("result", "score", "created_at"))

    def replace(
        self, project: Project, annotators: Sequence[str], weak_labels: Sequence[WeakLabel]
    ) -> None:
        """Put weak labels into the place of all those of these annotators, in one transaction."""
        moment = now()
        rows = [weak_labels_table.to_row(project, label, moment) for label in weak_labels]
        with self._db.write() as connection:
            connection.execute(
                sa.delete(t.weak_labels).where(
                    answering(project), t.weak_labels.c.annotator.in_(list(annotators))
                )
            )
            upsert(connection, t.weak_labels, rows)

    def weak_labels(self, project: Project) -> list[WeakLabel]:
        """Return all weak labels of the present version, by task and question."""
        with self._db.read() as connection:
            return weak_labels_table.of_project(connection, project)

    def reopen_passing_abstentions(self, project: Project, older_than_s: float) -> int:
        """Forget abstentions that may go away by themselves; return how many."""
        table = t.weak_labels
        statement = sa.delete(table).where(
            answering(project),
            table.c.abstention.in_(_PASSING),
            table.c.created_at < now() - timedelta(seconds=older_than_s),
        )
        with self._db.write() as connection:
            return connection.execute(statement).rowcount

    def predictions(self, project: Project, tasks: Sequence[Task]) -> dict[int, Prediction]:
        """Return the stored predictions of the project's version for these texts, by task.

        A task whose data has changed since has none.
        """
        digests = {task.id: task.digest() for task in tasks}
        asked = {"project_id": project.id, "model_version": project.model_version}
        found: dict[int, Prediction] = {}
        unpublished: list[int] = []
        with self._db.read() as connection:
            for ids in in_slices(list(digests)):
                for row in connection.execute(_STORED, {**asked, "task_ids": list(ids)}):
                    if row.digest == digests[row.task_id]:
                        found[row.task_id] = _prediction(row)
                        if row.published_at is None:
                            unpublished.append(row.task_id)
        if unpublished:
            self.offer(project, unpublished)
        return found

    def offer(self, project: Project, task_ids: Sequence[int]) -> set[int]:
        """Mark predictions as given to Label Studio by /predict, whose answers it stores.

        Returns the tasks whose prediction nobody has given or sent before: giving another one
        away would make a double. The publisher looks in Label Studio before it imports these.
        """
        table = t.predictions
        ours: set[int] = set()
        with self._db.write() as connection:
            for ids in in_slices(task_ids):
                statement = (
                    sa.update(table)
                    .where(
                        of_version(project, table),
                        table.c.task_id.in_(ids),
                        table.c.offered_at.is_(None),
                        table.c.sent_at.is_(None),
                        table.c.published_at.is_(None),
                    )
                    .values(offered_at=now())
                    .returning(table.c.task_id)
                )
                ours.update(connection.execute(statement).scalars())
        return ours

    def take_unpublished(
        self, project: Project, limit: int, *, patience_s: float
    ) -> tuple[list[Prediction], set[int]]:
        """Take predictions to import; return them, and the tasks to look up in Label Studio first.

        Those that /predict gave away less than `patience_s` ago are left alone: Label Studio
        stores its answers one by one. All are marked as sent in the same transaction, so that
        /predict does not give them away while they are on their way, and so that a kill leaves a
        trace.
        """
        table = t.predictions
        is_settled = table.c.offered_at < now() - timedelta(seconds=patience_s)
        query = (
            _predictions(
                project,
                table.c.published_at.is_(None),
                table.c.refusal.is_(None),
                sa.or_(table.c.offered_at.is_(None), is_settled),
            )
            .order_by(table.c.task_id)
            .limit(limit)
            .with_for_update()
        )
        with self._db.write() as connection:
            rows = connection.execute(query).all()
            for ids in in_slices([row.task_id for row in rows]):
                connection.execute(
                    sa.update(table)
                    .where(of_version(project, table), table.c.task_id.in_(ids))
                    .values(sent_at=now())
                )
        doubtful = {row.task_id for row in rows if row.offered_at or row.sent_at}
        return [_prediction(row) for row in rows], doubtful

    def note_published(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio has these predictions."""
        self._mark(project, task_ids, published_at=now(), refusal=None)

    def note_unpublished(self, project: Project, task_ids: Sequence[int]) -> None:
        """Record that Label Studio does not have these predictions (any more)."""
        self._mark(project, task_ids, published_at=None, offered_at=None, sent_at=None)

    def note_refused(self, project: Project, task_ids: Sequence[int], why: str) -> None:
        """Record that Label Studio does not take these predictions; they are not sent again."""
        self._mark(project, task_ids, refusal=why)

    def _mark(self, project: Project, task_ids: Sequence[int], **values: Any) -> None:
        table = t.predictions
        with self._db.write() as connection:
            for ids in in_slices(task_ids):
                connection.execute(
                    sa.update(table).where(of_version(project, table), table.c.task_id.in_(ids)),
                    values,
                )

    def publication(self, project: Project, task_ids: Sequence[int]) -> dict[int, bool]:
        """Return, for those of the tasks that have a prediction, whether it is published."""
        table = t.predictions
        found: dict[int, bool] = {}
        with self._db.read() as connection:
            for ids in in_slices(task_ids):
                query = sa.select(table.c.task_id, table.c.published_at.is_not(None)).where(
                    of_version(project, table), table.c.task_id.in_(ids)
                )
                found |= {
                    task_id: bool(is_published)
                    for task_id, is_published in connection.execute(query)
                }
        return found

    def has_published(self, project: Project) -> bool:
        """Return whether Label Studio has any prediction of the present version."""
        table = t.predictions
        query = sa.select(table.c.task_id).where(
            of_version(project, table), table.c.published_at.is_not(None)
        )
        with self._db.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def has_unpublished(self, project: Project) -> bool:
        """Return whether Label Studio lacks a prediction of this version that it would take."""
        table = t.predictions
        query = sa.select(table.c.task_id).where(
            of_version(project, table), table.c.published_at.is_(None), table.c.refusal.is_(None)
        )
        with self._db.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def n_published(self, project: Project) -> int:
        """Return how many predictions Label Studio has of all the project's releases."""
        table = t.predictions
        query = (
            sa.select(sa.func.count())
            .select_from(table)
            .where(table.c.project_id == project.id, table.c.published_at.is_not(None))
        )
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def progress(self, project: Project) -> Progress:
        """Return how far the project's pre-annotation is."""
        with self._db.read() as connection:
            return progress.of_project(connection, project)


def _served_version(project: Project) -> sa.Select[Any]:
    """The release that answers the project's question now."""
    return sa.select(t.projects.c.model_version).where(
        t.projects.c.id == project.id,
        t.projects.c.question_version == project.question_version,
    )


def _predictions(project: Project, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(t.predictions).where(of_version(project, t.predictions), *conditions)


def _prediction(row: Any) -> Prediction:
    return Prediction(
        task_id=row.task_id,
        model_version=row.model_version,
        result=tuple(row.result),
        score=row.score,
    )
