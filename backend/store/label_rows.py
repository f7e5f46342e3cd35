"""A weak label as a row of the database, and back."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, AnnotatorKind, Span, WeakLabel
from backend.domain.projects import Project
from backend.store import tables as t

_COPIED = [field.name for field in fields(WeakLabel) if field.name in t.weak_labels.c]
"""Columns that hold a field of `WeakLabel` under its own name."""


def weak_label_row(project: Project, label: WeakLabel, moment: datetime) -> dict[str, Any]:
    """Return the row of a weak label under the project's present question."""
    abstention = label.abstention
    return {name: getattr(label, name) for name in _COPIED} | {
        "project_id": project.id,
        "question_version": project.question_version,
        "task_id": label.example_id,
        "probabilities": list(label.probabilities) or None,
        "spans": None
        if label.spans is None
        else [[span.start, span.end, span.label, span.probability] for span in label.spans],
        "abstention": abstention.reason if abstention else None,
        "abstention_detail": abstention.detail if abstention else None,
        "annotator_posteriors": {n: list(p) for n, p in label.annotator_posteriors.items()} or None,
        "created_at": moment,
    }


def weak_label_of(row: Any) -> WeakLabel:
    """Return the weak label of a row."""
    values = {name: getattr(row, name) for name in _COPIED}
    if row.abstention is not None:
        reason = AbstentionReason(row.abstention)
        values["abstention"] = Abstention(reason, row.abstention_detail or "")
    return WeakLabel(
        **values
        | {
            "example_id": row.task_id,
            "probabilities": tuple(row.probabilities or ()),
            "spans": None if row.spans is None else tuple(Span(*span) for span in row.spans),
            "annotator_posteriors": {
                n: tuple(p) for n, p in (row.annotator_posteriors or {}).items()
            },
            "annotator_kind": AnnotatorKind(row.annotator_kind),
        }
    )
