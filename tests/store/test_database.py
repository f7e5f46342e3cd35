"""The database itself: migrations, transactions, errors."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backend.domain.projects import ProjectId
from backend.errors import StoreUnavailable
from backend.store import Database, JobStore
from backend.store.tables import metadata, workers


def test_the_migrations_make_exactly_the_tables_that_the_code_names(database):
    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "freeal_version"})
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_changes_nothing(database):
    database.migrate()
    database.check_writable()


def test_migrating_from_several_threads_at_once_works(tmp_path):
    url = f"sqlite:///{tmp_path / 'new' / 'freeal.db'}"
    failures = []

    def migrate():
        own = Database(url)
        try:
            own.migrate()
        except Exception as exc:
            failures.append(exc)
        finally:
            own.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path):
    path = tmp_path / "freeal.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # SQLite refuses WAL mode at once while this is held
    release = threading.Timer(0.2, other.rollback)
    release.start()
    database = Database(f"sqlite:///{path}")
    database.migrate()
    release.join()
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    other.close()


def test_a_database_that_cannot_be_opened_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    database = Database(f"sqlite:///{tmp_path / 'file' / 'freeal.db'}")
    with pytest.raises(StoreUnavailable, match="folder"):
        database.migrate()


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "freeal.db").write_text("this is not a database, " * 100)
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    with pytest.raises(StoreUnavailable, match="not a database"):
        database.migrate()
    database.close()


def test_a_password_in_the_database_url_is_never_shown():
    database = Database("postgresql+psycopg://user:s3cret@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable) as caught:
        database.check_writable()
    assert "s3cret" not in str(caught.value)


def test_a_transaction_that_fails_half_way_leaves_nothing(database):
    moment = datetime.now(UTC)
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        row = {"id": "a", "started_at": moment, "seen_at": moment}
        connection.execute(sa.insert(workers).values(row))
        raise ZeroDivisionError
    assert JobStore(database).live_workers() == []


def test_a_writer_waits_for_another_process_that_holds_the_database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.migrate()
    holder = sqlite3.connect(tmp_path / "freeal.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: holder.execute("COMMIT")).start()
    JobStore(database).request_job(ProjectId("1.1"), "prelabel", "test")
    assert len(JobStore(database).job_requests()) == 1
    holder.close()
    database.close()


def test_moments_come_back_as_the_same_instant_in_utc(database):
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2026, 11, 21, 9, 30, tzinfo=tokyo)
    with database.write() as connection:
        row = {"id": "a", "started_at": moment, "seen_at": moment}
        connection.execute(sa.insert(workers).values(row))
    with database.read() as connection:
        stored = connection.execute(sa.select(workers.c.seen_at)).scalar_one()
    assert stored == moment
    assert stored.tzinfo is UTC
