"""Connections, transactions and migrations for SQLite and PostgreSQL."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from backend.errors import SettingsError, StoreRefused, StoreUnavailable
from backend.store.snapshot import copy_sqlite, dump_postgresql, load_postgresql
from backend.store.upgrade import read_revision, upgrade

_LOG = logging.getLogger(__name__)
_BUSY_TIMEOUT_S = 15
_WAL_RETRY_S = 0.01
_MAX_IN_LIST = 1_000
_REFUSALS = (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError)
_PAGES_AT_ONCE = 1_000
_MAX_SLOT_WAIT_S = 0.5
_MAX_IDLE_WAL_BYTES = 64 * 1024**2
_PATIENCE_S: ContextVar[float] = ContextVar("patience_s", default=_BUSY_TIMEOUT_S)
_WRITE_CHECK = (
    "INSERT INTO workers (id, started_at, seen_at) "
    "VALUES ('check', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)",
    "DELETE FROM workers WHERE id = 'check'",
)


class Database:
    """Open transactions on one engine; concurrent SQLite writers wait instead of failing.

    SQLite runs in WAL mode with synchronous=NORMAL: a killed process loses nothing, a power cut
    can lose the last transactions, which the next sync with Label Studio repairs.
    """

    def __init__(self, url: str, *, max_writers: int | None = None) -> None:
        """Connect at the first use.

        `max_writers`: how many threads may write, or wait for their turn, at a time; further ones
        fail after half a second, so that a locked database does not take all threads of a process.
        """
        try:
            self._url = sa.make_url(url)
            self._engine = _engine(self._url)
        except (sa.exc.ArgumentError, ValueError, ImportError) as exc:
            raise SettingsError(
                f"DATABASE_URL cannot be used ({type(exc).__name__}): expected "
                "postgresql://user:password@host:port/name, with %40 for @ and %2F for / in the "
                "password, or sqlite:////path/to/file.db"
            ) from None  # the exception shows the URL, which holds a password
        self._name = _name(self._url)
        self._slots = threading.BoundedSemaphore(max_writers) if max_writers else None
        self._reader = self._engine.execution_options(freeal_reader=True)
        self._writer_lock = threading.Lock() if self.is_sqlite else None

    @property
    def kind(self) -> str:
        """The kind of database: "sqlite" or "postgresql"."""
        return self._url.get_backend_name()

    @property
    def is_sqlite(self) -> bool:
        """Whether this is an SQLite file, not a server."""
        return self.kind == "sqlite"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for reading; raises StoreUnavailable."""
        with self._translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open one transaction, committed at the end of the block; raises StoreUnavailable.

        SQLite's writers wait for each other by trying again after up to 100 ms; the threads of one
        process wait for a lock here instead, at no cost.
        """
        with self._translated(), self._writer_turn(), self._writer().begin() as connection:
            yield connection

    @contextmanager
    def waiting_at_most(self, seconds: float) -> Iterator[None]:
        """Let writes in this block, in this thread, wait for others no longer than this."""
        token = _PATIENCE_S.set(seconds)
        try:
            yield
        finally:
            _PATIENCE_S.reset(token)

    def _writer(self) -> sa.Engine:
        seconds = _PATIENCE_S.get()
        if seconds == _BUSY_TIMEOUT_S:
            return self._engine
        return self._engine.execution_options(freeal_patience_s=seconds)

    @contextmanager
    def _writer_turn(self) -> Iterator[None]:
        """Hold a slot, and the lock that the threads of one process share for SQLite."""
        with _held(self._slots, _MAX_SLOT_WAIT_S), _held(self._writer_lock, _PATIENCE_S.get()):
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.StatementError, sa.exc.TimeoutError) as exc:
            cause = getattr(exc, "orig", None) or exc
            is_failure = isinstance(exc, sa.exc.DBAPIError | sa.exc.TimeoutError)
            if isinstance(exc, _REFUSALS) or not is_failure:
                # the messages repeat the values, which can be texts of tasks
                what = getattr(cause, "sqlstate", None) or type(cause).__name__
                raise StoreRefused(f"{self._name} refuses a statement ({what})") from None
            raise StoreUnavailable(
                f"{self._name} failed: {str(cause).splitlines()[0]}; check that it exists, is "
                "writable and has space left"
            ) from exc

    def migrate(self, *, revision: str = "head") -> None:
        """Create the tables or upgrade them; safe to run from several processes."""
        if self._url.database and self.is_sqlite:
            try:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                reason = exc.strerror or type(exc).__name__
                raise StoreUnavailable(f"cannot create the database's folder: {reason}") from exc
        upgrade(self, revision)

    def revision(self) -> str | None:
        """Return the revision of the tables, None where there are none."""
        with self.read() as connection:
            return read_revision(connection)

    def dump(self, file: Path) -> None:
        """Write the whole database to a file, as it is at one moment; raises StoreUnavailable."""
        if self.is_sqlite:
            copy_sqlite(Path(self._url.database or ""), file)
        else:
            dump_postgresql(self._url, file)

    def load(self, file: Path) -> None:
        """Replace the whole database by a dumped one; raises StoreUnavailable."""
        if self.is_sqlite:
            copy_sqlite(file, Path(self._url.database or ""))
        else:
            load_postgresql(self._url, file)

    def check_writable(self, *, timeout_s: float = _BUSY_TIMEOUT_S) -> None:
        """Write and delete a row; raises StoreUnavailable, after `timeout_s` at the latest."""
        with self.waiting_at_most(timeout_s), self.write() as connection:
            for statement in _WRITE_CHECK:
                connection.execute(sa.text(statement))

    def compact(self, *, is_partial: bool = False) -> None:
        """Give the space of deleted rows back to the disk; PostgreSQL does so by itself.

        The whole file is written anew, which stops writers for seconds; `is_partial` moves a few
        pages at a time, which they do not notice.
        """
        if not self.is_sqlite:
            return
        try:
            with self._translated(), closing(self._engine.raw_connection()) as pooled:
                cursor = pooled.cursor()
                if not is_partial:
                    cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
                    cursor.execute("VACUUM")
                while is_partial and self._free_some(cursor):
                    continue
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"the database cannot be made smaller: {exc}") from exc

    def _free_some(self, cursor: Any) -> bool:
        """Move some pages to the end of the file and cut it; return whether that freed any."""
        (before,) = cursor.execute("PRAGMA freelist_count").fetchone()
        with self._writer_turn():
            cursor.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
        (after,) = cursor.execute("PRAGMA freelist_count").fetchone()
        return bool(after < before)

    def fetch(self, query: sa.Executable) -> Sequence[Any]:
        """Return a query's rows; raises StoreUnavailable."""
        with self.read() as connection:
            return connection.execute(query).all()

    def fetch_column(self, query: sa.Executable) -> list[Any]:
        """Return the first column of a query's rows; raises StoreUnavailable."""
        with self.read() as connection:
            return list(connection.execute(query).scalars())

    def fetch_value(self, query: sa.Executable) -> Any:
        """Return the first value of a query's first row, None without rows."""
        with self.read() as connection:
            return connection.execute(query).scalar()

    def execute(self, statement: sa.Executable) -> int:
        """Run a statement in its own transaction; return how many rows it changed."""
        with self.write() as connection:
            return connection.execute(statement).rowcount

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class Repository:
    """Base of the stores: what belongs to one part of the database."""

    def __init__(self, database: Database) -> None:
        self._db = database


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keep: Sequence[str] = (),
    add: Sequence[str] = (),
) -> None:
    """Insert rows, or update those whose primary key exists.

    Args:
        connection: an open transaction.
        table: where to insert.
        rows: values by column name, all with the same columns.
        keep: columns that keep their stored value.
        add: columns to whose stored value the new one is added.
    """
    if not rows:
        return
    statement = insert_into(connection, table)
    key = [column.name for column in table.primary_key]
    changed = {
        name: table.c[name] + statement.excluded[name] if name in add else statement.excluded[name]
        for name in rows[0]
        if name not in key and name not in keep
    }
    if changed:
        statement = statement.on_conflict_do_update(index_elements=key, set_=changed)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)
    connection.execute(statement, [dict(row) for row in rows])


def insert_new(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one of its unique keys is taken; return whether it was inserted."""
    statement = insert_into(connection, table).values(dict(row)).on_conflict_do_nothing()
    # not the row count: PostgreSQL's driver does not know it where a key comes back
    return connection.execute(statement.returning(sa.literal(1))).first() is not None


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the database's own insert statement, which knows ON CONFLICT."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # slow to import

    return postgresql.insert(table)


def in_slices(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield `ids` in slices that fit an IN list of every database."""
    for start in range(0, len(ids), _MAX_IN_LIST):
        yield ids[start : start + _MAX_IN_LIST]


def execute_for(
    connection: sa.Connection, statement: Any, column: sa.ColumnElement[Any], ids: Sequence[Any]
) -> list[Any]:
    """Execute a statement for the rows whose `column` is one of `ids`; return what it returns."""
    rows: list[Any] = []
    for part in in_slices(ids):
        result = connection.execute(statement.where(column.in_(part)))
        rows += result.all() if result.returns_rows else ()
    return rows


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


@contextmanager
def _held(lock: threading.Lock | threading.Semaphore | None, seconds: float) -> Iterator[None]:
    if lock is None:
        yield
        return
    if not lock.acquire(timeout=seconds):
        raise StoreUnavailable("the database is busy: other writes wait for it")
    try:
        yield
    finally:
        lock.release()


def _name(url: sa.URL) -> str:
    """Return a database's name for messages: no user, no password, no path, no options."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite database {Path(url.database or ':memory:').name}"
    return f"the {url.get_backend_name()} database {url.database or ''} at {url.host or 'a socket'}"


def _engine(url: sa.URL) -> sa.Engine:
    """Return the engine; its errors leave out the statements' values, which hold task texts."""
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(
            url, pool_pre_ping=True, pool_size=10, max_overflow=10, hide_parameters=True
        )
        sa.event.listen(engine, "begin", _begin_postgresql)
        return engine
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
        pool_size=10,
        max_overflow=10,
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S}000")
    if cursor.execute("PRAGMA page_count").fetchone() == (0,):  # on others it would wait to write
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    _set_wal_mode(cursor)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA journal_size_limit={_MAX_IDLE_WAL_BYTES}")
    cursor.close()


def _set_wal_mode(cursor: sqlite3.Cursor) -> None:
    """Set WAL mode, retrying while other connections hold the file.

    SQLite's busy timeout does not apply while it converts a file.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("freeal_reader", False):
        connection.exec_driver_sql("BEGIN")
        return
    patience_ms = int(1_000 * options.get("freeal_patience_s", _BUSY_TIMEOUT_S))
    connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_postgresql(connection: sa.Connection) -> None:
    seconds = connection.get_execution_options().get("freeal_patience_s")
    if seconds is not None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1_000 * seconds)}")
