"""Soft coverage of a pool by a few of its texts: kernel width, near-duplicates, lazy greedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.ordering import Positions

_N_SAMPLED_PAIRS = 20_000
_BLOCK = 1024
_MAX_COMPARED = 20_000
"""Pools up to this size are searched for near-duplicates pair by pair."""
_N_TABLES = 2
_LAZY_BATCH = 64
_TIE = 1e-6

Vectors = NDArray[np.float32]


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
    values: NDArray[np.float32] = np.exp((similarities - np.float32(1)) / np.float32(width))
    return values


def near_duplicates(
    embeddings: Vectors, order: Positions, *, threshold: float, rng: np.random.Generator
) -> dict[int, int]:
    """Return, for each text that repeats an earlier one of `order`, which one it repeats.

    A text repeats the first kept text whose cosine with it is at least `threshold`. Pools above
    20,000 texts are compared within cells around random texts, twice: equal texts always share a
    cell, so that only some pairs just above the threshold are missed. Cost O(n^2 d) up to that
    size, about O(n^1.5 d) above; memory O(n d).
    """
    if len(order) <= _MAX_COMPARED:
        return _leaders(embeddings, order, threshold)
    found: dict[int, int] = {}
    for _ in range(_N_TABLES):
        pivots = embeddings[rng.choice(order, size=int(np.sqrt(len(order))), replace=False)]
        cells = _nearest(embeddings, order, pivots)
        for cell in np.unique(cells):
            members = order[cells == cell]
            for repeat, first in _leaders(embeddings, members, threshold).items():
                found.setdefault(repeat, first)
    return {repeat: _root(found, repeat) for repeat in found}


def _root(found: dict[int, int], repeat: int) -> int:
    first = found[repeat]
    while first in found:
        first = found[first]
    return first


def _nearest(embeddings: Vectors, order: Positions, pivots: Vectors) -> Positions:
    blocks = [
        (embeddings[order[at : at + _BLOCK]] @ pivots.T).argmax(axis=1)
        for at in range(0, len(order), _BLOCK)
    ]
    cells: Positions = np.concatenate(blocks).astype(np.int64)
    return cells


def _leaders(embeddings: Vectors, order: Positions, threshold: float) -> dict[int, int]:
    """Compare each text with those kept before it, in blocks."""
    found: dict[int, int] = {}
    kept: Positions = np.zeros(0, dtype=np.int64)
    for at in range(0, len(order), _BLOCK):
        block = order[at : at + _BLOCK]
        if len(kept):
            similar = embeddings[block] @ embeddings[kept].T
            best = similar.argmax(axis=1)
            is_repeat = similar[np.arange(len(block)), best] >= threshold
            found.update(
                zip(block[is_repeat].tolist(), kept[best[is_repeat]].tolist(), strict=True)
            )
            block = block[~is_repeat]
        kept = np.concatenate([kept, _leaders_within(embeddings, block, threshold, found)])
    return found


def _leaders_within(
    embeddings: Vectors, block: Positions, threshold: float, found: dict[int, int]
) -> Positions:
    similar = embeddings[block] @ embeddings[block].T >= threshold
    is_kept = np.ones(len(block), dtype=bool)
    for at in np.flatnonzero(np.tril(similar, -1).any(axis=1)):
        earlier = np.flatnonzero(similar[at, :at] & is_kept[:at])
        if len(earlier):
            is_kept[at] = False
            found[int(block[at])] = int(block[earlier[0]])
    kept: Positions = block[is_kept]
    return kept


def best_similarity(embeddings: Vectors, rows: Positions, others: Positions) -> NDArray[np.float32]:
    """Return each row's highest cosine with any of `others`; -1 where there is none."""
    best = np.full(len(rows), -1.0, dtype=np.float32)
    for at in range(0, len(others), _BLOCK):
        cosines = embeddings[rows] @ embeddings[others[at : at + _BLOCK]].T
        np.maximum(best, cosines.max(axis=1), out=best)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class CoverageProblem:
    """Candidates to choose from, and the texts that they are to cover.

    `similarities` (c, r): cosine of candidate and reference. `weights` (r,): how much each
    reference matters. `covered` (r,): its highest cosine with what is labelled, -1 for nothing.
    """

    similarities: NDArray[np.float32]
    weights: NDArray[np.float32]
    covered: NDArray[np.float32]


Preference = Callable[[list[int]], NDArray[np.float64]]
"""From the candidates picked so far to a positive factor for every candidate's gain, (c,)."""


def greedy_cover(
    problem: CoverageProblem, n_picks: int, *, width: float, prefer: Preference | None = None
) -> list[int]:
    """Pick candidates one by one, each with the highest gain in weighted soft coverage.

    The coverage of a set S is the weighted sum over references of the highest kernel value with a
    member of S or with what is labelled. A gain never grows as S does, so that a stale gain is an
    upper bound and only the best few candidates are recomputed at each pick (lazy greedy, Minoux
    1978): MaxHerding and uncertainty herding, arXiv 2412.20644, equation 3. **Deviation**: a gain
    is multiplied by what `prefer` says, which is where class quotas come in. Ties go to the
    earlier candidate. Cost O(c r) memory and first pass, then O(64 r) or few times that per pick.
    """
    state = _LazyGreedy(problem, width)
    picks: list[int] = []
    for _ in range(min(n_picks, len(problem.similarities))):
        factors = np.ones(len(problem.similarities)) if prefer is None else prefer(picks)
        picks.append(state.take_best(factors))
    return picks


class _LazyGreedy:
    """What is covered so far, and upper bounds of what each candidate would add."""

    def __init__(self, problem: CoverageProblem, width: float) -> None:
        self._values = kernel(problem.similarities, width)
        self._weights = problem.weights
        self._covered = np.where(problem.covered > -1.0, kernel(problem.covered, width), 0.0)
        self._covered = self._covered.astype(np.float32)
        self._bounds = self._gains(np.arange(len(self._values)))
        self._is_open = np.ones(len(self._values), dtype=bool)

    def take_best(self, factors: NDArray[np.float64]) -> int:
        """Take the open candidate with the highest gain times factor."""
        is_fresh = np.zeros(len(self._bounds), dtype=bool)
        while True:
            hopes = np.where(self._is_open, self._bounds * factors, -np.inf)
            best = hopes.max()
            ties = np.flatnonzero(hopes >= best - _TIE * abs(best))
            if is_fresh[ties].all():
                return self._take(int(ties[0]))
            stale = np.where(is_fresh, -np.inf, hopes)
            n_asked = min(_LAZY_BATCH, int((self._is_open & ~is_fresh).sum()))
            asked = np.argpartition(-stale, n_asked - 1)[:n_asked]
            self._bounds[asked] = self._gains(asked)
            is_fresh[asked] = True

    def _take(self, pick: int) -> int:
        self._is_open[pick] = False
        np.maximum(self._covered, self._values[pick], out=self._covered)
        return pick

    def _gains(self, candidates: Positions) -> NDArray[np.float64]:
        gains = np.empty(len(candidates))
        for at in range(0, len(candidates), _BLOCK):
            rows = self._values[candidates[at : at + _BLOCK]]
            gains[at : at + _BLOCK] = np.maximum(rows - self._covered, 0) @ self._weights
        return gains
