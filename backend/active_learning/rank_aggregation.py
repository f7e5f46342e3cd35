"""From several judgements of the same texts to one, and whether they repeat at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from backend.active_learning.ordering import PoolView, Positions

_N_SPLITS = 8
_MIN_TEXTS = 8
_MIN_RELIABILITY = 0.2

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTexts:
    """An LLM's word on how informative some texts are.

    `scores` (m,) in [0, 1], higher first; `weight` in [0, 1] says how far they may
    move a gain, 0 where they are noise; `reliability` is their split-half reliability.
    """

    scores: Scores
    reliability: float | None
    weight: float
    n_tokens: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class InformativenessScorer(Protocol):
    """Whoever can say how informative texts are; `llm.sampler` has the one that asks an LLM."""

    def scorer(
        self, pool: PoolView, shortlist: Positions, *, rng: np.random.Generator
    ) -> ScoredTexts:
        """Score the texts of a shortlist."""
        ...


def borda(rounds: Scores) -> Scores:
    """Return each text's mean rank share over the rounds that judged it, in [0, 1], 1 for the best.

    `rounds` (R, m): one judgement of m texts per row, higher is better, NaN where none was given.
    Ties share their mean rank; a text that no round judged gets 0.5. Borda's count over incomplete
    rankings: each round's ranks are scaled to [0, 1] before they are averaged.
    """
    shares = np.full(rounds.shape, np.nan)
    for row, scores in enumerate(rounds):
        known = np.flatnonzero(~np.isnan(scores))
        if len(known) > 1:
            shares[row, known] = (rankdata(scores[known]) - 1) / (len(known) - 1)
        elif len(known) == 1:
            shares[row, known] = 0.5
    n_judged = (~np.isnan(shares)).sum(axis=0)
    total = np.nansum(shares, axis=0)
    result: Scores = np.where(n_judged > 0, total / np.maximum(n_judged, 1), 0.5)
    return result


def split_half_reliability(rounds: Scores, rng: np.random.Generator) -> float | None:
    """Return how well one half of the rounds foretells the other, stepped up to all of them.

    Spearman's correlation of the halves' Borda counts, averaged over 8 random splits, then the
    Spearman-Brown formula 2r / (1 + r); in [-1, 1]. None under two rounds or 8 texts judged.
    """
    is_judged = (~np.isnan(rounds)).sum(axis=0) == len(rounds)
    rounds = rounds[:, is_judged]
    if len(rounds) < 2 or rounds.shape[1] < _MIN_TEXTS:
        return None
    found = []
    for _ in range(_N_SPLITS):
        order = rng.permutation(len(rounds))
        half = len(rounds) // 2
        found.append(_correlation(borda(rounds[order[:half]]), borda(rounds[order[half:]])))
    mean = float(np.mean(found))
    return 2 * mean / (1 + mean) if mean > -1 / 3 else -1.0


def judgement_weight(reliability: float | None) -> float:
    """Return how far a judgement may count: its reliability, or 0 under 0.2 as noise."""
    if reliability is None or reliability < _MIN_RELIABILITY:
        return 0.0
    return min(1.0, reliability)


def place_effect(rounds: Scores, places: NDArray[np.int64]) -> float | None:
    """Return Spearman's correlation of score and place in the prompt; None without scores.

    `places` (R, m): where in its group each text stood in each round.
    """
    is_known = ~np.isnan(rounds)
    if is_known.sum() < _MIN_TEXTS:
        return None
    return _correlation(rounds[is_known], places[is_known].astype(float))


def _correlation(left: Scores, right: Scores) -> float:
    """Return Spearman's correlation, 0 where one side is constant."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(spearmanr(left, right).statistic)
