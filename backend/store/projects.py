"""Store projects with their model versions, measured state and progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import (
    Disconnection,
    Project,
    ProjectId,
    SyncState,
    is_project_id,
)
from backend.store import tables as t
from backend.store.database import Repository, insert_new, now, upsert

ROUND_ASKED = "round_asked"
"""The name of a project's state that says who asked for a round, until it has begun."""
WRITING, DRAFT, RELEASED, EXPIRED = "writing", "draft", "released", "expired"
"""States of a model version. Only a released one can be superseded; an expired one is deleted."""
WAS_FOUND = sa.or_(t.projects.c.full_sync_at.is_not(None), t.projects.c.served_version.is_not(None))
"""Whether Label Studio has shown a project to this backend."""


class ProjectStore(Repository):
    """Store projects by id; every write is safe to repeat."""

    def save(
        self,
        project_id: ProjectId,
        *,
        label_config: str,
        title: str | None = None,
        instruction: str | None = None,
        provenance: Mapping[str, Any] | None = None,
        asks_the_same: bool = False,
    ) -> tuple[Project, bool]:
        """Create or update a project; return it and whether what it asks has changed.

        A new label config or instruction starts a new model version, because every label under
        the old one answered another question; not if the config only has another text and
        `asks_the_same`. None leaves a value as it is.
        """
        table = t.projects
        given = {"label_config": label_config, "title": title, "instruction": instruction}
        values: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        with self._db.write() as connection:
            row = connection.execute(_by_id(project_id)).first()
            is_same = asks_the_same or label_config == getattr(row, "label_config", None)
            is_instructed = "instruction" not in values or row is None
            is_new_question = row is None or not (
                is_same and (is_instructed or row.instruction == values["instruction"])
            )
            if is_new_question:
                version = start_version(connection, project_id, provenance or {})
                values |= {"model_version": version, "question_version": version}
            if row is None:
                values |= {"id": project_id, "created_at": now(), "is_connected": True}
                connection.execute(sa.insert(table).values(values))
            else:
                connection.execute(sa.update(table).where(table.c.id == project_id).values(values))
            return _project(connection.execute(_by_id(project_id)).one()), is_new_question

    def get(self, project_id: ProjectId) -> Project | None:
        """Return a project, or None when it was never connected."""
        rows = self._db.fetch(_by_id(project_id)) if is_project_id(project_id) else ()
        return _project(rows[0]) if rows else None

    def connected(self, project_id: ProjectId) -> Project | None:
        """Return a project that Label Studio uses now, None for any other."""
        project = self.get(project_id)
        return project if project and project.is_connected else None

    def find(self, platform_id: int) -> Project | None:
        """Return the project with Label Studio's number `platform_id`.

        Of several it is one that Label Studio uses, then one that it has confirmed, then the
        newest: whoever invents another creation time does not stand in for it.
        """
        table = t.projects
        has_number = table.c.id.startswith(f"{platform_id}.", autoescape=True)
        rows = self._db.fetch(sa.select(table, WAS_FOUND.label("is_confirmed")).where(has_number))
        found = [(_project(row), bool(row.is_confirmed)) for row in rows if is_project_id(row.id)]
        if not found:
            return None
        return max(found, key=lambda one: (one[0].is_connected, one[1], one[0].created_s))[0]

    def named(self, name: str) -> Project | None:
        """Return a project by Label Studio's number of it or by its whole id."""
        if is_project_id(name):
            return self.get(ProjectId(name))
        return self.find(int(name)) if is_project_id(f"{name}.0") else None

    def all(self) -> list[Project]:
        """Return all projects, by id."""
        rows = [row for row in self._db.fetch(sa.select(t.projects)) if is_project_id(row.id)]
        return sorted(map(_project, rows), key=lambda p: (p.platform_id, p.created_s))

    def count(self) -> int:
        """Return how many projects there are, in tables of any version."""
        return int(self._db.fetch_value(sa.select(sa.func.count()).select_from(t.projects)))

    def n_open(self) -> int:
        """Return how many projects are connected, or were never found in Label Studio."""
        is_open = sa.or_(t.projects.c.is_connected, ~WAS_FOUND)
        return int(self._db.fetch_value(sa.select(sa.func.count()).where(is_open)) or 0)

    def disconnect(
        self, project_id: ProjectId, reason: Disconnection = Disconnection.REMOVED, why: str = ""
    ) -> None:
        """Stop working for a project; what blocked its work is no problem now.

        Its data is deleted after a grace, counted from the first of several calls. What was asked
        for is forgotten, unless the project may be connected again by itself.
        """
        table = t.projects
        is_own = table.c.id == project_id
        with self._db.write() as connection:
            connection.execute(
                sa.update(table)
                .where(is_own, table.c.is_connected)
                .values(is_connected=False, disconnected_at=now())
            )
            reasons = {"disconnection": reason, "disconnected_why": why}
            connection.execute(sa.update(table).where(is_own).values(reasons))
            is_final = reason != Disconnection.REFUSED
            for other in (t.problems, t.job_requests) if is_final else (t.problems,):
                connection.execute(sa.delete(other).where(other.c.project_id == project_id))
            if is_final:
                state = t.project_state
                is_asked = sa.and_(state.c.project_id == project_id, state.c.name == ROUND_ASKED)
                connection.execute(sa.delete(state).where(is_asked))

    def reconnect(self, project: Project) -> Project:
        """Work for a project again, as it was left."""
        nothing: dict[str, Any] = {"disconnection": None, "disconnected_why": None}
        self._update(project.id, is_connected=True, disconnected_at=None, **nothing)
        return replace(project, is_connected=True, **nothing)

    def versions(self, project_id: ProjectId) -> list[str]:
        """Return the project's model versions, newest first."""
        table = t.model_versions
        query = sa.select(table.c.name).where(table.c.project_id == project_id)
        return self._db.fetch_column(query.order_by(table.c.number.desc()))

    def superseded_versions(self, project_id: ProjectId) -> list[str]:
        """Return versions that are neither the present one, nor drafts, nor withdrawn yet."""
        table = t.model_versions
        query = sa.select(table.c.name).where(
            table.c.project_id == project_id,
            table.c.withdrawn_at.is_(None),
            table.c.state == RELEASED,
            t.projects.c.id == table.c.project_id,
            t.projects.c.model_version != table.c.name,
        )
        return self._db.fetch_column(query)

    def note_withdrawn(self, project_id: ProjectId, model_version: str) -> None:
        """Record that Label Studio no longer holds this version's predictions.

        They stay here: a rollback publishes them again.
        """
        unpublished = {"published_at": None, "sent_at": None, "offered_at": None}
        with self._db.write() as connection:
            for column, values in (
                (t.model_versions.c.name, {"withdrawn_at": now()}),
                (t.predictions.c.model_version, unpublished),
            ):
                of_project = column.table.c.project_id == project_id
                statement = sa.update(column.table).where(of_project, column == model_version)
                connection.execute(statement.values(values))

    def served_version(self, project_id: ProjectId) -> str | None:
        """Return the version that Label Studio was last told to serve."""
        query = sa.select(t.projects.c.served_version).where(t.projects.c.id == project_id)
        version: str | None = self._db.fetch_value(query)
        return version

    def note_served(self, project_id: ProjectId, model_version: str | None) -> None:
        """Record which version Label Studio serves."""
        self._update(project_id, served_version=model_version)

    def sync_state(self, project_id: ProjectId) -> SyncState:
        """Return when the project was last listed in full."""
        (row,) = self._db.fetch(_by_id(project_id))
        return SyncState(row.full_sync_at, row.full_sync_s, row.n_foreign_predictions)

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
        self._db.execute(sa.update(t.projects).where(t.projects.c.id == project_id).values(values))


class StateStore(Repository):
    """Store JSON values by project and name: chosen templates, fitted label models, the queue."""

    def get(self, project_id: ProjectId, name: str) -> Any:
        """Return the value, None when there is none."""
        table = t.project_state
        is_named = sa.and_(table.c.project_id == project_id, table.c.name == name)
        return self._db.fetch_value(sa.select(table.c.value).where(is_named))

    def current(self, project: Project, name: str) -> dict[str, Any] | None:
        """Return the value if its `question_version` is what the project asks now, else None."""
        value = self.get(project.id, name)
        if not value or value.get("question_version") != project.question_version:
            return None
        return dict(value)

    def put(self, project_id: ProjectId, name: str, value: Any) -> None:
        """Set the value, which has to be JSON; it replaces an earlier one."""
        row = {"project_id": project_id, "name": name, "value": value, "updated_at": now()}
        with self._db.write() as connection:
            upsert(connection, t.project_state, [row])

    def projects_with(self, name: str) -> set[str]:
        """Return the ids of the projects that have a value of this name, about any question."""
        table = t.project_state
        is_named = sa.and_(table.c.name == name, table.c.value.is_not(None))
        return set(self._db.fetch_column(sa.select(table.c.project_id).where(is_named)))

    def drop(self, project_id: ProjectId, name: str, value: Any) -> None:
        """Delete a value, unless it is another one by now."""
        table = t.project_state
        is_value = sa.and_(table.c.name == name, table.c.value == value)
        self._db.execute(sa.delete(table).where(table.c.project_id == project_id, is_value))

    def swap(self, project_id: ProjectId, name: str, old: Any, new: Any) -> bool:
        """Set the value unless it is another one by now than `old`, which `get` has returned.

        Returns whether it was set: of several who read the same value, one is the first.
        """
        table, moment = t.project_state, now()
        row = {"project_id": project_id, "name": name, "value": new, "updated_at": moment}
        is_old = sa.and_(table.c.name == name, table.c.value == old)
        statement = sa.update(table).where(table.c.project_id == project_id, is_old)
        with self._db.write() as connection:
            if old is None and insert_new(connection, table, row):
                return True
            changed = connection.execute(statement.values(value=new, updated_at=moment))
            return bool(changed.rowcount)

    def put_first(self, project_id: ProjectId, name: str, value: Any) -> Any:
        """Set the value unless there is one; return the one that stands."""
        row = {"project_id": project_id, "name": name, "value": value, "updated_at": now()}
        with self._db.write() as connection:
            upsert(connection, t.project_state, [row], keep=("value", "updated_at"))
        return self.get(project_id, name)


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


def _project(row: Any) -> Project:
    return Project(**{field.name: getattr(row, field.name) for field in fields(Project)})
