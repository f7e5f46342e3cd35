"""A labeled data set of the ordering benchmark, and the pools drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabeledSet:
    """A data set as vectors: rows to draw pools from, rows to measure on, annotators' posteriors.

    `train`, `test` (n, d) unit float32; `y_train`, `y_test` class indices; `posteriors` are each
    annotator's raw posteriors (n, K) of the training rows, a row of NaN where it abstained;
    `texts`, `test_texts` are for learners that read text.
    """

    name: str
    label_names: tuple[str, ...]
    train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    posteriors: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    texts: Sequence[str] = field(default_factory=tuple)
    test_texts: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, eq=False)
class Pool:
    """One draw of training rows, in file order."""

    rows: NDArray[np.int64]
    seed: int


def draw_pool(data: LabeledSet, seed: int, size: int) -> Pool:
    """Draw training rows without regard to their labels."""
    rng = np.random.default_rng([seed, 1])
    rows = rng.choice(len(data.train), size=min(size, len(data.train)), replace=False)
    return Pool(np.sort(rows), seed)
