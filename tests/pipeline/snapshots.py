"""Keep a database and what Label Studio holds, to begin other tests where a long setup ended."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store import Stores
from backend.store.tables import metadata
from tests.fakes import FakePlatform

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
    def take(cls, project_id: ProjectId, stores: Stores, platform: FakePlatform) -> Snapshot:
        """Copy all that is stored."""
        with stores.projects._db.read() as connection:
            rows = {
                table: [
                    {name: v for name, v in row.items() if (table.name, name) != _NUMBERED}
                    for row in connection.execute(sa.select(table)).mappings()
                ]
                for table in metadata.sorted_tables
            }
        return cls(project_id, rows, copy.deepcopy(platform.projects), platform._last_id)

    def restore(self, stores: Stores, platform: FakePlatform) -> None:
        """Store all of it where nothing is stored."""
        with stores.projects._db.write() as connection:
            for table, rows in self.rows.items():
                if rows:
                    connection.execute(sa.insert(table), rows)
        platform.projects = copy.deepcopy(self.projects)
        platform._last_id = self.last_id


@dataclass(frozen=True)
class Setups:
    """What was set up once, by what tells one setup from others."""

    known: dict[Hashable, Snapshot] = field(default_factory=dict)

    def project(self, house: Any, key: Hashable, set_up: Callable[[], ProjectId]) -> ProjectId:
        """Return a project of an empty house that is as `set_up` leaves it; called once a key."""
        if key in self.known:
            self.known[key].restore(house.stores, house.platform)
        else:
            self.known[key] = Snapshot.take(set_up(), house.stores, house.platform)
        return self.known[key].project_id
