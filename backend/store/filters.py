"""Which rows count: conditions that several queries share."""

from __future__ import annotations

import sqlalchemy as sa

from backend.domain.projects import Project, ProjectId
from backend.store import tables as t

_HELPERS = ("similarity", "small-model")


def of_version(project: Project, table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows of the project's present model version."""
    return sa.and_(table.c.project_id == project.id, table.c.model_version == project.model_version)


def answering(project: Project) -> sa.ColumnElement[bool]:
    """Weak labels that answer what the project asks now."""
    table = t.weak_labels
    return sa.and_(
        table.c.project_id == project.id, table.c.question_version == project.question_version
    )


def alive(table: sa.Table, project_id: ProjectId) -> sa.ColumnElement[bool]:
    """Rows that Label Studio still has."""
    return sa.and_(table.c.project_id == project_id, table.c.deleted_at.is_(None))


def by_llm(project: Project) -> sa.ColumnElement[bool]:
    """What the LLM answered, or why it did not: only that closes a task."""
    annotator = t.weak_labels.c.annotator
    is_other = sa.or_(annotator == "fused", *(annotator.like(f"{n}:%") for n in _HELPERS))
    return sa.and_(answering(project), ~is_other)


def is_open(project: Project) -> sa.ColumnElement[bool]:
    """Tasks that neither people nor annotators have answered."""
    labels, weak = t.human_labels, t.weak_labels
    by_people = sa.exists().where(
        alive(labels, project.id),
        labels.c.was_cancelled.is_(False),
        labels.c.task_id == t.tasks.c.id,
    )
    by_annotators = sa.exists().where(by_llm(project), weak.c.task_id == t.tasks.c.id)
    return sa.and_(alive(t.tasks, project.id), ~by_people, ~by_annotators)
