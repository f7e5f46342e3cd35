"""What retrieval speaks of: texts, a pool of demonstrations, a plan and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Demonstration


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts to be labelled: unit vectors (n, d), example ids and the texts themselves."""

    vectors: NDArray[np.float32]
    example_ids: Sequence[int]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class ShotPool:
    """The p demonstrations: unit vectors (p, d), each one's class in 0..C-1, ids and texts.

    A demonstration with several labels has the class that it was selected for; an id of None is
    a text that no task holds.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.intp]
    example_ids: Sequence[int | None]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class RetrievalPlan:
    """How many demonstrations a prompt has and how they are found.

    `max_share` in (0, 1] is the largest part of the prompts that one may stand in. `sharing`
    "cluster": texts that are alike share one set, so that the server computes it once; "text":
    each text has its own. `seed` moves the order within prompts.
    """

    n_shots: int = 8
    max_share: float = 0.1
    sharing: Literal["cluster", "text"] = "cluster"
    recipe: Literal["default", "paper"] = "default"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """What came of it.

    `n_shots` is what a prompt really has, fewer than asked where the pool is small.
    `hub_share` is the part of the prompts with the most frequent demonstration, `top10_share` the
    part of all places that the ten most frequent fill. `is_cap_met` False: the pool is too small
    for the cap. `n_incomplete` prompts have fewer than `n_shots`; `n_empty_classes` have no
    demonstration at all.
    """

    n_shots: int
    hub_share: float
    top10_share: float
    is_cap_met: bool
    n_sets: int
    n_incomplete: int
    n_empty_classes: int


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`shots[i]`: the pool positions in text i's prompt, in their order. `order`: the texts'
    positions, shape (n,), those with the same demonstrations together."""

    shots: tuple[tuple[int, ...], ...]
    order: NDArray[np.intp]
    report: RetrievalReport

    def by_example(
        self, example_ids: Sequence[int], demonstrations: Sequence[Demonstration]
    ) -> dict[int, tuple[Demonstration, ...]]:
        """Return the demonstrations themselves by example id, as a `PromptContext` holds them."""
        return {
            example_id: tuple(demonstrations[at] for at in row)
            for example_id, row in zip(example_ids, self.shots, strict=True)
        }


def n_most_prompts(n: int, max_share: float) -> int:
    """Return how many of n prompts one demonstration may stand in; at least one."""
    return max(1, int(max_share * n + 1e-9))
