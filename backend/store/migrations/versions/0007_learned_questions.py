"""Key what rounds measured, and what releases were made from, by question.

Until now rounds learned the first question with exactly one right label; its name is that of the
first such label model which the project has fitted.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_SOURCE = ("labels_from", "model_from", "recipe")
_state = sa.table("project_state", sa.column("project_id"), sa.column("name"), sa.column("value"))
_rounds = sa.table(
    "rounds", sa.column("project_id"), sa.column("number"), sa.column("metrics", sa.Text)
)
_versions = sa.table(
    "model_versions", sa.column("project_id"), sa.column("name"), sa.column("provenance", sa.Text)
)


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    query = sa.select(_state.c.project_id, _state.c.value).where(_state.c.name == "label_model")
    for project_id, value in connection.execute(query).all():
        question = _learned_question(json.loads(value) if value else {})
        if question is not None:
            _rewrite_rounds(connection, project_id, question)
            _rewrite_versions(connection, project_id, question)


def _learned_question(fitted: dict[str, Any]) -> str | None:
    models = fitted.get("label_model", {})
    return next((name for name, model in models.items() if "base_rates" not in model), None)


def _rewrite_rounds(connection: sa.Connection, project_id: str, question: str) -> None:
    of_project = _rounds.c.project_id == project_id
    for number, text in connection.execute(
        sa.select(_rounds.c.number, _rounds.c.metrics).where(of_project)
    ).all():
        metrics = json.loads(text)
        if metrics:
            stored = json.dumps({"questions": {question: metrics}})
            is_row = sa.and_(of_project, _rounds.c.number == number)
            connection.execute(sa.update(_rounds).where(is_row).values(metrics=stored))


def _rewrite_versions(connection: sa.Connection, project_id: str, question: str) -> None:
    of_project = _versions.c.project_id == project_id
    for name, text in connection.execute(
        sa.select(_versions.c.name, _versions.c.provenance).where(of_project)
    ).all():
        provenance = json.loads(text)
        source = {key: provenance.pop(key) for key in _SOURCE if key in provenance}
        if source:
            provenance["learned"] = {question: source}
        if provenance.get("metrics"):
            provenance["metrics"] = {"questions": {question: provenance["metrics"]}}
        is_row = sa.and_(of_project, _versions.c.name == name)
        connection.execute(
            sa.update(_versions).where(is_row).values(provenance=json.dumps(provenance))
        )
