"""Weak labels as rows of their table, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from backend.domain.labels import Abstention, AbstentionReason, Span, WeakLabel
from backend.domain.projects import Project
from backend.store import tables as t


def to_row(project: Project, label: WeakLabel, moment: datetime) -> dict[str, Any]:
    """Return the row of a weak label under the project's present version."""
    abstention = label.abstention
    return {
        "project_id": project.id,
        "question_version": project.question_version,
        "task_id": label.example_id,
        "question": label.question,
        "annotator": label.annotator,
        "prompt_version": label.prompt_version,
        "probabilities": list(label.probabilities) or None,
        "spans": None if label.spans is None else [_from_span(span) for span in label.spans],
        "text": label.text,
        "abstention": abstention.reason if abstention else None,
        "abstention_detail": abstention.detail if abstention else None,
        "confidence": label.confidence,
        "label_mass": label.label_mass,
        "votes": {name: list(vote) for name, vote in label.votes.items()} or None,
        "injection_flag": label.injection_flag,
        "is_truncated": label.is_truncated,
        "n_tokens_in": label.n_tokens_in,
        "n_tokens_out": label.n_tokens_out,
        "created_at": moment,
    }


def of_project(connection: sa.Connection, project: Project) -> list[WeakLabel]:
    """Return the weak labels of the project's present version, by task and question."""
    table = t.weak_labels
    query = (
        sa.select(table)
        .where(
            table.c.project_id == project.id,
            table.c.question_version == project.question_version,
        )
        .order_by(table.c.task_id, table.c.question, table.c.annotator)
    )
    return [_from_row(row) for row in connection.execute(query)]


def _from_row(row: Any) -> WeakLabel:
    abstention = None
    if row.abstention is not None:
        abstention = Abstention(AbstentionReason(row.abstention), row.abstention_detail or "")
    return WeakLabel(
        example_id=row.task_id,
        question=row.question,
        annotator=row.annotator,
        prompt_version=row.prompt_version,
        probabilities=tuple(row.probabilities or ()),
        spans=None if row.spans is None else tuple(Span(*values) for values in row.spans),
        text=row.text,
        abstention=abstention,
        confidence=row.confidence,
        label_mass=row.label_mass,
        votes={name: tuple(vote) for name, vote in (row.votes or {}).items()},
        injection_flag=row.injection_flag,
        is_truncated=row.is_truncated,
        n_tokens_in=row.n_tokens_in,
        n_tokens_out=row.n_tokens_out,
    )


def _from_span(span: Span) -> list[Any]:
    return [span.start, span.end, span.label, span.probability]
