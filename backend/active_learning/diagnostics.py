"""Diagnose an ordering: position bias, coverage of the pool, balance of the classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import best_similarity, subsample
from backend.active_learning.strategy_interface import OrderingDiagnostics, PoolView, Positions

_N_HEAD = 128
_MIN_PICKS = 16
_N_REFERENCES = 4000
_MAX_ASCENDING = 0.85
_MAX_CORRELATION = 0.8
_MIN_GAP_VARIATION = 0.5
_POSITION_ONLY = (
    "the order follows the tasks' ids ({share:.0%} of neighbours ascend, rank correlation "
    "{correlation:.2f}): whatever chose it looked at places, not at texts"
)
_REGULAR = (
    "the first picks lie at nearly equal distances in the list: whatever chose them counted "
    "places instead of reading texts"
)


def diagnose(pool: PoolView, positions: Positions, rng: np.random.Generator) -> OrderingDiagnostics:
    """Measure the first 128 positions of an ordering; see `OrderingDiagnostics`."""
    head = positions[:_N_HEAD]
    ids = pool.example_ids[head]
    covering = np.concatenate([head, pool.labeled_positions])
    coverage = None
    if len(covering):
        rows = subsample(np.arange(len(pool)), _N_REFERENCES, rng)
        coverage = float(best_similarity(pool.embeddings, rows, covering).mean())
    return OrderingDiagnostics(
        n_head=len(head),
        ascending_share=ascending_share(ids),
        position_correlation=position_correlation(ids),
        coverage=coverage,
        class_balance=None if pool.posteriors is None else class_balance(pool.posteriors[head]),
        warnings=position_warnings(ids, n_choices=len(positions)),
    )


def rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return Spearman's correlation, 0 where one side is constant."""
    from scipy.stats import spearmanr  # scipy.stats is slow to import, and the web process need not

    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(spearmanr(x, y).statistic)


def ascending_share(ids: NDArray[np.int64]) -> float | None:
    """Return the share of neighbors that ascend, in [0, 1]; None under two ids."""
    return float((np.diff(ids) > 0).mean()) if len(ids) > 1 else None


def position_correlation(ids: NDArray[np.int64]) -> float | None:
    """Return Spearman's correlation of place and id, in [-1, 1]; None under three ids."""
    return rank_correlation(np.arange(len(ids)), ids) if len(ids) > 2 else None


def gap_variation(picks: NDArray[np.int64]) -> float | None:
    """Return the coefficient of variation of the gaps between sorted picks; None under three.

    Random picks have one near 1, "every n-th" has 0. Duplicates count once.
    """
    gaps = np.diff(np.unique(picks))
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 else None


def class_balance(posteriors: NDArray[np.float64]) -> float | None:
    """Return the entropy of the mean of posteriors (n, K) over log K, in [0, 1]; None for none."""
    known = posteriors[~np.isnan(posteriors).any(axis=1)]
    if len(known) == 0 or known.shape[1] < 2:
        return None
    shares = known.mean(axis=0)
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(known.shape[1]))


def position_warnings(ids: NDArray[np.int64], *, n_choices: int) -> tuple[str, ...]:
    """Return the signs that a selector looked at positions only; none under 16 picks.

    Ascending throughout, or in nearly equal steps: both were found in most of the published answers
    of chat models asked to pick 32 texts of a list.

    Args:
        ids: the picks in the order of choice.
        n_choices: of how many they were picked. The gaps of picks at random vary the less, the
            more of all are picked: by the square root of the share that is not.
    """
    if len(ids) < _MIN_PICKS:
        return ()
    share, correlation = ascending_share(ids) or 0.0, position_correlation(ids) or 0.0
    warnings = []
    if share >= _MAX_ASCENDING or abs(correlation) >= _MAX_CORRELATION:
        warnings.append(_POSITION_ONLY.format(share=share, correlation=correlation))
    variation = gap_variation(ids)
    by_chance = math.sqrt(max(0.0, 1 - len(ids) / n_choices))
    if variation is not None and variation < _MIN_GAP_VARIATION * by_chance:
        warnings.append(_REGULAR)
    return tuple(warnings)
