"""The database itself: migrations, transactions, errors."""

from __future__ import annotations

import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backend.domain.projects import ProjectId
from backend.errors import SettingsError, StoreRefused, StoreUnavailable
from backend.store import Database, JobStore, upgrade
from backend.store.tables import metadata, workers
from backend.store.upgrade import known_revisions


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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://127.0.0.1:1/none?user=me&password=s3cret",
        "sqlite:////nowhere/s3cret/f.db",
    ],
)
def test_neither_a_password_among_the_options_nor_a_folder_is_shown(url):
    database = Database(url)
    with pytest.raises(StoreUnavailable) as caught:
        database.check_writable()
    assert "s3cret" not in str(caught.value)
    database.close()


@pytest.mark.parametrize(
    "url", ["s3cret", "postgresql://u:s3cret@db:port/x", "nosuch://u:s3cret@db/x", "://s3cret"]
)
def test_a_malformed_url_is_refused_with_an_example_and_without_itself(url):
    with pytest.raises(SettingsError, match="DATABASE_URL.*postgresql://") as caught:
        Database(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def own_database(database_url: str) -> Iterator[Database]:
    """A migrated database that no other test uses, so that its tables may be changed."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


def test_values_of_a_failed_statement_are_in_no_message_and_no_traceback(own_database):
    own_database.execute(sa.text("CREATE TABLE strict_ones (id INTEGER NOT NULL CHECK (id < 5))"))
    table = sa.table("strict_ones", sa.column("id"))
    for values in ([{"id": 8_765_432}], [{"id": None}]):
        with pytest.raises(StoreRefused) as caught:
            own_database.execute(sa.insert(table).values(values))
        assert "8765432" not in "".join(traceback.format_exception(caught.value))


def test_a_full_disk_shows_no_texts(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.execute(sa.text("CREATE TABLE texts (words TEXT)"))
    with database.read() as connection:
        n_pages = connection.execute(sa.text("PRAGMA page_count")).scalar()
    table = sa.table("texts", sa.column("words"))
    words = "".join(map(chr, range(ord("a"), ord("z"))))
    with pytest.raises(StoreUnavailable, match="full") as caught, database.write() as connection:
        connection.execute(sa.text(f"PRAGMA max_page_count={n_pages}"))
        connection.execute(sa.insert(table), [{"words": words * 9_000}] * 9)
    assert words not in "".join(traceback.format_exception(caught.value))
    database.close()


def test_null_bytes_and_lone_surrogates_are_stored_alike_in_both_databases(projects):
    strange = "a\0b\ud800c"
    saved, _ = projects.save(ProjectId("3.1"), label_config="<View/>", title=strange)
    assert (
        saved.title
        == projects.get(saved.id).title
        == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    )


def test_a_name_that_one_database_would_refuse_is_refused_by_both(database, jobs):
    with pytest.raises(StoreRefused):
        jobs.note_problem(ProjectId("1.1"), "x" * 65, "a message of any length " * 1_000)
    assert jobs.problems(ProjectId("1.1")) == []


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


def test_a_database_of_a_newer_version_is_refused_in_words(own_database):
    own_database.execute(sa.text("UPDATE freeal_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=r"version 9999.*newer backend.*backup"):
        own_database.migrate()


def test_an_older_database_is_copied_before_it_is_upgraded(database_url, tmp_path):
    database = Database(database_url)
    database.migrate(revision="0006")
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO projects (id, title, label_config, instruction, model_version, "
                "question_version, is_connected, full_sync_s, n_foreign_predictions, created_at) "
                "VALUES ('1.1', 'a title', '', '', 'v', 'v', true, 0, 0, '2026-11-20')"
            )
        )
    database.migrate()
    database.migrate()
    newest = known_revisions()[-1]
    if database.is_sqlite:
        (path,) = tmp_path.glob("*.before-*")
        assert path.name == f"freeal.db.before-{newest}"
        assert path.stat().st_mode & 0o077 == 0
        with closing(sqlite3.connect(path)) as copy:
            found = copy.execute("SELECT title, version_num FROM projects, freeal_version")
            assert found.fetchall() == [("a title", "0006")]
    else:
        schema = f"before_{newest}"
        query = f"SELECT title FROM {schema}.projects"  # noqa: S608
        assert database.fetch_value(sa.text(query)) == "a title"
    database.close()


def test_a_new_database_is_not_copied(database, tmp_path):
    database.migrate()
    assert list(tmp_path.glob("*.before-*")) == []


def test_an_upgrade_that_cannot_copy_changes_nothing(tmp_path, monkeypatch):
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.migrate(revision="0006")
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO projects (id, title, label_config, instruction, model_version, "
                "question_version, is_connected, full_sync_s, n_foreign_predictions, created_at) "
                "VALUES ('1.1', 'a title', '', '', 'v', 'v', true, 0, 0, '2026-11-20')"
            )
        )

    def fail(source, target):
        raise StoreUnavailable("the database cannot be copied (No space left on device)")

    monkeypatch.setattr(upgrade, "copy_sqlite", fail)
    with pytest.raises(StoreUnavailable, match="No space left"):
        database.migrate()
    assert database.fetch_value(sa.text("SELECT version_num FROM freeal_version")) == "0006"
    database.close()


def test_an_upgrade_succeeds_where_the_file_cannot_be_made_smaller(database_url, monkeypatch):
    def fail(*_, **__):
        raise StoreUnavailable("the database cannot be made smaller: locked")

    monkeypatch.setattr(Database, "compact", fail)
    database = Database(database_url)
    database.migrate(revision="0006")
    database.migrate()
    assert database.revision() == known_revisions()[-1]
    database.close()


def test_a_full_disk_or_a_locked_file_is_told_within_the_given_time(database, tmp_path):
    if not database.is_sqlite:
        pytest.skip("a file of SQLite is locked here")
    holder = sqlite3.connect(tmp_path / "freeal.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    started_at = time.monotonic()
    with pytest.raises(StoreUnavailable, match="locked"):
        database.check_writable(timeout_s=0.2)
    assert time.monotonic() - started_at < 5
    holder.rollback()
    holder.close()
    database.check_writable(timeout_s=0.2)


def test_a_check_leaves_nothing_behind(database):
    database.check_writable()
    assert JobStore(database).live_workers() == []


def test_a_thread_waits_for_another_one_no_longer_than_it_may(database):
    if not database.is_sqlite:
        pytest.skip("the threads of one process share a lock for SQLite")
    is_held, done = threading.Event(), threading.Event()

    def hold():
        with database.write():
            is_held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(30)
    with pytest.raises(StoreUnavailable, match="busy"), database.waiting_at_most(0.1):
        JobStore(database).request_job(ProjectId("1.1"), "prelabel", "test")
    done.set()
    holder.join()
    JobStore(database).request_job(ProjectId("1.1"), "prelabel", "test")
