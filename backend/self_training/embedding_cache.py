"""Keeps an encoder's vectors on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.ports import Encoder

_log = logging.getLogger(__name__)

_CHUNK = 1024
"""Texts embedded between two writes to the cache: what a kill costs at most."""
_LOCK_TIMEOUT_S = 60.0


class CachedEncoder:
    """An encoder that never embeds a text twice, not even after a restart.

    The vectors are in one SQLite file per encoder name under `folder`, each under a hash of its
    text; every chunk is one transaction, so that a kill loses at most one and several processes
    may share the file. A file that cannot be read is passed over with a warning.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder

    @property
    def name(self) -> str:
        """Return the name of the encoder behind."""
        return self._encoder.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, shape (n, d), from the file where it has them."""
        if not texts:
            return self._encoder.embed(texts)
        keys = [_key(text) for text in texts]
        found = self._read(sorted(set(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        by_length = sorted(missing, key=lambda key: (len(missing[key]), key))
        for start in range(0, len(by_length), _CHUNK):
            chunk = by_length[start : start + _CHUNK]
            vectors = self._encoder.embed([missing[key] for key in chunk])
            fresh = dict(zip(chunk, vectors, strict=True))
            self._write(fresh)
            found.update(fresh)
        return np.stack([found[key] for key in keys])

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

    def _write(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        rows = [(key, vector.astype("<f4").tobytes()) for key, vector in vectors.items()]
        try:
            with self._open() as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError) as exc:
            _log.warning("embedding cache cannot be written: %s", exc)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_key(self.name)}.sqlite"
        with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors"
                " (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
            yield connection


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
