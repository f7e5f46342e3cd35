"""Save a deployment to one file while it runs, and put it into an empty one."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.errors import BackupUnusable
from backend.files import replacing_file, replacing_folder
from backend.setting_values import Secret, as_text, without_user
from backend.settings import Settings, variable
from backend.store import Database, ProjectStore
from backend.store.upgrade import check_known

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_BLOCK = 2**20
_MANIFEST, _DATABASE, _MODELS, _DEFINITIONS = "manifest.json", "database", "models", "definitions"
_PROJECT_FOLDER = re.compile(r"\d+\.\d+")
_COMPRESSION = 1
"""Fast: models, which are most of it, do not get smaller."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup file holds: how many projects, of which schema, how many bytes it has."""

    n_projects: int
    revision: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and the settings by variable that were others when it was saved."""

    n_projects: int
    made_at: str
    other_settings: Mapping[str, str]


def back_up(settings: Settings, file: Path) -> Saved:
    """Write database, models, label definitions and settings without secrets to one file.

    The database is copied first, as it is at one moment, while others write. Cached answers are
    part of it; cached vectors, environments and downloaded models are not.

    Raises:
        StoreUnavailable: the database cannot be read or copied.
        BackupUnusable: the file cannot be written.
    """
    with closing(Database(settings.state_url)) as database:
        revision = database.revision()
        if revision is None:
            raise BackupUnusable("there is no database yet: nothing has to be saved")
        n_projects = ProjectStore(database).count()
        manifest = {
            "format": _FORMAT,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "database": database.kind,
            "revision": revision,
            "n_projects": n_projects,
            "settings": _shareable(settings),
        }
        try:
            with tempfile.TemporaryDirectory(
                prefix=".backup-", dir=file.absolute().parent
            ) as scratch:
                copy = Path(scratch) / _DATABASE
                database.dump(copy)
                with replacing_file(file, fsync=True) as part:
                    _write(part, settings, manifest, copy)
        except OSError as exc:
            raise BackupUnusable(f"{file} cannot be written: {exc.strerror or exc}") from exc
    return Saved(n_projects, revision, file.stat().st_size)


def restore(settings: Settings, file: Path) -> Restored:
    """Put a backup into an empty deployment, and bring it to this version.

    Raises:
        BackupUnusable: the file is damaged, of a newer version or of another kind of database, or
            this deployment has projects.
        StoreUnavailable: the database cannot be written.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=settings.home) as scratch:
            manifest = _unpack(file, Path(scratch))
            with closing(Database(settings.state_url)) as database:
                _check_fits(database, manifest)
                for folder in sorted(Path(scratch, _MODELS).glob("*")):
                    with replacing_folder(settings.home / _MODELS / folder.name) as fresh:
                        folder.rename(fresh)
                _restore_definitions(Path(scratch, _DEFINITIONS), settings.definitions_folder)
                database.load(Path(scratch, _DATABASE))  # last: until here nothing is in use
                database.migrate()
                n_projects = ProjectStore(database).count()
    except OSError as exc:
        raise BackupUnusable(f"{file} cannot be restored: {exc.strerror or exc}") from exc
    now = _shareable(settings)
    saved = {str(name): str(value) for name, value in manifest["settings"].items()}
    others = {name: text for name, text in saved.items() if now.get(name) != text}
    return Restored(n_projects, str(manifest["made_at"]), others)


def _write(part: Path, settings: Settings, manifest: Mapping[str, Any], copy: Path) -> None:
    part.touch(mode=0o600)
    with tarfile.open(part, "w:gz", compresslevel=_COMPRESSION) as archive:
        text = json.dumps(manifest, indent=2).encode()
        member = tarfile.TarInfo(_MANIFEST)
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
        archive.add(copy, _DATABASE)
        for folder in sorted((settings.home / _MODELS).glob("*")):
            if _PROJECT_FOLDER.fullmatch(folder.name):
                _add_files(archive, folder, f"{_MODELS}/{folder.name}")
        if settings.definitions_folder.is_dir():
            _add_files(archive, settings.definitions_folder, _DEFINITIONS)


def _add_files(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    """Add a folder's files; one that a round moves or deletes meanwhile is left out."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.is_symlink():
                archive.add(path, f"{name}/{path.relative_to(folder).as_posix()}")
        except FileNotFoundError:
            _LOG.info("a file is gone meanwhile: %s", path.name)


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Check a backup's sum and unpack it; return its manifest."""
    try:
        with gzip.open(file) as stream:  # a tar's reader stops before the sum at the end
            while stream.read(_BLOCK):
                continue
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not (folder / _DATABASE).is_file():
            raise ValueError("it is incomplete")
    except FileNotFoundError as exc:
        name = file if exc.filename == str(file) else _MANIFEST
        raise BackupUnusable(f"there is no {name}: expected a file of `backup`") from exc
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise BackupUnusable(f"{file} is no whole backup ({exc}): make or copy it again") from exc
    if manifest.get("format") != _FORMAT:
        raise BackupUnusable(f"{file} has a format that this version does not know: upgrade first")
    return manifest


def _check_fits(database: Database, manifest: Mapping[str, Any]) -> None:
    if manifest["database"] != database.kind:
        raise BackupUnusable(
            f"the backup is of {manifest['database']}, and DATABASE_URL names {database.kind}: "
            "restore it into one of its own kind"
        )
    check_known(str(manifest["revision"]))
    if database.revision() is not None and ProjectStore(database).count():
        raise BackupUnusable(
            "this deployment has projects, which a backup would replace: set FREEAL_HOME (and "
            "DATABASE_URL) to an empty one"
        )


def _restore_definitions(source: Path, target: Path) -> None:
    """Copy label definitions; those that are there already stay."""
    for path in sorted(source.glob("*")):
        target.mkdir(parents=True, exist_ok=True)
        if not (target / path.name).exists():
            shutil.copy(path, target)


def _shareable(settings: Settings) -> dict[str, str]:
    """Return the settings that are not the defaults, without secrets, by variable."""
    found = {}
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        is_own = spec.name in ("home", "worker_id") or isinstance(value, Secret)
        if not is_own and value != spec.default:
            found[variable(spec.name)] = without_user(as_text(value))
    return found
