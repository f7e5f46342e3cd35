"""The files of a round: arrays and models, each whole or not there at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.files import replacing_file

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class RoundArtifacts:
    """One round's folder. A file that is there is finished, so it marks its step as done."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Return where trainings keep what they need to go on after a kill."""
        return self.folder / "checkpoints"

    def model(self, cycle: int) -> Path:
        """Return the folder of the small model that a cycle ended with."""
        return self.folder / f"model-{cycle}"

    def read(self, name: str) -> Arrays | None:
        """Return the arrays of a file, None when it is not there."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.folder / f"{name}.npz").exists()

    def write(self, name: str, **arrays: NDArray[Any]) -> None:
        """Write arrays under a temporary name, then under their own; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            replacing_file(self.folder / f"{name}.npz", fsync=True) as part,
            part.open("wb") as file,
        ):
            np.savez(file, **arrays)  # type: ignore[arg-type]


def rows_by_id(
    ids: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each wanted id its row in `ids`, and whether it is there; both (n,)."""
    if len(ids) == 0:
        return np.zeros(len(wanted), dtype=np.intp), np.zeros(len(wanted), dtype=np.bool_)
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)
    rows = order[places]
    return rows, np.asarray(ids[rows] == wanted)


def aligned(
    ids: NDArray[np.int64], values: NDArray[np.float64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the rows of `values` (n, K) for the wanted ids, NaN rows where there is none."""
    rows, is_there = rows_by_id(ids, wanted)
    found = np.full((len(wanted), values.shape[1]), np.nan)
    found[is_there] = values[rows[is_there]]
    return found
