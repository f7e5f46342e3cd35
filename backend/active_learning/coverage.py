"""Choose texts that cover a pool: soft coverage, kernel herding, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.strategy_interface import Positions

_N_SAMPLED_PAIRS = 20_000
_BLOCK = 1024
_MAX_COMPARED = 20_000
"""Pools up to this size are searched for near-duplicates pair by pair."""
_N_TABLES = 2
_LAZY_BATCH = 64
_TIE = 1e-6

Vectors = NDArray[np.float32]


def subsample(positions: Positions, max_size: int, rng: np.random.Generator) -> Positions:
    """Return at most `max_size` of the positions, drawn at random, ascending."""
    if len(positions) <= max_size:
        return positions
    return np.sort(rng.choice(positions, size=max_size, replace=False))


def sample_similarities(embeddings: Vectors, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the cosines of random pairs of different texts, ascending; empty under two texts."""
    n_texts = len(embeddings)
    if n_texts < 2:
        return np.zeros(0, dtype=np.float32)
    left = rng.integers(n_texts, size=_N_SAMPLED_PAIRS)
    right = (left + rng.integers(1, n_texts, size=_N_SAMPLED_PAIRS)) % n_texts
    return np.sort(np.einsum("ij,ij->i", embeddings[left], embeddings[right]))


def kernel(similarities: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return exp((cos - 1) / width): 1 for the same direction, falling with the angle."""
    return np.asarray(np.exp((similarities - np.float32(1)) / np.float32(width)))


def near_duplicates(
    embeddings: Vectors, order: Positions, *, threshold: float, rng: np.random.Generator
) -> dict[int, int]:
    """Return, for each text that repeats an earlier one, the text that it repeats.

    A text repeats the first kept text whose cosine with it is at least `threshold`. Pools above
    20,000 texts are compared within cells around random texts, twice: equal texts always share a
    cell, so that only some pairs just above the threshold are missed. Cost: O(n^2 d) up to that
    size, about O(n^1.5 d) above; memory O(n d).

    Args:
        embeddings: unit vectors, shape (n, d).
        order: positions in the order in which texts are kept.
        threshold: lowest cosine of near-duplicates, in [-1, 1].
        rng: draws the centers of cells.
    """
    if len(order) <= _MAX_COMPARED:
        return _leaders(embeddings, order, threshold)
    originals: dict[int, int] = {}
    for _ in range(_N_TABLES):
        pivots = embeddings[rng.choice(order, size=int(np.sqrt(len(order))), replace=False)]
        blocks = np.split(order, range(_BLOCK, len(order), _BLOCK))
        cells = np.concatenate([(embeddings[at] @ pivots.T).argmax(axis=1) for at in blocks])
        for cell in np.unique(cells):
            members = order[cells == cell]
            for repeat, first in _leaders(embeddings, members, threshold).items():
                originals.setdefault(repeat, first)
    for repeat, first in originals.items():
        while first in originals:
            first = originals[first]
        originals[repeat] = first
    return originals


def _leaders(embeddings: Vectors, order: Positions, threshold: float) -> dict[int, int]:
    """Compare each text with those kept before it, in blocks."""
    repeats: dict[int, int] = {}
    kept: Positions = np.zeros(0, dtype=np.int64)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if len(kept):
            similar = embeddings[block] @ embeddings[kept].T
            best = similar.argmax(axis=1)
            is_repeat = similar[np.arange(len(block)), best] >= threshold
            repeats.update(
                zip(block[is_repeat].tolist(), kept[best[is_repeat]].tolist(), strict=True)
            )
            block = block[~is_repeat]
        is_similar = embeddings[block] @ embeddings[block].T >= threshold
        is_kept = np.ones(len(block), dtype=bool)
        for at in np.flatnonzero(np.tril(is_similar, -1).any(axis=1)):
            earlier = np.flatnonzero(is_similar[at, :at] & is_kept[:at])
            if len(earlier):
                is_kept[at] = False
                repeats[int(block[at])] = int(block[earlier[0]])
        kept = np.concatenate([kept, block[is_kept]])
    return repeats


def best_similarity(embeddings: Vectors, rows: Positions, others: Positions) -> NDArray[np.float32]:
    """Return each row's highest cosine with any of `others`; -1 where there is none."""
    best = np.full(len(rows), -1.0, dtype=np.float32)
    for at in range(0, len(others), _BLOCK):
        cosines = embeddings[rows] @ embeddings[others[at : at + _BLOCK]].T
        np.maximum(best, cosines.max(axis=1), out=best)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class CoverageProblem:
    """Candidates to choose from, and the reference texts that they are to cover.

    Args:
        similarities: cosine of candidate and reference, shape (c, r).
        weights: how much each reference counts, shape (r,).
        covered: its highest cosine with what is labeled or chosen, shape (r,); -1 for nothing.
        own_gains: what choosing a candidate gains besides coverage, shape (c,), in units of the
            first pick's highest gain in coverage; None for nothing.
    """

    similarities: NDArray[np.float32]
    weights: NDArray[np.float32]
    covered: NDArray[np.float32]
    own_gains: NDArray[np.float64] | None = None


Preference = Callable[[list[int]], NDArray[np.float64]]
"""From the candidates picked so far to a positive factor for every candidate's gain, (c,)."""


def greedy_cover(
    problem: CoverageProblem, n_picks: int, *, width: float, prefer: Preference | None = None
) -> list[int]:
    """Pick candidates one by one, each with the highest gain in weighted soft coverage.

    The coverage of a set S is the weighted sum over references of the highest kernel value with a
    member of S or with what is labeled; `own_gains` come on top. A gain never grows as S does, so
    that a stale gain is an upper bound and only the best few candidates are recomputed at each pick
    (lazy greedy, Minoux 1978): MaxHerding and uncertainty herding, arXiv 2412.20644, equation 3.
    **Deviations**: `own_gains`, and the factor of `prefer`, which brings in class quotas. Ties go
    to the earlier candidate. Cost: O(c r) memory and first pass, then O(64 r) or few times that per
    pick.
    """
    state = _LazyGreedy(problem, width)
    picks: list[int] = []
    for _ in range(min(n_picks, len(problem.similarities))):
        factors = np.ones(len(problem.similarities)) if prefer is None else prefer(picks)
        picks.append(state.take_best(factors))
    return picks


class _LazyGreedy:
    """Keep what is covered so far, and upper bounds of each candidate's gain."""

    def __init__(self, problem: CoverageProblem, width: float) -> None:
        self._values = kernel(problem.similarities, width)
        self._weights = problem.weights
        self._covered = np.where(problem.covered > -1.0, kernel(problem.covered, width), 0.0)
        self._covered = self._covered.astype(np.float32)
        self._bounds = self._gains(np.arange(len(self._values)))
        self._own: NDArray[np.float64] = np.zeros(len(self._bounds))
        if problem.own_gains is not None:
            self._own = problem.own_gains * self._bounds.max(initial=0.0)
        self._is_open = np.ones(len(self._values), dtype=bool)

    def take_best(self, factors: NDArray[np.float64]) -> int:
        """Take the open candidate with the highest gain times factor."""
        is_fresh = np.zeros(len(self._bounds), dtype=bool)
        while True:
            bounds = np.where(self._is_open, (self._bounds + self._own) * factors, -np.inf)
            best = bounds.max()
            ties = np.flatnonzero(bounds >= best - _TIE * abs(best))
            if is_fresh[ties].all():
                break
            stale = np.where(is_fresh, -np.inf, bounds)
            n_stale = min(_LAZY_BATCH, int((self._is_open & ~is_fresh).sum()))
            renewed = np.argpartition(-stale, n_stale - 1)[:n_stale]
            self._bounds[renewed] = self._gains(renewed)
            is_fresh[renewed] = True
        pick = int(ties[0])
        self._is_open[pick] = False
        np.maximum(self._covered, self._values[pick], out=self._covered)
        return pick

    def _gains(self, candidates: Positions) -> NDArray[np.float64]:
        gains = np.empty(len(candidates))
        for at in range(0, len(candidates), _BLOCK):
            rows = self._values[candidates[at : at + _BLOCK]]
            gains[at : at + _BLOCK] = np.maximum(rows - self._covered, 0) @ self._weights
        return gains


def greedy_herd(
    candidates: Vectors, references: Vectors, chosen: Vectors, n_picks: int, *, width: float
) -> list[int]:
    """Pick candidates one by one so that all chosen texts are distributed as the references are.

    Each next pick x has the highest `mean_r k(x, r) - sum_s k(x, s) / (m + 1)` over the m texts s
    chosen before: like the pool, and unlike what is chosen already. In the kernel's space the mean
    of the picks nears the pool's faster than a random sample's (kernel herding, Chen, Welling and
    Smola 2010, arXiv 1203.3472, equation 8). Ties go to the earlier candidate. Cost: O(c r d) once,
    then O(c d) per pick.

    Args:
        candidates, references, chosen: unit vectors to choose from, to represent, and labeled or
            chosen before, shapes (c, d), (r, d) and (m, d).
        n_picks: how many to pick; all candidates where there are fewer.
        width: of the kernel.
    """
    if len(candidates) == 0:
        return []
    means = kernel(candidates @ references.T, width).mean(axis=1)
    to_chosen: NDArray[np.float64] = np.zeros(len(candidates))
    for vector in chosen:
        to_chosen += kernel(candidates @ vector, width)
    is_open = np.ones(len(candidates), dtype=bool)
    picks: list[int] = []
    for n_chosen in range(len(chosen), len(chosen) + min(n_picks, len(candidates))):
        gains = np.where(is_open, means - to_chosen / (n_chosen + 1), -np.inf)
        picks.append(int(gains.argmax()))
        is_open[picks[-1]] = False
        to_chosen += kernel(candidates @ candidates[picks[-1]], width)
    return picks
