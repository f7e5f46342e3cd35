"""Projects and their model versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import Project, ProjectId, SyncState
from backend.store import tables as t
from backend.store.database import Database, now

WRITING, DRAFT, RELEASED = "writing", "draft", "released"
"""States of a model version. Only a released one can be superseded."""


class ProjectStore:
    """Projects by id. Methods that change something are safe to repeat."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(
        self,
        project_id: ProjectId,
        *,
        label_config: str,
        title: str | None = None,
        instruction: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> tuple[Project, bool]:
        """Create or update a project; return it and whether what it asks has changed.

        A new label config or instruction starts a new model version, because every label under
        the old one answered another question. None leaves a value as it is.
        """
        with self._db.write() as connection:
            row = connection.execute(_by_id(project_id)).mappings().first()
            values = {
                "label_config": label_config,
                "title": title if title is not None else (row["title"] if row else ""),
                "instruction": (
                    instruction if instruction is not None else (row["instruction"] if row else "")
                ),
            }
            is_new_question = row is None or any(
                row[key] != values[key] for key in ("label_config", "instruction")
            )
            if is_new_question:
                version = start_version(connection, project_id, provenance or {})
                values |= {"model_version": version, "question_version": version}
            if row is None:
                values |= {"id": project_id, "is_connected": True, "created_at": now()}
                connection.execute(sa.insert(t.projects).values(values))
            else:
                values["is_connected"] = True
                connection.execute(
                    sa.update(t.projects).where(t.projects.c.id == project_id).values(values)
                )
            saved = connection.execute(_by_id(project_id)).mappings().one()
            return _project(saved), is_new_question

    def get(self, project_id: ProjectId) -> Project | None:
        """Return a project, or None when it was never connected."""
        with self._db.read() as connection:
            row = connection.execute(_by_id(project_id)).mappings().first()
            return _project(row) if row else None

    def find(self, platform_id: int) -> Project | None:
        """Return the newest project with Label Studio's number `platform_id`."""
        matching = [p for p in self.all() if p.platform_id == platform_id]
        return max(matching, key=lambda p: float(p.id)) if matching else None

    def all(self) -> list[Project]:
        """Return all projects, by id."""
        with self._db.read() as connection:
            rows = connection.execute(sa.select(t.projects)).mappings().all()
        return sorted((_project(row) for row in rows), key=lambda p: float(p.id))

    def disconnect(self, project_id: ProjectId) -> None:
        """Stop working for a project; it starts again when Label Studio calls /setup."""
        self._update(project_id, is_connected=False)

    def versions(self, project_id: ProjectId) -> list[str]:
        """Return the project's model versions, newest first."""
        table = t.model_versions
        query = (
            sa.select(table.c.name)
            .where(table.c.project_id == project_id)
            .order_by(table.c.number.desc())
        )
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def superseded_versions(self, project_id: ProjectId) -> list[str]:
        """Return versions that are neither the present one, nor drafts, nor withdrawn yet."""
        table = t.model_versions
        query = (
            sa.select(table.c.name)
            .join(t.projects, t.projects.c.id == table.c.project_id)
            .where(
                table.c.project_id == project_id,
                table.c.withdrawn_at.is_(None),
                table.c.state == RELEASED,
                table.c.name != t.projects.c.model_version,
            )
        )
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def note_withdrawn(self, project_id: ProjectId, model_version: str) -> None:
        """Record that Label Studio no longer holds this version's predictions.

        They stay here: a rollback publishes them again.
        """
        versions, predictions = t.model_versions, t.predictions
        with self._db.write() as connection:
            connection.execute(
                sa.update(versions)
                .where(versions.c.project_id == project_id, versions.c.name == model_version)
                .values(withdrawn_at=now())
            )
            connection.execute(
                sa.update(predictions)
                .where(
                    predictions.c.project_id == project_id,
                    predictions.c.model_version == model_version,
                )
                .values(published_at=None, sent_at=None, offered_at=None)
            )

    def served_version(self, project_id: ProjectId) -> str | None:
        """Return the version that Label Studio was last told to serve."""
        with self._db.read() as connection:
            return connection.execute(
                sa.select(t.projects.c.served_version).where(t.projects.c.id == project_id)
            ).scalar()

    def note_served(self, project_id: ProjectId, model_version: str | None) -> None:
        """Record which version Label Studio serves."""
        self._update(project_id, served_version=model_version)

    def sync_state(self, project_id: ProjectId) -> SyncState:
        """Return when the project was last listed in full."""
        columns = (
            t.projects.c.full_sync_at,
            t.projects.c.full_sync_s,
            t.projects.c.n_foreign_predictions,
        )
        with self._db.read() as connection:
            row = connection.execute(sa.select(*columns).where(t.projects.c.id == project_id))
            return SyncState(*row.one())

    def note_full_sync(
        self, project_id: ProjectId, seconds: float, n_foreign_predictions: int
    ) -> None:
        """Record a full listing: how long it took, how many predictions were not ours."""
        self._update(
            project_id,
            full_sync_at=now(),
            full_sync_s=seconds,
            n_foreign_predictions=n_foreign_predictions,
        )

    def forget_full_sync(self, project_id: ProjectId) -> None:
        """Make the next sync list the project in full."""
        self._update(project_id, full_sync_at=None)

    def _update(self, project_id: ProjectId, **values: Any) -> None:
        with self._db.write() as connection:
            connection.execute(
                sa.update(t.projects).where(t.projects.c.id == project_id).values(values)
            )


def _by_id(project_id: ProjectId) -> sa.Select[Any]:
    return sa.select(t.projects).where(t.projects.c.id == project_id)


def start_version(
    connection: sa.Connection,
    project_id: ProjectId,
    provenance: Mapping[str, Any],
    question_version: str | None = None,
) -> str:
    """Add a model version; one that answers an earlier one's question is still to be written."""
    table = t.model_versions
    last = connection.execute(
        sa.select(sa.func.max(table.c.number)).where(table.c.project_id == project_id)
    ).scalar()
    number = (last or 0) + 1
    moment = now()
    name = f"freeal-{number}-{moment:%Y%m%d-%H%M%S}"
    row = {
        "project_id": project_id,
        "name": name,
        "number": number,
        "question_version": question_version or name,
        "state": WRITING if question_version else RELEASED,
        "provenance": dict(provenance),
        "created_at": moment,
    }
    connection.execute(sa.insert(table).values(row))
    return name


def _project(row: Mapping[Any, Any]) -> Project:
    return Project(
        id=ProjectId(row["id"]),
        label_config=row["label_config"],
        instruction=row["instruction"],
        title=row["title"],
        model_version=row["model_version"],
        question_version=row["question_version"],
        is_connected=row["is_connected"],
    )
