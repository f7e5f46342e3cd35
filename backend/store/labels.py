"""Store weak labels and predictions, and count how many there are and Label Studio has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.chunks import ALL_TASKS, Chunk
from backend.domain.labels import (
    AbstentionReason,
    AnnotatorKind,
    LabelOrigin,
    WeakLabel,
    region_values,
)
from backend.domain.projects import Prediction, Progress, Project, Task
from backend.store import tables as t
from backend.store.database import Repository, execute_for, now, upsert
from backend.store.label_rows import weak_label_of, weak_label_row
from backend.store.tables import (
    by_llm,
    existing,
    human_answers,
    in_chunk,
    is_unlabeled,
    of_question,
    of_version,
)

_RATE_WINDOW = timedelta(seconds=60)
_FIRST_KINDS = [AnnotatorKind.LLM, AnnotatorKind.SIMILARITY]
_TRANSIENT = [reason for reason in AbstentionReason if reason.is_transient]
_NOT_ASKED = (AbstentionReason.NOT_SAMPLED, AbstentionReason.NOT_SHOWN)


class LabelStore(Repository):
    """Store weak labels and predictions of all projects, always under one model version."""

    def unlabeled_ids(self, project: Project, limit: int, *, after: int = 0) -> list[int]:
        """Return the first ids above `after` of tasks that neither people nor the LLM answered."""
        column = t.tasks.c.id
        query = sa.select(column).where(is_unlabeled(project), column > after)
        return self._db.fetch_column(query.order_by(column).limit(limit))

    def last_unlabeled(self, project: Project) -> int | None:
        """Return the highest id of an unlabeled task, None without one."""
        last: int | None = self._db.fetch_value(
            sa.select(sa.func.max(t.tasks.c.id)).where(is_unlabeled(project))
        )
        return last

    def unlabeled(self, project: Project, chunk: Chunk) -> list[Task]:
        """Return the tasks of a chunk, by id, that neither people nor the LLM have answered."""
        table = t.tasks
        query = sa.select(table.c.id, table.c.data).where(
            is_unlabeled(project), in_chunk(table.c.id, chunk)
        )
        return [Task(row.id, row.data) for row in self._db.fetch(query.order_by(table.c.id))]

    def next_unlabeled(self, project: Project, limit: int) -> list[int]:
        """Return the ids of the queue's first tasks that neither people nor the LLM answered.

        Those without a place follow, by id.
        """
        table, places = t.tasks, t.queue_places
        is_placed = sa.and_(of_version(project, places), places.c.task_id == table.c.id)
        query = sa.select(table.c.id).where(is_unlabeled(project))
        query = query.outerjoin_from(table, places, is_placed)
        query = query.order_by(places.c.position.nulls_last(), table.c.id)
        return self._db.fetch_column(query.limit(limit))

    def save(
        self,
        project: Project,
        weak_labels: Sequence[WeakLabel],
        predictions: Sequence[Prediction],
        *,
        tasks: Sequence[Task] = (),
        is_anew: bool = False,
    ) -> int:
        """Save a chunk's weak labels and predictions in one transaction.

        A stored prediction stays, with its marks: while the worker labels a chunk, /predict may
        label a task of it and return the answer. If another release is served meanwhile, the
        predictions belong to that one.

        Args:
            tasks: the tasks as they were labeled: of those whose data is another one by now,
                nothing is saved.
            is_anew: whether earlier labels by LLMs and by similarity go.

        Returns:
            How many stored predictions say something else than the new ones, and so are outdated.
        """
        moment, table = now(), t.projects
        serving = sa.select(table.c.model_version).where(
            table.c.id == project.id, table.c.question_version == project.question_version
        )
        serving = serving.with_for_update(read=True)  # a release takes over before this, or after
        # in one order for all writers, so that no two wait for each other
        weak = sorted(weak_labels, key=lambda w: (w.example_id, w.question, w.annotator))
        predicted = sorted(predictions, key=lambda p: p.task_id)
        with self._db.write() as connection:
            gone = changed_tasks(connection, project.id, tasks, is_locked=True)
            labels = [weak_label_row(project, w, moment) for w in weak if w.example_id not in gone]
            kept = [p for p in predicted if p.task_id not in gone]
            served = connection.execute(serving).scalar() or project.model_version
            n_outdated = _count_outdated(connection, replace(project, model_version=served), kept)
            rows = [prediction_row(project.id, served, p, moment) for p in kept]
            if is_anew:
                ids = [task.id for task in tasks if task.id not in gone]
                is_first = t.weak_labels.c.annotator_kind.in_(_FIRST_KINDS)
                statement = sa.delete(t.weak_labels).where(of_question(project, t.weak_labels))
                execute_for(connection, statement.where(is_first), t.weak_labels.c.task_id, ids)
            upsert(connection, t.weak_labels, labels)
            upsert(connection, t.predictions, rows, keep=("result", "score", "created_at"))
            return n_outdated

    def replace(
        self,
        project: Project,
        question: str,
        annotators: Sequence[str],
        weak_labels: Sequence[WeakLabel],
    ) -> None:
        """Replace all weak labels of these annotators on a question, in one transaction."""
        table, moment = t.weak_labels, now()
        is_replaced = sa.and_(
            of_question(project, table),
            table.c.question == question,
            table.c.annotator.in_(list(annotators)),
        )
        with self._db.write() as connection:
            connection.execute(sa.delete(table).where(is_replaced))
            upsert(
                connection, table, [weak_label_row(project, label, moment) for label in weak_labels]
            )

    def weak_labels(self, project: Project, *, annotator: str = "") -> list[WeakLabel]:
        """Return the weak labels of the present question, abstentions too, by task and question.

        `annotator`: those of this one alone.
        """
        table = t.weak_labels
        query = sa.select(table).where(of_question(project, table))
        if annotator:
            query = query.where(table.c.annotator == annotator)
        query = query.order_by(table.c.task_id, table.c.question, table.c.annotator)
        return [weak_label_of(row) for row in self._db.fetch(query)]

    def reopen(
        self,
        project: Project,
        *,
        older_than_s: float = 0.0,
        reasons: Sequence[AbstentionReason] = _TRANSIENT,
    ) -> int:
        """Delete abstentions that a new attempt may end; return how many."""
        table = t.weak_labels
        is_old = table.c.created_at < now() - timedelta(seconds=older_than_s)
        is_reopened = sa.and_(of_question(project, table), table.c.abstention.in_(list(reasons)))
        return self._db.execute(sa.delete(table).where(is_reopened, is_old))

    def origins(self, project: Project) -> dict[LabelOrigin, int]:
        """Return which LLMs and encoders labeled each question by which prompts, how often."""
        weak = t.weak_labels.c
        columns = (weak.annotator_kind, weak.annotator, weak.question, weak.prompt_version)
        query = sa.select(*columns, sa.func.count()).where(_first_labels(project))
        rows = self._db.fetch(query.group_by(*columns))  # in the order of an index
        return {LabelOrigin(row[2], row[1], AnnotatorKind(row[0]), row[3]): row[4] for row in rows}

    def ids_from(
        self,
        project: Project,
        origins: Collection[LabelOrigin],
        chunk: Chunk = ALL_TASKS,
        limit: int | None = None,
    ) -> list[int]:
        """Return the first tasks of a chunk, by id, that carry a label of these origins."""
        weak = t.weak_labels
        query = sa.select(weak.c.task_id).distinct().where(_is_from(project, origins))
        query = query.where(in_chunk(weak.c.task_id, chunk))
        return self._db.fetch_column(query.order_by(weak.c.task_id).limit(limit))

    def count_from(self, project: Project, origins: Collection[LabelOrigin]) -> int:
        """Return how many tasks carry a label of these origins."""
        n = sa.func.count(t.weak_labels.c.task_id.distinct())
        return int(self._db.fetch_value(sa.select(n).where(_is_from(project, origins))))

    def unreachable_task(self, project: Project) -> int | None:
        """Return a task that the LLM could not be reached about, None without one."""
        weak = t.weak_labels
        is_waiting = weak.c.abstention == AbstentionReason.UNREACHABLE
        query = sa.select(weak.c.task_id).where(by_llm(project), is_waiting).limit(1)
        task_id: int | None = self._db.fetch_value(query)
        return task_id

    def unreadable(self, project: Project, limit: int) -> list[str]:
        """Return what is known of the last answers that could not be read, newest first."""
        weak = t.weak_labels
        is_unread = weak.c.abstention == AbstentionReason.UNREADABLE
        query = sa.select(weak.c.task_id, weak.c.question, weak.c.abstention_detail)
        query = query.where(by_llm(project), is_unread).order_by(weak.c.created_at.desc())
        return [f"task {row[0]}, {row[1]}: {row[2]}" for row in self._db.fetch(query.limit(limit))]

    def progress(self, project: Project) -> Progress:
        """Count a project's tasks, labels and predictions, and the LLM's labels per second."""
        query = sa.select(
            *(q.scalar_subquery().label(name) for name, q in _counts(project).items())
        )
        n, column = sa.func.count(), t.weak_labels.c.abstention
        by_reason = (
            sa.select(column, n).where(by_llm(project), column.not_in(_NOT_ASKED)).group_by(column)
        )
        with self._db.read() as connection:
            abstentions = {reason: count for reason, count in connection.execute(by_reason)}
            return Progress(
                **connection.execute(query).one()._mapping,
                n_abstained=sum(abstentions.values()),
                abstentions=abstentions,
                labels_per_s=_rate(connection, project),
            )


def _counts(project: Project) -> dict[str, sa.Select[Any]]:
    """Return the queries of `Progress` that count rows, by the field's name."""
    human, predictions, weak = t.human_labels, t.predictions, t.weak_labels
    is_human, is_present = human_answers(project.id), of_version(project, predictions)
    answered = sa.select(human.c.task_id).where(is_human)
    asked = sa.select(weak.c.task_id).where(by_llm(project))
    predicted = sa.select(predictions.c.task_id).where(is_present)
    is_published = predictions.c.published_at.is_not(None)
    is_refused = sa.and_(~is_published, predictions.c.refusal.is_not(None))  # few rows to look at
    n = sa.func.count()
    return {
        "n_tasks": sa.select(n).where(existing(t.tasks, project.id)),
        "n_to_label": _count_others(project, asked, answered),
        "n_without_label": _count_others(project, predicted, answered),
        "n_human_labels": sa.select(n).where(is_human),
        "n_human_labelled": sa.select(sa.func.count(human.c.task_id.distinct())).where(is_human),
        "n_labelled": sa.select(n).where(is_present),
        "n_published": sa.select(n).where(is_present, is_published),
        "n_refused": sa.select(n).where(is_present, is_refused),
    }


def _count_others(project: Project, *lists: sa.Select[Any]) -> sa.Select[Any]:
    """Return the query that counts the tasks that are in none of these lists of ids.

    The database merges lists that an index gives in their order, which the query asks for. A look
    for rows of each task takes it several times as long.
    """
    ids = sa.select(t.tasks.c.id).where(existing(t.tasks, project.id))
    others = sa.except_(ids, *lists).order_by(sa.literal_column("1")).subquery()
    return sa.select(sa.func.count()).select_from(others)


def _first_labels(project: Project) -> sa.ColumnElement[bool]:
    """Return the condition for labels by an LLM or by similarity, none of them an abstention."""
    weak = t.weak_labels
    is_first = weak.c.annotator_kind.in_(_FIRST_KINDS)
    return sa.and_(of_question(project, weak), is_first, weak.c.abstention.is_(None))


def _is_from(project: Project, origins: Collection[LabelOrigin]) -> sa.ColumnElement[bool]:
    """Return the condition for labels of these origins, of tasks that Label Studio still has."""
    weak = t.weak_labels
    is_there = sa.exists().where(existing(t.tasks, project.id), t.tasks.c.id == weak.c.task_id)
    found = [
        sa.and_(
            weak.c.question == origin.question,
            weak.c.annotator == origin.annotator,
            weak.c.prompt_version == origin.prompt_version,
        )
        for origin in origins
    ]
    return sa.and_(_first_labels(project), is_there, sa.or_(sa.false(), *found))


def changed_tasks(
    connection: sa.Connection, project_id: str, tasks: Sequence[Task], *, is_locked: bool = False
) -> set[int]:
    """Return which of the tasks are stored with other data than these have.

    `is_locked`: until this transaction ends, others who change these tasks or save labels of them
    wait. All lock in the order of ids, before anything else; SQLite has one writer at a time.
    """
    table = t.tasks
    query = sa.select(table.c.id, table.c.digest).where(table.c.project_id == project_id)
    query = query.order_by(table.c.id)
    query = query.with_for_update() if is_locked else query
    rows = execute_for(connection, query, table.c.id, sorted(task.id for task in tasks))
    stored = {row.id: row.digest for row in rows}
    return {task.id for task in tasks if stored.get(task.id, task.digest()) != task.digest()}


def _count_outdated(
    connection: sa.Connection, project: Project, predictions: Sequence[Prediction]
) -> int:
    table = t.predictions
    query = sa.select(table.c.task_id, table.c.result).where(of_version(project, table))
    rows = execute_for(connection, query, table.c.task_id, [p.task_id for p in predictions])
    stored = {row.task_id: region_values(row.result) for row in rows}
    return sum(
        stored.get(p.task_id, region_values(p.result)) != region_values(p.result)
        for p in predictions
    )


def prediction_row(
    project_id: str, model_version: str, prediction: Prediction, moment: datetime
) -> dict[str, Any]:
    """Return the row of a prediction under a model version."""
    return {
        "project_id": project_id,
        "model_version": model_version,
        "task_id": prediction.task_id,
        "result": list(prediction.result),
        "score": prediction.score,
        "created_at": moment,
    }


def _rate(connection: sa.Connection, project: Project) -> float:
    """Return the LLM's labels per second over the last minute, from when chunks were saved."""
    table = t.weak_labels
    is_sampled = sa.func.coalesce(table.c.abstention, "") != AbstentionReason.NOT_SAMPLED
    query = (
        sa.select(table.c.created_at, sa.func.count())
        .where(by_llm(project), is_sampled, table.c.created_at > now() - _RATE_WINDOW)
        .group_by(table.c.created_at)
        .order_by(table.c.created_at)
    )
    chunks = connection.execute(query).all()
    if len(chunks) < 2:
        return 0.0
    seconds = (chunks[-1][0] - chunks[0][0]).total_seconds()
    n_labels = sum(n for _, n in chunks[1:])
    return float(n_labels / seconds) if seconds > 0 else 0.0
