"""Copy a whole database while it is used: SQLite by itself, PostgreSQL by its own tools."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import StoreUnavailable
from backend.files import replacing_file
from backend.store.tables import VERSION_TABLE, metadata

if TYPE_CHECKING:
    import sqlalchemy as sa

_MAX_REASON = 300


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database as it is now, whole, while others write to it.

    A target that exists is replaced in one transaction: connections to it see old or new.

    Raises:
        StoreUnavailable: the copy cannot be read or written.
    """
    try:
        if target.exists():
            _copy_pages(source, target)
            return
        with replacing_file(target, fsync=True) as part:
            part.touch(mode=0o600)
            _copy_pages(source, part)
    except (OSError, sqlite3.Error) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise StoreUnavailable(
            f"the database cannot be copied ({reason}); check that the disk has space for a second "
            "one"
        ) from exc


def _copy_pages(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)  # in one step: a busy writer would have it start over


def dump_postgresql(url: sa.URL, target: Path) -> None:
    """Write our tables to a file with pg_dump; raises StoreUnavailable."""
    names = (VERSION_TABLE, *(table.name for table in metadata.sorted_tables))
    selected = [f"--table=public.{name}" for name in names]
    with _address(url) as address:
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={target}")
        _run("pg_dump", *options, *selected, address)


def load_postgresql(url: sa.URL, source: Path) -> None:
    """Put a file of pg_dump into the database in one transaction; raises StoreUnavailable."""
    with _address(url) as address:
        options = ("--no-owner", "--no-privileges", "--clean", "--if-exists")
        _run("pg_restore", *options, "--single-transaction", address, str(source))


@contextmanager
def _address(url: sa.URL) -> Iterator[str]:
    """Yield the option that names the database; its password is in a file, not on the command line.

    Other users see the options of a command.
    """
    password = url.password or url.query.get("password")
    shown = url.set(drivername="postgresql").difference_update_query(["password"])
    with tempfile.TemporaryDirectory() as folder:  # readable for its owner alone
        if password:
            escaped = str(password).replace("\\", "\\\\").replace(":", "\\:")
            passfile = Path(folder) / "pgpass"
            passfile.touch(mode=0o600)
            passfile.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
            shown = shown.set(password=None).update_query_dict({"passfile": str(passfile)})
        yield f"--dbname={shown.render_as_string(hide_password=False)}"


def _run(program: str, *options: str) -> None:
    path = shutil.which(program)
    if path is None:
        raise StoreUnavailable(
            f"{program} is not installed here: install PostgreSQL's client of the server's version"
        )
    done = subprocess.run(  # noqa: S603  (found on the PATH, no shell)
        (path, *options), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise StoreUnavailable(f"{program} failed: {reason[:_MAX_REASON]}")
