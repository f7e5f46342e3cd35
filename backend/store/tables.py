"""Define the tables, and the conditions that several queries share.

Human labels and weak labels never share a table.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from backend.domain.chunks import Chunk
from backend.domain.labels import AnnotatorKind
from backend.domain.projects import Project, ProjectId

VERSION_TABLE = "freeal_version"
"""Holds the revision of the tables."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Json(sa.types.TypeDecorator[Any]):
    """Store JSON as ASCII text: null bytes and lone surrogates survive in every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=True, default=str)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return None if value is None else json.loads(value)


class Text(sa.types.TypeDecorator[str]):
    """Store text; null bytes and lone surrogates, which PostgreSQL refuses, become U+FFFD."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


class Name(sa.types.TypeDecorator[str]):
    """Store a name of at most `length` characters; both databases refuse or cut a longer one."""

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int, *, is_cut: bool = False) -> None:
        super().__init__(length)
        self.length = length
        self.is_cut = is_cut

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        if value is None:
            return None
        name = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        if len(name) > self.length and not self.is_cut:
            raise ValueError(f"a name has {len(name)} characters, more than {self.length}")
        return name[: self.length]


class Moment(sa.types.TypeDecorator[datetime]):
    """Store a point in time as naive UTC, read it as aware UTC."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def _table(name: str, *columns: Any) -> sa.Table:
    """Return a table whose primary key begins with the project."""
    key: sa.Column[str] = sa.Column("project_id", Name(64), primary_key=True)
    return sa.Table(name, metadata, key, *columns)


projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", Name(64), primary_key=True),
    sa.Column("title", Text, nullable=False, default=""),
    sa.Column("label_config", Text, nullable=False),
    sa.Column("instruction", Text, nullable=False, default=""),
    sa.Column("model_version", Name(128), nullable=False),
    sa.Column("question_version", Name(128), nullable=False),
    sa.Column("is_connected", sa.Boolean, nullable=False, default=True),
    sa.Column("disconnection", Name(16)),
    sa.Column("disconnected_why", Text),
    sa.Column("disconnected_at", Moment),
    sa.Column("served_version", Name(128)),
    sa.Column("full_sync_at", Moment),
    sa.Column("full_sync_s", sa.Float, nullable=False, default=0.0),
    sa.Column("n_foreign_predictions", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Moment, nullable=False),
)

model_versions = _table(
    "model_versions",
    sa.Column("name", Name(128), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("question_version", Name(128), nullable=False),
    sa.Column("state", Name(16), nullable=False),
    sa.Column("provenance", Json, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("withdrawn_at", Moment),
)

tasks = _table(
    "tasks",
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("data", Json, nullable=False),
    sa.Column("digest", Name(32), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("deleted_at", Moment),
    sa.Index(None, "project_id", "deleted_at", "id"),  # counts read it alone, without the texts
)

human_labels = _table(
    "human_labels",
    sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("task_id", sa.BigInteger),
    sa.Column("annotator_id", sa.BigInteger),
    sa.Column("result", Json, nullable=False),
    sa.Column("was_cancelled", sa.Boolean, nullable=False, default=False),
    sa.Column("is_ground_truth", sa.Boolean, nullable=False, default=False),
    sa.Column("is_copied", sa.Boolean, nullable=False, default=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.Column("deleted_at", Moment),
    sa.Index(
        "ix_human_labels_by_task",  # counts read it alone, without the results
        *("project_id", "task_id", "deleted_at", "was_cancelled", "is_copied"),
    ),
    sa.Index(None, "project_id", "updated_at"),
)

weak_labels = _table(
    "weak_labels",
    sa.Column("question_version", Name(128), primary_key=True),
    sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("question", Name(256), primary_key=True),
    sa.Column("annotator", Name(256), primary_key=True),
    sa.Column("annotator_kind", Name(32), nullable=False),
    sa.Column("source", Name(256, is_cut=True), nullable=False, default=""),
    sa.Column("prompt_version", Name(64), nullable=False),
    sa.Column("probabilities", Json),
    sa.Column("spans", Json),
    sa.Column("text", Text),
    sa.Column("abstention", Name(32)),
    sa.Column("abstention_detail", Text),
    sa.Column("confidence", sa.Float),
    sa.Column("label_mass", sa.Float),
    sa.Column("annotator_posteriors", Json),
    sa.Column("injection_flag", Text),
    sa.Column("is_truncated", sa.Boolean, nullable=False, default=False),
    sa.Column("n_tokens_in", sa.Integer, nullable=False, default=0),
    sa.Column("n_tokens_out", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Moment, nullable=False),
    sa.Index(None, "project_id", "question_version", "created_at"),
    sa.Index(
        "ix_weak_labels_by_kind",  # as in `tasks`; its name by the convention would be too long
        *("project_id", "question_version", "annotator_kind", "task_id", "abstention"),
    ),
    sa.Index(
        "ix_weak_labels_by_origin",  # counts by origin read it in its order
        *("project_id", "question_version", "annotator_kind", "abstention"),
        *("annotator", "question", "prompt_version", "task_id"),
    ),
)

predictions = _table(
    "predictions",
    sa.Column("model_version", Name(128), primary_key=True),
    sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("result", Json, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("offered_at", Moment),
    sa.Column("sent_at", Moment),
    sa.Column("published_at", Moment),
    sa.Column("refusal", Text),
    sa.Index(None, "project_id", "model_version", "published_at"),
)

accepted_labels = _table(
    "accepted_labels",
    sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("unique_id", Name(36), nullable=False),
    sa.Column("result", Json, nullable=False),
    sa.Column("model_version", Name(128), nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("sent_at", Moment),
    sa.Column("annotation_id", sa.BigInteger),
)

queue_places = _table(
    "queue_places",
    sa.Column("model_version", Name(128), primary_key=True),
    sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("is_holdout", sa.Boolean, nullable=False, default=False),
)

rounds = _table(
    "rounds",
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("question_version", Name(128), nullable=False),
    sa.Column("recipe", Name(16), nullable=False),
    sa.Column("models", Json),
    sa.Column("reason", Text, nullable=False),
    sa.Column("state", Name(16), nullable=False),
    sa.Column("n_human", sa.Integer, nullable=False),
    sa.Column("step", Name(64), nullable=False),
    sa.Column("progress", Json, nullable=False),
    sa.Column("metrics", Json, nullable=False),
    sa.Column("model_version", Name(128)),
    sa.Column("error", Text),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
)

llm_answers = sa.Table(
    "llm_answers",
    metadata,
    sa.Column("key", sa.LargeBinary(16), primary_key=True),
    sa.Column("answer", Text, nullable=False),
    sa.Column("day", sa.Integer, nullable=False, index=True),
    sqlite_with_rowid=False,
)

llm_usage = _table(
    "llm_usage",
    sa.Column("purpose", Name(64), primary_key=True),
    sa.Column("n_calls", sa.BigInteger, nullable=False),
    sa.Column("n_prompts", sa.BigInteger, nullable=False),
    sa.Column("n_cache_hits", sa.BigInteger, nullable=False),
    sa.Column("n_tokens_in", sa.BigInteger, nullable=False),
    sa.Column("n_tokens_out", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
)

project_state = _table(
    "project_state",
    sa.Column("name", Name(64), primary_key=True),
    sa.Column("value", Json),
    sa.Column("updated_at", Moment, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("project_id", Name(64), nullable=False),
    sa.Column("key", Name(64), nullable=False),
    sa.Column("action", Name(64), nullable=False),
    sa.Column("received_at", Moment, nullable=False),
    sa.UniqueConstraint("project_id", "key"),
)

job_requests = _table(
    "job_requests",
    sa.Column("kind", Name(32), primary_key=True),
    sa.Column("reason", Text, nullable=False),
    sa.Column("requested_at", Moment, nullable=False),
)

dismissed_issues = _table(
    "dismissed_issues",
    sa.Column("key", Name(64), primary_key=True),
    sa.Column("task_id", sa.BigInteger, nullable=False),
    sa.Column("digest", Name(32), nullable=False),
    sa.Column("by", Text, nullable=False),
    sa.Column("at", Moment, nullable=False),
)

problems = _table(
    "problems",
    sa.Column("source", Name(64), primary_key=True),
    sa.Column("message", Text, nullable=False),
    sa.Column("first_seen_at", Moment, nullable=False),
    sa.Column("last_seen_at", Moment, nullable=False),
    sa.Column("n_times", sa.Integer, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", Name(128), primary_key=True),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
)


def of_version(project: Project, table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition for rows of the project's present model version."""
    return sa.and_(table.c.project_id == project.id, table.c.model_version == project.model_version)


def of_question(project: Project, table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition for rows that belong to what the project asks now."""
    return sa.and_(
        table.c.project_id == project.id, table.c.question_version == project.question_version
    )


def in_chunk(column: sa.ColumnElement[int], chunk: Chunk) -> sa.ColumnElement[bool]:
    """Return the condition for ids of a chunk of tasks."""
    return sa.and_(column > chunk.after, column <= chunk.through)


def existing(table: sa.Table, project_id: ProjectId) -> sa.ColumnElement[bool]:
    """Return the condition for rows that Label Studio still has."""
    return sa.and_(table.c.project_id == project_id, table.c.deleted_at.is_(None))


def human_answers(project_id: ProjectId) -> sa.ColumnElement[bool]:
    """Return the condition for labels by people.

    A skipped task is none, and what was copied from predictions is nobody's.
    """
    return sa.and_(submitted(project_id), human_labels.c.is_copied.is_(False))


def submitted(project_id: ProjectId) -> sa.ColumnElement[bool]:
    """Return the condition for annotations that Label Studio has and nobody skipped."""
    return sa.and_(existing(human_labels, project_id), human_labels.c.was_cancelled.is_(False))


def by_llm(project: Project) -> sa.ColumnElement[bool]:
    """Return the condition for the LLM's answers and abstentions: only these close a task."""
    is_llm = weak_labels.c.annotator_kind == AnnotatorKind.LLM
    return sa.and_(of_question(project, weak_labels), is_llm)


def is_unlabeled(project: Project) -> sa.ColumnElement[bool]:
    """Return the condition for tasks that neither people nor the LLM have answered."""
    by_people = sa.exists().where(human_answers(project.id), human_labels.c.task_id == tasks.c.id)
    by_annotators = sa.exists().where(by_llm(project), weak_labels.c.task_id == tasks.c.id)
    return sa.and_(existing(tasks, project.id), ~by_people, ~by_annotators)
