"""Fixtures that many tests share: a fresh database, and what is kept in it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

from backend.domain.projects import Project, ProjectId
from backend.store import (
    Database,
    JobStore,
    LabelStore,
    ProjectStore,
    PublicationStore,
    ReleaseStore,
    StateStore,
    Stores,
    TaskStore,
)

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

pytest_plugins = ("tests.end_to_end.fixtures",)
pytest.register_assert_rewrite("tests.llm.client.vllm_client", "tests.pipeline.people")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell lone surrogates out in what a test logged: processes exchange valid UTF-8 only."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for title, text in report.sections
    ]
    return report


SENTIMENT = (
    '<View><Header value="What does the reviewer think of the product?"/>'
    '<Text name="text" value="$text"/>'
    '<Choices name="sentiment" toName="text" choice="single">'
    '<Choice value="Positive"/><Choice value="Negative"/></Choices></View>'
)
TOPIC = SENTIMENT.replace("sentiment", "topic").replace("Positive", "Sport")


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """An empty database of the test's own: SQLite, or on the server in TEST_POSTGRESQL_URL."""
    with empty_database(tmp_path) as url:
        yield url


@contextmanager
def empty_database(folder: Path) -> Iterator[str]:
    """Make a database where the tests run, and delete it."""
    server = os.environ.get("TEST_POSTGRESQL_URL")
    if not server:
        yield f"sqlite:///{folder / 'freeal.db'}"
        return
    name = f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield f"{server}/{name}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables and no rows: a copy is made faster than migrations run."""
    path = tmp_path_factory.mktemp("migrated") / "freeal.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def database(database_url: str, migrated_file: Path) -> Iterator[Database]:
    """A migrated database."""
    if database_url.startswith("sqlite"):
        shutil.copy(migrated_file, database_url.removeprefix("sqlite:///"))
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(database)


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
def publication(database: Database) -> PublicationStore:
    return PublicationStore(database)


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def releases(database: Database) -> ReleaseStore:
    return ReleaseStore(database)


@pytest.fixture
def state(database: Database) -> StateStore:
    return StateStore(database)


@pytest.fixture
def project(projects: ProjectStore) -> Project:
    """A connected project that asks for a sentiment."""
    return projects.save(ProjectId("1.1795215594"), label_config=SENTIMENT)[0]
