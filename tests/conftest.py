"""Fixtures that many tests share: a fresh database, and what is kept in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.adapters.store import Database, LabelStore, ProjectStore, TaskStore, WorkStore
from backend.core.types import Project, ProjectId

pytest_plugins = ("tests.end_to_end.fixtures",)

SENTIMENT = (
    '<View><Header value="What does the reviewer think of the product?"/>'
    '<Text name="text" value="$text"/>'
    '<Choices name="sentiment" toName="text" choice="single">'
    '<Choice value="Positive"/><Choice value="Negative"/></Choices></View>'
)
TOPIC = SENTIMENT.replace("sentiment", "topic").replace("Positive", "Sport")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite file of the test's own."""
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def projects(database: Database) -> ProjectStore:
    return ProjectStore(database)


@pytest.fixture
def tasks(database: Database) -> TaskStore:
    return TaskStore(database)


@pytest.fixture
def labels(database: Database) -> LabelStore:
    return LabelStore(database)


@pytest.fixture
def work(database: Database) -> WorkStore:
    return WorkStore(database)


@pytest.fixture
def project(projects: ProjectStore) -> Project:
    """A connected project that asks for a sentiment."""
    return projects.save(ProjectId("1.1795215594"), label_config=SENTIMENT)[0]
