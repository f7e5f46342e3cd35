"""Texts that stand for a pool as a set: kernel herding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import Vectors, kernel
from backend.active_learning.ordering import Positions


@dataclass(frozen=True, slots=True, eq=False)
class HerdingProblem:
    """Rows of `vectors` (n, d): candidates, the texts to stand for, those chosen before."""

    vectors: Vectors
    candidates: Positions
    references: Positions
    chosen: Positions


def greedy_herd(problem: HerdingProblem, n_picks: int, *, width: float) -> list[int]:
    """Pick candidates one by one so that all that is chosen is distributed as the references are.

    Each next pick x has the highest `mean_r k(x, r) - sum_s k(x, s) / (m + 1)` over the m texts s
    chosen before: like the pool, and unlike what there is enough of. In the kernel's space the
    picks' mean comes near the pool's faster than a random sample's (kernel herding, Chen, Welling
    and Smola 2010, arXiv 1203.3472, equation 8). Ties go to the earlier candidate. Cost O(c r d)
    once, then O(c d) per pick.
    """
    own = problem.vectors[problem.candidates]
    if len(own) == 0:
        return []
    means = kernel(own @ problem.vectors[problem.references].T, width).mean(axis=1)
    had: NDArray[np.float64] = np.zeros(len(own))
    for text in problem.vectors[problem.chosen]:
        had += kernel(own @ text, width)
    is_open = np.ones(len(own), dtype=bool)
    picks: list[int] = []
    for n_had in range(len(problem.chosen), len(problem.chosen) + min(n_picks, len(own))):
        gains = np.where(is_open, means - had / (n_had + 1), -np.inf)
        picks.append(int(gains.argmax()))
        is_open[picks[-1]] = False
        had += kernel(own @ own[picks[-1]], width)
    return picks
