"""Fixtures that many tests share: a fresh database, and what is kept in it."""

from __future__ import annotations

import gc
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
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
from backend.store.tables import metadata

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

pytest_plugins = ("tests.end_to_end.fixtures",)
pytest.register_assert_rewrite("tests.llm.client.vllm_client", "tests.pipeline.people")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is imported and collected, then or later: all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
_SERVER = os.environ.get("TEST_POSTGRESQL_URL", "")
_DATABASES = {"empty_databases", "migrated_url"}
"""The fixtures that make databases on the server, directly or for others."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run on PostgreSQL those tests alone that use a database on it."""
    if _SERVER:
        others = [item for item in items if not _DATABASES & {*getattr(item, "fixturenames", ())}]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture
def empty_databases() -> Iterator[Callable[[Path], str]]:
    """Makes empty databases of the test's own: SQLite, or on the server in TEST_POSTGRESQL_URL."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(_new_database(folder))


@pytest.fixture
def database_url(empty_databases: Callable[[Path], str], tmp_path: Path) -> str:
    """An empty database."""
    return empty_databases(tmp_path)


@contextmanager
def _new_database(folder: Path) -> Iterator[str]:
    if not _SERVER:
        yield f"sqlite:///{folder / 'freeal.db'}"
        return
    name = f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(f"{_SERVER}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield f"{_SERVER}/{name}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables and no rows: a copy is made faster than migrations run."""
    path = tmp_path_factory.mktemp("migrated") / "freeal.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def shared_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with all tables: emptied for the next test, which is faster than making one."""
    with _new_database(tmp_path_factory.mktemp("shared")) as url:
        _migrate(url)
        yield url


def _migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def _delete_rows(url: str) -> None:
    """Close what a test has left open, and delete all rows of all tables."""
    engine = sa.create_engine(url)
    tables = ", ".join(metadata.tables)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid != pg_backend_pid()"
            )
        )
        connection.execute(sa.text(f"TRUNCATE {tables} RESTART IDENTITY"))
    engine.dispose()


@pytest.fixture
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables and no rows, where the tests run; the tables stay as they are."""
    if not _SERVER:
        file = shutil.copy(request.getfixturevalue("migrated_file"), tmp_path)
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("shared_url")
    _delete_rows(url)
    return url


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A migrated database."""
    database = Database(migrated_url)
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
