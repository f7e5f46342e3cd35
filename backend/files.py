"""Write files and folders whole, lock them, close them to others and tell their sizes."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_LOG = logging.getLogger(__name__)
_OTHERS = 0o077


def keep_private(folder: Path) -> None:
    """Close a folder and its files to other users, and what this process makes from now on.

    What belongs to somebody else stays as it is, with a warning.
    """
    os.umask(_OTHERS)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (folder, *(file for file in folder.iterdir() if file.is_file())):
            mode = path.stat().st_mode
            if mode & _OTHERS:
                path.chmod(mode & ~_OTHERS)
    except OSError as exc:
        _LOG.warning("FREEAL_HOME cannot be closed to other users: %s", exc.strerror)


def folder_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file and folder in a folder, by name; of hard links each counts."""
    if not folder.is_dir():
        return {}
    return {path.name: _size(path) for path in folder.iterdir()}


def _size(path: Path) -> int:
    """Return a file's or a folder's bytes; what disappears meanwhile has none."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(_size, path.iterdir()))
        return path.lstat().st_size
    except OSError:
        return 0


@contextmanager
def replacing_file(path: Path, *, fsync: bool = False) -> Iterator[Path]:
    """Yield a temporary path whose file takes the place of `path` when the block succeeds.

    A reader sees the old file or the whole new one, a failed block leaves nothing. Several
    processes may write at the same time: the last one stays.

    Args:
        path: the file to write; its folder exists.
        fsync: whether the content is on the disk before the name is, for what a power cut must
            not take.

    Raises:
        OSError: the file cannot be written or moved.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        if fsync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a path to make a folder at, which takes the place of `folder` when the block succeeds.

    What a killed process left half made is removed first. One process at a time.

    Raises:
        OSError: the folder cannot be written or moved.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold an exclusive lock on a file, which the end of the process, even killed, releases.

    A child process that inherits the yielded file's descriptor holds the lock as well.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file
