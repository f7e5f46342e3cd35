"""What a query strategy is given and what it gives back: a pool, and an order with reasons."""

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

    `example_ids` (n,) ascending; ties break by them. `embeddings` (n, d), unit float32.
    `posteriors` (n, K): calibrated label probabilities of the annotators, a row of NaN where there
    is none; `small_model_posteriors` (n, K) likewise, from the model that learned from people.
    `agreement` is how far the annotators agree beyond chance (kappa), None where fewer than two can
    be compared.
    `labelled` maps positions that people answered to the class index, None where the answer is no
    single class. `read_texts` returns the texts of some positions; strategies that need no text
    never call it. `pulled` maps positions to what is odd about them: they come first, with that as
    the reason. `label_names` are the K classes in words.
    """

    example_ids: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    posteriors: NDArray[np.float64] | None = None
    small_model_posteriors: NDArray[np.float64] | None = None
    agreement: float | None = None
    labelled: Mapping[int, int | None] = field(default_factory=dict)
    read_texts: ReadTexts | None = None
    pulled: Mapping[int, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_texts = len(self.example_ids)
        for name in ("embeddings", "posteriors", "small_model_posteriors"):
            array = getattr(self, name)
            if array is not None and len(array) != n_texts:
                raise ValueError(f"{name} has {len(array)} rows for {n_texts} examples")
        if n_texts > 1 and not (np.diff(self.example_ids) > 0).all():
            raise ValueError("example_ids have to ascend; sort the pool by them")

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def labelled_positions(self) -> Positions:
        """Return the positions that people answered, ascending."""
        return np.array(sorted(self.labelled), dtype=np.int64)

    @property
    def open_positions(self) -> Positions:
        """Return the positions that nobody answered yet, ascending."""
        is_open = np.ones(len(self), dtype=bool)
        is_open[self.labelled_positions] = False
        return np.flatnonzero(is_open).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a task stands where it stands: a sentence for people, and the numbers in it."""

    words: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderingHealth:
    """What is measured about one ordering; shares in [0, 1], None where it cannot be measured.

    `ascending_share`: how many neighbours in the head of the order ascend by example id; 0.5 for
    an order that does not look at ids. `position_correlation`: Spearman's rank correlation of place
    and id over the head. `coverage`: mean similarity of a pool text to the nearest one in the head.
    `class_balance`: entropy of the head's expected classes over the highest possible, by
    `posteriors`. `split_half_reliability` and `judgement_weight` are about the LLM's judgement
    where one was asked; `n_tokens` is what it cost. `counts` says what had to be repaired in its
    answers. `warnings` say aloud what a person should know.
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
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """A total order over the open positions of a pool: `positions` first to last.

    `reasons[j]` belongs to `positions[j]`. The first k positions are the same however many are
    taken.
    """

    positions: Positions
    reasons: tuple[Reason, ...]
    health: OrderingHealth

    def example_ids(self, pool: PoolView) -> NDArray[np.int64]:
        """Return the example ids in order."""
        return pool.example_ids[self.positions]


class QueryStrategy(Protocol):
    """Whatever decides which task an annotator should see first."""

    @property
    def name(self) -> str:
        """Return what this strategy is called in settings and reports."""
        ...

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool; the same pool and seed give the same order."""
        ...
