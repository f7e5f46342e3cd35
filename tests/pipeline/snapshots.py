"""Keep a house's database and Label Studio, to begin other tests where a long setup ended."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store.tables import metadata
from tests.pipeline.conftest import House

_NUMBERED = ("events", "id")
"""Table and column that the database numbers itself."""


@dataclass(frozen=True)
class Snapshot:
    """All rows by table, and what Label Studio holds."""

    project_id: ProjectId
    rows: dict[sa.Table, list[dict[str, Any]]]
    projects: dict[int, Any]
    last_id: int

    @classmethod
    def take(cls, house: House, project_id: ProjectId) -> Snapshot:
        """Copy what the house has stored."""
        with house.projects._db.read() as connection:
            rows = {
                table: [
                    {name: v for name, v in row.items() if (table.name, name) != _NUMBERED}
                    for row in connection.execute(sa.select(table)).mappings()
                ]
                for table in metadata.sorted_tables
            }
        platform = house.platform
        return cls(project_id, rows, copy.deepcopy(platform.projects), platform._last_id)

    def put_in(self, house: House) -> None:
        """Store all of it in a house without rows."""
        with house.projects._db.write() as connection:
            for table, rows in self.rows.items():
                if rows:
                    connection.execute(sa.insert(table), rows)
        house.platform.projects = copy.deepcopy(self.projects)
        house.platform._last_id = self.last_id


class Setups(dict[Any, Snapshot]):
    """What was set up once, by what tells one setup from others."""

    def project(self, house: House, key: Any, set_up: Callable[[], ProjectId]) -> ProjectId:
        """Return a project that is as `set_up` leaves it, which is called for the first one."""
        if key in self:
            self[key].put_in(house)
        else:
            self[key] = Snapshot.take(house, set_up())
        return self[key].project_id
