"""How far a project is: its tasks, labels and predictions counted, and how fast it goes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from backend.domain.labels import AbstentionReason
from backend.domain.projects import Progress, Project, ProjectId
from backend.store import tables as t
from backend.store.database import now
from backend.store.filters import alive, by_llm, is_open, of_version

_RATE_WINDOW = timedelta(seconds=60)


def of_project(connection: sa.Connection, project: Project) -> Progress:
    """Return how far the project's pre-annotation is."""
    abstentions = _abstentions(connection, project)
    n_in, n_out = connection.execute(_token_sums(project.id)).one()
    return Progress(
        n_tasks=_count(connection, t.tasks, alive(t.tasks, project.id)),
        n_human_labelled=connection.execute(_human_labelled(project.id)).scalar_one(),
        n_human_labels=_count(
            connection,
            t.human_labels,
            alive(t.human_labels, project.id),
            t.human_labels.c.was_cancelled.is_(False),
        ),
        n_labelled=_count(connection, t.predictions, of_version(project, t.predictions)),
        n_published=_count(
            connection,
            t.predictions,
            of_version(project, t.predictions),
            t.predictions.c.published_at.is_not(None),
        ),
        n_refused=_count(
            connection,
            t.predictions,
            of_version(project, t.predictions),
            t.predictions.c.refusal.is_not(None),
        ),
        n_to_label=_count(connection, t.tasks, is_open(project)),
        n_abstained=sum(abstentions.values()),
        abstentions=abstentions,
        labels_per_s=_rate(connection, project),
        n_tokens_in=n_in or 0,
        n_tokens_out=n_out or 0,
    )


def _count(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(*conditions)
    return int(connection.execute(query).scalar_one())


def _human_labelled(project_id: ProjectId) -> sa.Select[Any]:
    table = t.human_labels
    return sa.select(sa.func.count(table.c.task_id.distinct())).where(
        alive(table, project_id), table.c.was_cancelled.is_(False)
    )


def _token_sums(project_id: ProjectId) -> sa.Select[Any]:
    table = t.weak_labels
    return sa.select(sa.func.sum(table.c.n_tokens_in), sa.func.sum(table.c.n_tokens_out)).where(
        table.c.project_id == project_id
    )


def _abstentions(connection: sa.Connection, project: Project) -> dict[str, int]:
    table = t.weak_labels
    query = (
        sa.select(table.c.abstention, sa.func.count())
        .where(by_llm(project), table.c.abstention != AbstentionReason.NOT_SAMPLED)
        .group_by(table.c.abstention)
    )
    return {reason: n for reason, n in connection.execute(query)}


def _rate(connection: sa.Connection, project: Project) -> float:
    """The LLM's labels per second over the last minute, from when chunks were saved."""
    table = t.weak_labels
    is_asked = sa.func.coalesce(table.c.abstention, "") != AbstentionReason.NOT_SAMPLED
    query = (
        sa.select(table.c.created_at, sa.func.count())
        .where(by_llm(project), is_asked, table.c.created_at > now() - _RATE_WINDOW)
        .group_by(table.c.created_at)
        .order_by(table.c.created_at)
    )
    chunks = connection.execute(query).all()
    if len(chunks) < 2:
        return 0.0
    seconds = (chunks[-1][0] - chunks[0][0]).total_seconds()
    n_labels = sum(n for _, n in chunks[1:])
    return float(n_labels / seconds) if seconds > 0 else 0.0
