"""What is remembered of a project beside its labels: measured forms, calibration, trust."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store import tables as t
from backend.store.database import Database, now, upsert


class StateStore:
    """JSON values by project and name; the last one stays."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def get(self, project_id: ProjectId, name: str) -> Any:
        """Return the value, or None when there is none."""
        table = t.project_state
        query = sa.select(table.c.value).where(
            table.c.project_id == project_id, table.c.name == name
        )
        with self._db.read() as connection:
            return connection.execute(query).scalar_one_or_none()

    def put(self, project_id: ProjectId, name: str, value: Any) -> None:
        """Set the value, which has to be JSON."""
        row = {"project_id": project_id, "name": name, "value": value, "updated_at": now()}
        with self._db.write() as connection:
            upsert(connection, t.project_state, [row])
