"""Store releases: written as drafts, promoted in one transaction, kept for a rollback."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import (
    AnsweredTask,
    Prediction,
    Project,
    ProjectId,
    QueuePlace,
    Release,
)
from backend.errors import UnknownModelVersion
from backend.store import tables as t
from backend.store.database import Repository, execute_for, now, upsert
from backend.store.labels import prediction_row
from backend.store.projects import DRAFT, RELEASED, WRITING, start_version
from backend.store.tables import existing, of_question, of_version, submitted

_MAX_ROWS = 2_000


class ReleaseStore(Repository):
    """Store model versions with their predictions and queue.

    Large releases are written in slices, so that webhooks need not wait long; what a kill leaves
    half written is deleted by the next draft.
    """

    def draft(
        self,
        project: Project,
        predictions: Sequence[Prediction],
        places: Sequence[QueuePlace],
        provenance: Mapping[str, Any],
    ) -> Project:
        """Write a release that is not served yet; return the project as it would serve it.

        The predictions' own model version is ignored.
        """
        self._delete_unfinished(project)
        with self._db.write() as connection:
            name = start_version(connection, project.id, provenance, project.question_version)
        moment, key = now(), {"project_id": project.id, "model_version": name}
        for table, rows in (
            (t.predictions, [prediction_row(project.id, name, p, moment) for p in predictions]),
            (t.queue_places, [key | asdict(place) for place in places]),
        ):
            for start in range(0, len(rows), _MAX_ROWS):
                with self._db.write() as connection:
                    upsert(connection, table, rows[start : start + _MAX_ROWS])
        draft = replace(project, model_version=name)
        self._set_state(draft, DRAFT)
        return draft

    def pending(self, project: Project) -> Project | None:
        """Return the newest draft that answers the present question, None without one."""
        table = t.model_versions
        query = sa.select(table.c.name).where(of_question(project, table), table.c.state == DRAFT)
        name = self._db.fetch_value(query.order_by(table.c.number.desc()).limit(1))
        return None if name is None else replace(project, model_version=name)

    def promote(self, draft: Project) -> bool:
        """Serve a draft; False when the question has changed since.

        Predictions made after the draft was written are copied. Older drafts are superseded.
        """
        projects, versions = t.projects, t.model_versions
        is_asked = sa.and_(
            projects.c.id == draft.id, projects.c.question_version == draft.question_version
        )
        with self._db.write() as connection:
            served = connection.execute(
                sa.select(projects.c.model_version).where(projects.c.id == draft.id)
            ).scalar_one()
            n_changed = connection.execute(
                sa.update(projects).where(is_asked).values(model_version=draft.model_version)
            ).rowcount
            if n_changed and served != draft.model_version:
                _copy_later_predictions(connection, draft, served)
            is_draft = sa.and_(versions.c.project_id == draft.id, versions.c.state == DRAFT)
            connection.execute(sa.update(versions).where(is_draft).values(state=RELEASED))
            return bool(n_changed)

    def restore(self, project: Project, model_version: str) -> Project:
        """Make an earlier release a draft again; raises UnknownModelVersion."""
        table = t.model_versions
        statement = sa.update(table).where(
            of_question(project, table), table.c.name == model_version, table.c.state == RELEASED
        )
        if not self._db.execute(statement.values(state=DRAFT, withdrawn_at=None)):
            raise UnknownModelVersion(
                f"project {project.id} has no release {model_version!r} that answers what it asks "
                "now; `python -m backend status` lists its releases"
            )
        return replace(project, model_version=model_version)

    def provenance(self, project_id: ProjectId, model_version: str) -> dict[str, Any]:
        """Return what a release was made from; empty when there is no such release."""
        table = t.model_versions
        query = sa.select(table.c.provenance).where(
            table.c.project_id == project_id, table.c.name == model_version
        )
        return dict(self._db.fetch_value(query) or {})

    def inherit(self, before: Project, after: Project, *, questions: Collection[str]) -> None:
        """Give a release the provenance of the one that it follows, as far as these questions."""
        table = t.model_versions
        known = {
            name: {key: one for key, one in value.items() if key in questions}
            if isinstance(value, dict)
            else value
            for name, value in self.provenance(before.id, before.model_version).items()
        }
        is_after = sa.and_(table.c.project_id == after.id, table.c.name == after.model_version)
        self._db.execute(sa.update(table).where(is_after).values(provenance=known))

    def places(self, project: Project) -> list[QueuePlace]:
        """Return the queue of the project's release, first place first."""
        table = t.queue_places
        query = sa.select(table).where(of_version(project, table))
        query = query.order_by(table.c.position, table.c.task_id)
        return [_place(row) for row in self._db.fetch(query)]

    def waiting(
        self, project: Project, limit: int, offset: int = 0
    ) -> tuple[list[QueuePlace], int, int]:
        """Return places of tasks without an annotation, how many such there are, and later tasks.

        The last number counts open tasks without a place: they came after the release's ordering.
        """
        places, tasks, labels = t.queue_places, t.tasks, t.human_labels
        # sets, and no look at each task's row, which holds its texts
        answered = sa.select(labels.c.task_id).where(
            submitted(project.id), labels.c.task_id.is_not(None)
        )
        gone = sa.select(tasks.c.id).where(
            tasks.c.project_id == project.id, tasks.c.deleted_at.is_not(None)
        )
        is_waiting = sa.and_(
            of_version(project, places),
            places.c.task_id.not_in(answered),
            places.c.task_id.not_in(gone),
        )
        query = sa.select(places).where(is_waiting)
        query = query.order_by(places.c.position, places.c.task_id).limit(limit).offset(offset)
        n = sa.func.count()
        n_tasks = sa.select(n).where(existing(tasks, project.id)).scalar_subquery()
        n_answered = sa.select(sa.func.count(sa.distinct(answered.subquery().c.task_id)))
        counts = sa.select(
            sa.select(n).where(is_waiting).scalar_subquery(),
            n_tasks - n_answered.scalar_subquery(),
            sa.exists().where(of_version(project, places)),
        )
        with self._db.read() as connection:
            found = [_place(row) for row in connection.execute(query)]
            n_waiting, n_open, has_order = connection.execute(counts).one()
        return found, n_waiting, max(0, n_open - n_waiting) if has_order else 0

    def answered_lately(self, project: Project, limit: int) -> list[AnsweredTask]:
        """Return the last annotations and skips, newest first, with the newest place of the task.

        Annotations that were made in bulk from predictions are left out.
        """
        labels, places, versions = t.human_labels, t.queue_places, t.model_versions
        # no results, which are large: all rows are read to find the last
        names = ("task_id", "annotator_id", "updated_at", "was_cancelled")
        query = sa.select(*(labels.c[name] for name in names))
        query = query.where(existing(labels, project.id), labels.c.is_copied.is_(False))
        query = query.order_by(labels.c.updated_at.desc(), labels.c.annotation_id.desc())
        of_release = sa.and_(
            versions.c.project_id == project.id,
            places.c.project_id == project.id,
            places.c.model_version == versions.c.name,
        )
        with self._db.read() as connection:
            rows = connection.execute(query.limit(limit)).all()
            ids = {row.task_id for row in rows if row.task_id is not None}
            placed = sa.select(places).where(of_release, places.c.task_id.in_(ids))
            found = connection.execute(placed.order_by(versions.c.number)).all() if ids else []
        newest = {row.task_id: _place(row) for row in found}
        return [
            AnsweredTask(
                row.task_id,
                row.annotator_id,
                row.updated_at,
                row.was_cancelled,
                newest.get(row.task_id),
            )
            for row in rows
        ]

    def history(self, project: Project) -> list[Release]:
        """Return the project's releases that are kept, newest first."""
        table = t.model_versions
        query = sa.select(table).where(
            table.c.project_id == project.id, table.c.state.in_([RELEASED, DRAFT])
        )
        return [
            Release(
                row.name,
                row.created_at,
                is_draft=row.state == DRAFT,
                can_return=row.state == RELEASED
                and row.question_version == project.question_version
                and row.name != project.model_version,
                provenance=row.provenance,
            )
            for row in self._db.fetch(query.order_by(table.c.number.desc()))
        ]

    def put_places(self, project: Project, places: Sequence[QueuePlace]) -> None:
        """Replace the queue of the project's version; tasks of both queues have a place throughout.

        Chunks that are labeled meanwhile read their tasks' places.
        """
        table = t.queue_places
        stored = self._db.fetch_column(sa.select(table.c.task_id).where(of_version(project, table)))
        key = {"project_id": project.id, "model_version": project.model_version}
        for start in range(0, len(places), _MAX_ROWS):
            rows = [key | asdict(place) for place in places[start : start + _MAX_ROWS]]
            with self._db.write() as connection:
                upsert(connection, table, rows)
        gone = sorted(set(stored) - {place.task_id for place in places})
        with self._db.write() as connection:
            statement = sa.delete(table).where(of_version(project, table))
            execute_for(connection, statement, table.c.task_id, gone)

    def positions(self, project: Project, task_ids: Sequence[int]) -> dict[int, int]:
        """Return the positions of some tasks in the queue of the project's version."""
        table = t.queue_places
        query = sa.select(table.c.task_id, table.c.position).where(of_version(project, table))
        with self._db.read() as connection:
            rows = execute_for(connection, query, table.c.task_id, task_ids)
        return {row.task_id: row.position for row in rows}

    def _set_state(self, draft: Project, state: str) -> None:
        table = t.model_versions
        is_draft = sa.and_(table.c.project_id == draft.id, table.c.name == draft.model_version)
        self._db.execute(sa.update(table).where(is_draft).values(state=state))

    def _delete_unfinished(self, project: Project) -> None:
        versions = t.model_versions
        unfinished = sa.and_(versions.c.project_id == project.id, versions.c.state == WRITING)
        names = sa.select(versions.c.name).where(unfinished)
        with self._db.write() as connection:
            for table in (t.predictions, t.queue_places):
                is_part = sa.and_(
                    table.c.project_id == project.id, table.c.model_version.in_(names)
                )
                connection.execute(sa.delete(table).where(is_part))
            connection.execute(sa.delete(versions).where(unfinished))


def _place(row: Any) -> QueuePlace:
    return QueuePlace(row.task_id, row.position, row.reason, row.is_holdout)


def _copy_later_predictions(connection: sa.Connection, draft: Project, served: str) -> None:
    """Copy the served predictions of tasks that the draft has none for."""
    table, drafted = t.predictions, t.predictions.alias()
    is_known = sa.exists().where(
        drafted.c.project_id == draft.id,
        drafted.c.model_version == draft.model_version,
        drafted.c.task_id == table.c.task_id,
    )
    names = ["project_id", "task_id", "result", "score", "created_at"]
    columns = [sa.literal(draft.model_version), *(table.c[name] for name in names)]
    rows = sa.select(*columns).where(
        table.c.project_id == draft.id, table.c.model_version == served, ~is_known
    )
    connection.execute(sa.insert(table).from_select(["model_version", *names], rows))
