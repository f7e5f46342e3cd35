"""The values of a query strategy: the pool that it is given and the ordering that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
ReadTexts = Callable[[Sequence[int]], Sequence[str]]


@dataclass(frozen=True, slots=True, eq=False)
class PoolView:
    """A project's texts as a query strategy sees them; position i is row i of every array.

    Args:
        example_ids: shape (n,), ascending; ties break by them.
        embeddings: unit vectors, shape (n, d), float32.
        posteriors: the annotators' calibrated label probabilities, shape (n, K); NaN rows for none.
        student_posteriors: those of the model that learned from people, likewise.
        agreement: the annotators' agreement beyond chance (kappa); None where fewer than two can be
            compared.
        labeled: position -> class index of what people answered; None for no single class.
        read_texts: returns the texts of some positions.
        pinned: position -> why it comes first whatever the strategy says.
        label_names: the K classes in words.
        prelabeled_share: how far the labels that people's answers correct are there, in [0, 1]: the
            share of texts with a label by the LLM. 0: an answer teaches from nothing.
        expected_errors: how many labels of each text are expected to be wrong, (n,), weighted over
            the questions; None: one less the best posterior. NaN where nothing is known.

    Raises:
        ValueError: an array has another length than `example_ids`, or the ids do not ascend.
    """

    example_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    posteriors: NDArray[np.float64] | None = None
    student_posteriors: NDArray[np.float64] | None = None
    agreement: float | None = None
    labeled: Mapping[int, int | None] = field(default_factory=dict)
    read_texts: ReadTexts | None = None
    pinned: Mapping[int, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    prelabeled_share: float = 0.0
    expected_errors: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        n_texts = len(self.example_ids)
        for name in ("embeddings", "posteriors", "student_posteriors", "expected_errors"):
            array = getattr(self, name)
            if array is not None and len(array) != n_texts:
                raise ValueError(f"{name} has {len(array)} rows for {n_texts} examples")
        if n_texts > 1 and not (np.diff(self.example_ids) > 0).all():
            raise ValueError("example_ids have to ascend; sort the pool by them")

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def labeled_positions(self) -> Positions:
        """Return the positions that people answered, ascending."""
        return np.array(sorted(self.labeled), dtype=np.int64)

    @property
    def open_positions(self) -> Positions:
        """Return the positions that nobody answered yet, ascending."""
        return np.setdiff1d(np.arange(len(self)), self.labeled_positions)


@dataclass(frozen=True, slots=True)
class OrderingDiagnostics:
    """What is measured about one ordering; shares in [0, 1], None where it cannot be measured.

    Args:
        n_head: how many of the first positions the figures are about.
        ascending_share: share of neighbors in the head that ascend by id; 0.5 is chance.
        position_correlation: Spearman's rank correlation of place and id over the head.
        coverage: mean cosine of a pool text and the nearest one in the head.
        class_balance: entropy of the head's expected classes over the highest possible.
        split_half_reliability, judgement_weight: of the LLM's scores (`ScoredTexts`).
        n_tokens, counts: what the LLM cost, and what was wrong with its answers.
        n_near_duplicates: texts put to the end because they repeat others.
        expected_corrections: labels that the next 50 answers are expected to correct; None before
            there are labels to correct.
        warnings: sentences that a person should read.
    """

    n_head: int
    ascending_share: float | None = None
    position_correlation: float | None = None
    coverage: float | None = None
    class_balance: float | None = None
    split_half_reliability: float | None = None
    judgement_weight: float | None = None
    n_tokens: int = 0
    n_near_duplicates: int = 0
    expected_corrections: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """A total order over the open positions of a pool, first to last.

    The first k `positions` are the same however many are taken; `reasons` say for each, in words,
    why it stands there.
    """

    positions: Positions
    reasons: tuple[str, ...]
    diagnostics: OrderingDiagnostics

    def example_ids(self, pool: PoolView) -> NDArray[np.int64]:
        """Return the example ids in order."""
        return pool.example_ids[self.positions]


class QueryStrategy(Protocol):
    """Decides the order in which people label a pool."""

    name: str
    """The strategy's name in settings and reports."""

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool; the same pool and seed give the same order."""
