"""Rename columns, stored values and keys of stored JSON to the field's terms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_STATE_NAMES = {"jury": "label_model", "early-votes": "early_weak_labels"}
_QUEUE_REASONS = {
    "drawn at random: the audit slice,": "drawn at random: the random holdout,",
    "pulled to the front: ": "pinned to the front: ",
}
_weak_labels = sa.table("weak_labels", sa.column("annotator"), sa.column("annotator_kind"))
_state = sa.table("project_state", sa.column("project_id"), sa.column("name"), sa.column("value"))


def upgrade() -> None:
    """Apply."""
    for table, old, new in (
        ("queue_places", "is_audit", "is_holdout"),
        ("weak_labels", "suspicion", "injection_flag"),
        ("weak_labels", "votes", "annotator_posteriors"),
    ):
        with op.batch_alter_table(table) as batch:
            batch.alter_column(old, new_column_name=new)
    places = sa.table("queue_places", sa.column("reason"))
    for old, new in _QUEUE_REASONS.items():
        op.execute(
            sa.update(places)
            .where(places.c.reason.startswith(old))
            .values(reason=sa.func.replace(places.c.reason, old, new))
        )
    op.execute("UPDATE weak_labels SET abstention = 'not_sampled' WHERE abstention = 'unasked'")
    _add_annotator_kinds()
    _rewrite_state("jury", _ensemble_state)
    _rewrite_state("early-votes", _early_weak_labels)
    for old, new in _STATE_NAMES.items():
        op.execute(sa.update(_state).where(_state.c.name == old).values(name=new))


def _add_annotator_kinds() -> None:
    """Store as data what the names of annotators said, and the source of aggregated labels."""
    with op.batch_alter_table("weak_labels") as batch:
        kind = sa.Column("annotator_kind", sa.String(32), nullable=False, server_default="llm")
        batch.add_column(kind)
        batch.add_column(sa.Column("source", sa.String(256), nullable=False, server_default=""))
    for kinds, names in (
        ("llm_demonstrations", "%+shots"),
        ("student", "small-model:%"),
        ("similarity", "similarity%"),
        ("aggregated", "fused"),
    ):
        is_named = _weak_labels.c.annotator.like(names)
        op.execute(sa.update(_weak_labels).where(is_named).values(annotator_kind=kinds))
    op.execute(
        "UPDATE weak_labels SET source = prompt_version, prompt_version = '' "
        "WHERE annotator = 'fused'"
    )
    with op.batch_alter_table("weak_labels") as batch:
        batch.alter_column("annotator_kind", server_default=None)
        batch.alter_column("source", server_default=None)


def _rewrite_state(name: str, rewrite: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    connection = op.get_bind()
    query = sa.select(_state.c.project_id, _state.c.value).where(_state.c.name == name)
    for project_id, value in connection.execute(query).all():
        if value is not None:
            text = json.dumps(rewrite(json.loads(value)), ensure_ascii=True)
            is_row = sa.and_(_state.c.project_id == project_id, _state.c.name == name)
            connection.execute(sa.update(_state).where(is_row).values(value=text))


def _early_weak_labels(stored: dict[str, Any]) -> dict[str, Any]:
    """Give each label its annotator's kind: only the LLM and similarity were asked by then."""
    labels = [
        label
        | {"annotator_kind": "similarity" if label["annotator"].startswith("similarity") else "llm"}
        for label in stored["votes"]
    ]
    return {"question_version": stored["question_version"], "labels": labels}


def _ensemble_state(stored: dict[str, Any]) -> dict[str, Any]:
    stored = _renamed(stored, {"forms": "templates", "trust": "label_model"})
    for name, report in stored.get("reports", {}).items():
        stored["reports"][name] = _report(report)
    for name, fit in stored.get("similarity", {}).items():
        stored["similarity"][name] = fit | {"probe": _probe(fit["probe"])} if fit else fit
    for name, model in stored.get("label_model", {}).items():
        stored["label_model"][name] = (
            _multilabel_model(model) if "base_rates" in model else _single_label_model(model)
        )
    return stored


def _report(stored: dict[str, Any]) -> dict[str, Any]:
    figures = [_renamed(row, {"form": "template"}) for row in stored["figures"]]
    return stored | {"figures": figures}


def _single_label_model(stored: dict[str, Any]) -> dict[str, Any]:
    stored = _renamed(
        stored,
        {"voters": "annotators", "sharpness": "inverse_temperature", "bias": "class_bias"},
    )
    stored["annotators"] = {
        name: _renamed(row, {"signal": "text_dependence"})
        for name, row in stored["annotators"].items()
    }
    return stored | {"probe": _probe(stored["probe"])}


def _multilabel_model(stored: dict[str, Any]) -> dict[str, Any]:
    stored = _renamed(stored, {"voters": "annotators"})
    stored["annotators"] = {
        name: _renamed(row, {"middle": "threshold"}) for name, row in stored["annotators"].items()
    }
    return stored


def _probe(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    return stored and _renamed(stored, {"centre": "center"})


def _renamed(stored: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in stored.items()}
