"""Bring the tables to this version; an older database is copied first, a newer one refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from backend.errors import StoreUnavailable
from backend.store.snapshot import copy_sqlite
from backend.store.tables import VERSION_TABLE

if TYPE_CHECKING:
    from backend.store.database import Database

_LOG = logging.getLogger(__name__)
_VERSIONS = Path(__file__).parent / "migrations" / "versions"
_MIGRATION_LOCK_ID = 7_261_239
_COPY = "before-"


def known_revisions() -> list[str]:
    """Return the revisions of the tables that this version knows, oldest first."""
    return sorted(file.name[:4] for file in _VERSIONS.glob("[0-9]*.py"))


def check_known(revision: str) -> None:
    """Raise StoreUnavailable if tables of this revision are of a newer version of the backend."""
    known = known_revisions()
    if revision not in known:
        raise StoreUnavailable(
            f"the database has tables of version {revision}, and this backend knows {known[-1]} at "
            "most: a newer backend has used it. Install that version again, or restore a backup "
            "that was made before"
        )


def read_revision(connection: sa.Connection) -> str | None:
    """Return the revision of the tables, None before the first migration."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    column: sa.ColumnClause[str] = sa.column("version_num")
    return connection.execute(sa.select(column).select_from(sa.table(VERSION_TABLE))).scalar()


def upgrade(database: Database, revision: str = "head") -> None:
    """Create the tables or upgrade them; safe to run from several processes.

    Raises:
        StoreUnavailable: the tables are of a newer version, or no copy of them can be made.
    """
    with database.read() as connection:
        present = read_revision(connection)
    newest = known_revisions()[-1]
    if present is not None:
        check_known(present)
    if present == newest:
        return  # importing Alembic takes half a second, which every command would pay
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_VERSIONS.parent))
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK_ID)))
        present = read_revision(connection)  # another process may have been faster
        if present not in (None, newest) and _has_projects(connection):
            _copy(connection, newest)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    if present not in (None, newest):
        try:
            database.compact()
        except StoreUnavailable as exc:
            _LOG.warning("space of deleted rows is used again, but not given back: %s", exc)


def _has_projects(connection: sa.Connection) -> bool:
    return connection.execute(sa.text("SELECT 1 FROM projects LIMIT 1")).first() is not None


def _copy(connection: sa.Connection, newest: str) -> None:
    """Copy all tables: an SQLite file beside itself, PostgreSQL's into a schema of their own.

    The copy of an earlier upgrade is deleted.
    """
    if connection.dialect.name == "sqlite":
        path = Path(connection.engine.url.database or "")
        copy = path.with_name(f"{path.name}.{_COPY}{newest}")
        copy_sqlite(path, copy)
        for earlier in set(path.parent.glob(f"{path.name}.{_COPY}*")) - {copy}:
            earlier.unlink(missing_ok=True)
        _LOG.warning("the database is upgraded; a copy as it was is %s", copy.name)
        return
    inspector = sa.inspect(connection)
    schema = f"{_COPY}{newest}".replace("-", "_")
    prefix = _COPY.replace("-", "_")
    for earlier_schema in inspector.get_schema_names():
        if earlier_schema.startswith(prefix):
            connection.execute(sa.schema.DropSchema(earlier_schema, cascade=True))
    connection.execute(sa.schema.CreateSchema(schema))
    for table in inspector.get_table_names():
        connection.execute(sa.text(f'CREATE TABLE {schema}."{table}" AS TABLE "{table}"'))
    _LOG.warning("the database is upgraded; a copy as it was is in its schema %s", schema)
