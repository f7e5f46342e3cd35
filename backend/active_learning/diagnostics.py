"""What one ordering is like: whether it looks at positions only, what it covers, how balanced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from backend.active_learning.coverage import best_similarity
from backend.active_learning.ordering import OrderingHealth, PoolView, Positions

_N_HEAD = 128
_MIN_FOR_POSITION = 16
_N_REFERENCES = 4000
_SUSPECT_ASCENDING = 0.85
_SUSPECT_CORRELATION = 0.8
_POSITION_ONLY = (
    "the order follows the tasks' ids ({share:.0%} of neighbours ascend, rank correlation "
    "{correlation:.2f}): whatever chose it looked at places, not at texts"
)
_REGULAR = (
    "the first picks lie at nearly equal distances in the list: whatever chose them counted "
    "places instead of reading texts"
)
_ONE_SIDED = "by the expected labels, {share:.0%} of the first {n} tasks are {name}"


def ascending_share(ids: NDArray[np.int64]) -> float | None:
    """Return how many neighbours ascend, in [0, 1]; None under two ids."""
    return float((np.diff(ids) > 0).mean()) if len(ids) > 1 else None


def position_correlation(ids: NDArray[np.int64]) -> float | None:
    """Return Spearman's correlation of place and id, in [-1, 1]; None under three ids."""
    if len(ids) < 3:
        return None
    return float(spearmanr(np.arange(len(ids)), ids).statistic)


def gap_variation(picks: NDArray[np.int64]) -> float | None:
    """Return the coefficient of variation of the gaps between sorted picks; None under three.

    Random picks have one near 1, "every n-th" has 0. Duplicates count once.
    """
    gaps = np.diff(np.unique(picks))
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 else None


def class_balance(posteriors: NDArray[np.float64]) -> float | None:
    """Return the entropy of the mean posterior over log K, in [0, 1]; None without any."""
    known = posteriors[~np.isnan(posteriors).any(axis=1)]
    if len(known) == 0 or known.shape[1] < 2:
        return None
    shares = known.mean(axis=0)
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(known.shape[1]))


def mean_coverage(pool: PoolView, chosen: Positions, rng: np.random.Generator) -> float | None:
    """Return the mean highest cosine of pool texts (at most 4,000 sampled) with `chosen`."""
    if len(pool) == 0 or len(chosen) == 0:
        return None
    rows = np.arange(len(pool))
    if len(rows) > _N_REFERENCES:
        rows = np.sort(rng.choice(rows, size=_N_REFERENCES, replace=False))
    return float(best_similarity(pool.embeddings, rows, chosen).mean())


def examine(pool: PoolView, positions: Positions, rng: np.random.Generator) -> OrderingHealth:
    """Measure the head (128) of an ordering; see `OrderingHealth`."""
    head = positions[:_N_HEAD]
    ids = pool.example_ids[head]
    ascending, correlation = ascending_share(ids), position_correlation(ids)
    posteriors = None if pool.posteriors is None else pool.posteriors[head]
    covering = np.concatenate([head, pool.labelled_positions])
    return OrderingHealth(
        n_head=len(head),
        ascending_share=ascending,
        position_correlation=correlation,
        coverage=mean_coverage(pool, covering, rng),
        class_balance=None if posteriors is None else class_balance(posteriors),
        warnings=position_warnings(ids),
    )


def position_warnings(ids: NDArray[np.int64]) -> tuple[str, ...]:
    """Return what gives a selector away that looks at places only; empty under 16 picks.

    `ids` in the order of choice. Ascending throughout, or in nearly equal steps: both were found in
    most of the published answers of chat models asked to pick 32 texts of a list.
    """
    if len(ids) < _MIN_FOR_POSITION:
        return ()
    share, correlation = ascending_share(ids) or 0.0, position_correlation(ids) or 0.0
    found = []
    if share >= _SUSPECT_ASCENDING or abs(correlation) >= _SUSPECT_CORRELATION:
        found.append(_POSITION_ONLY.format(share=share, correlation=correlation))
    variation = gap_variation(ids)
    if variation is not None and variation < 0.5:
        found.append(_REGULAR)
    return tuple(found)
