"""Cache the vectors of texts on disk, up to a size."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.ports import Encoder

_log = logging.getLogger(__name__)

_CHUNK = 1024
"""Texts embedded between two writes to the cache: what a kill costs at most."""
_LOCK_TIMEOUT_S = 60.0
_FILES = "*.sqlite"
_FREED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class CachedEncoder:
    """An encoder that never embeds a text twice, not even after a restart.

    The vectors are in one SQLite file per encoder name under `folder`, each under a hash of its
    text; every chunk is one transaction, so that a kill loses at most one and several processes
    may share the file. A file that cannot be read is skipped with a warning.
    """

    encoder: Encoder
    folder: Path

    @property
    def name(self) -> str:
        """Return the name of the encoder behind."""
        return self.encoder.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, shape (n, d), from the file where it has them."""
        if not texts:
            return self.encoder.embed(texts)
        keys = [_key(text) for text in texts]
        vectors = self._read(sorted(set(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        by_length = sorted(missing, key=lambda key: (len(missing[key]), key))
        for start in range(0, len(by_length), _CHUNK):
            chunk = by_length[start : start + _CHUNK]
            embedded = self.encoder.embed([missing[key] for key in chunk])
            fresh = dict(zip(chunk, embedded, strict=True))
            vectors.update(fresh)
            rows = [(key, vector.astype("<f4").tobytes()) for key, vector in fresh.items()]
            try:
                with self._open() as connection, connection:
                    connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
            except (sqlite3.Error, OSError) as exc:
                _log.warning("embedding cache cannot be written: %s", exc)
        return np.stack([vectors[key] for key in keys])

    def _read(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        try:
            with self._open() as connection:
                rows = connection.execute(
                    "SELECT key, vector FROM vectors WHERE key IN (SELECT value FROM json_each(?))",
                    (json.dumps(keys),),
                ).fetchall()
        except (sqlite3.Error, OSError) as exc:
            _log.warning("embedding cache cannot be read: %s", exc)
            return {}
        return {key: np.frombuffer(vector, dtype="<f4").copy() for key, vector in rows}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_key(self.name)}.sqlite"
        with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors"
                " (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
            yield connection


def trim_embeddings(folder: Path, max_bytes: int) -> int:
    """Delete cached vectors until the files are below `max_bytes`; return the freed bytes.

    Files of encoders that were used longest ago go first. Of the last one the vectors with the
    smallest keys go: keys are hashes, so these are a random part.
    """
    files = sorted(folder.glob(_FILES), key=lambda file: file.stat().st_mtime)
    sizes = {file: file.stat().st_size for file in files}
    before = total = sum(sizes.values())
    for file in files[:-1]:
        if total > max_bytes:
            file.unlink(missing_ok=True)
            total -= sizes[file]
    if total > max_bytes:
        newest = files[-1]
        share = 1 - (1 - _FREED_SHARE) * max_bytes / total
        boundary = f"{min(int(share * 16**8), 16**8 - 1):08x}"
        try:
            with closing(sqlite3.connect(newest, timeout=_LOCK_TIMEOUT_S)) as connection:
                with connection:
                    connection.execute("DELETE FROM vectors WHERE key < ?", (boundary,))
                connection.execute("VACUUM")
        except sqlite3.Error as exc:
            _log.warning("embedding cache cannot be made smaller: %s", exc)
        total = newest.stat().st_size
    if total < before:
        _log.info("embedding cache freed_mb=%d", (before - total) // 2**20)
    return before - total


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
