"""Hold a data set as vectors and labels, and draw pools from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabeledSet:
    """A data set as vectors, with the annotators' posteriors of its training rows.

    Args:
        name: The data set's name.
        label_names: The K labels.
        train: Unit vectors (n, d) to draw pools from.
        y_train: Their class indices.
        test: Unit vectors (m, d) to score on.
        y_test: Their class indices.
        posteriors: Per annotator (n, K), raw; a row of NaN is an abstention.
        texts: The n training texts, for learners that read text.
        test_texts: The m test texts.
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
    """Draw training rows at random, without replacement."""
    rng = np.random.default_rng([seed, 1])
    rows = rng.choice(len(data.train), size=min(size, len(data.train)), replace=False)
    return Pool(np.sort(rows), seed)
