"""Releases: written unseen, promoted at once, kept for a rollback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import Prediction, Project, ProjectId, QueuePlace
from backend.errors import UnknownModelVersion
from backend.store import tables as t
from backend.store.database import Database, now, upsert
from backend.store.projects import DRAFT, RELEASED, WRITING, start_version

_SLICE = 2_000


class ReleaseStore:
    """Model versions with their predictions and queue.

    Large releases are written in slices, so that webhooks are not kept waiting; what a kill leaves
    half written is removed by the next draft.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def draft(
        self,
        project: Project,
        predictions: Sequence[Prediction],
        places: Sequence[QueuePlace],
        provenance: Mapping[str, Any],
    ) -> Project:
        """Write a release that nobody sees yet; return the project as it would serve it.

        The predictions' own model version is not looked at.
        """
        self._remove_unfinished(project)
        with self._db.write() as connection:
            name = start_version(connection, project.id, provenance, project.question_version)
        for start in range(0, len(predictions), _SLICE):
            rows = [_prediction_row(project, name, p) for p in predictions[start : start + _SLICE]]
            with self._db.write() as connection:
                upsert(connection, t.predictions, rows)
        for start in range(0, len(places), _SLICE):
            rows = [_place_row(project, name, place) for place in places[start : start + _SLICE]]
            with self._db.write() as connection:
                upsert(connection, t.queue_places, rows)
        draft = replace(project, model_version=name)
        self._set_state(draft, DRAFT)
        return draft

    def pending(self, project: Project) -> Project | None:
        """Return the newest draft that answers the present question, None without one."""
        table = t.model_versions
        query = (
            sa.select(table.c.name)
            .where(
                table.c.project_id == project.id,
                table.c.question_version == project.question_version,
                table.c.state == DRAFT,
            )
            .order_by(table.c.number.desc())
            .limit(1)
        )
        with self._db.read() as connection:
            name = connection.execute(query).scalar()
        return None if name is None else replace(project, model_version=name)

    def promote(self, draft: Project) -> bool:
        """Make a draft the release that is served; False when the question has changed since.

        What was predicted after the draft was written is carried over. Older drafts are given up.
        """
        projects, versions = t.projects, t.model_versions
        with self._db.write() as connection:
            served = connection.execute(
                sa.select(projects.c.model_version).where(projects.c.id == draft.id)
            ).scalar_one()
            result = connection.execute(
                sa.update(projects)
                .where(
                    projects.c.id == draft.id,
                    projects.c.question_version == draft.question_version,
                )
                .values(model_version=draft.model_version)
            )
            if result.rowcount and served != draft.model_version:
                _carry_over(connection, draft, served)
            connection.execute(
                sa.update(versions)
                .where(versions.c.project_id == draft.id, versions.c.state == DRAFT)
                .values(state=RELEASED)
            )
            return bool(result.rowcount)

    def restore(self, project: Project, model_version: str) -> Project:
        """Make an earlier release a draft again; raises UnknownModelVersion."""
        table = t.model_versions
        with self._db.write() as connection:
            result = connection.execute(
                sa.update(table)
                .where(
                    table.c.project_id == project.id,
                    table.c.name == model_version,
                    table.c.question_version == project.question_version,
                    table.c.state == RELEASED,
                )
                .values(state=DRAFT, withdrawn_at=None)
            )
        if not result.rowcount:
            raise UnknownModelVersion(
                f"project {project.id} has no release {model_version!r} that answers what it asks "
                "now; `python -m backend status` lists its releases"
            )
        return replace(project, model_version=model_version)

    def discard(self, draft: Project) -> None:
        """Give a draft up; what Label Studio has of it will be withdrawn."""
        self._set_state(draft, RELEASED)

    def provenance(self, project_id: ProjectId, model_version: str) -> dict[str, Any]:
        """Return what a release was made from; empty when there is no such release."""
        table = t.model_versions
        query = sa.select(table.c.provenance).where(
            table.c.project_id == project_id, table.c.name == model_version
        )
        with self._db.read() as connection:
            return dict(connection.execute(query).scalar() or {})

    def places(self, project: Project) -> list[QueuePlace]:
        """Return the queue of the project's release, first place first."""
        table = t.queue_places
        query = (
            sa.select(table)
            .where(table.c.project_id == project.id, table.c.model_version == project.model_version)
            .order_by(table.c.position, table.c.task_id)
        )
        with self._db.read() as connection:
            return [
                QueuePlace(row.task_id, row.position, row.reason, row.is_audit)
                for row in connection.execute(query)
            ]

    def _set_state(self, draft: Project, state: str) -> None:
        table = t.model_versions
        with self._db.write() as connection:
            connection.execute(
                sa.update(table)
                .where(table.c.project_id == draft.id, table.c.name == draft.model_version)
                .values(state=state)
            )

    def _remove_unfinished(self, project: Project) -> None:
        versions = t.model_versions
        unfinished = sa.and_(versions.c.project_id == project.id, versions.c.state == WRITING)
        with self._db.write() as connection:
            names = list(connection.execute(sa.select(versions.c.name).where(unfinished)).scalars())
            for table in (t.predictions, t.queue_places):
                connection.execute(
                    sa.delete(table).where(
                        table.c.project_id == project.id, table.c.model_version.in_(names)
                    )
                )
            connection.execute(sa.delete(versions).where(unfinished))


def _carry_over(connection: sa.Connection, draft: Project, served: str) -> None:
    """Copy predictions of tasks that the draft does not know from the release it replaces."""
    table, there = t.predictions, t.predictions.alias()
    is_known = sa.exists().where(
        there.c.project_id == draft.id,
        there.c.model_version == draft.model_version,
        there.c.task_id == table.c.task_id,
    )
    names = ["project_id", "model_version", "task_id", "result", "score", "created_at"]
    rows = sa.select(
        table.c.project_id,
        sa.literal(draft.model_version),
        table.c.task_id,
        table.c.result,
        table.c.score,
        table.c.created_at,
    ).where(table.c.project_id == draft.id, table.c.model_version == served, ~is_known)
    connection.execute(sa.insert(table).from_select(names, rows))


def _prediction_row(project: Project, name: str, prediction: Prediction) -> dict[str, Any]:
    return {
        "project_id": project.id,
        "model_version": name,
        "task_id": prediction.task_id,
        "result": list(prediction.result),
        "score": prediction.score,
        "created_at": now(),
    }


def _place_row(project: Project, name: str, place: QueuePlace) -> dict[str, Any]:
    return {
        "project_id": project.id,
        "model_version": name,
        "task_id": place.task_id,
        "position": place.position,
        "reason": place.reason,
        "is_audit": place.is_audit,
    }
