"""Retrieve few-shot demonstrations: similar, balanced over classes, none in too many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.matching import balanced_clusters, class_quotas, match_within_capacity

MAX_PROMPT_SHARE = 0.1
"""The largest share of the prompts that one demonstration may stand in."""
_TEXTS_PER_CLUSTER = 64
_MAX_CLUSTERS = 128


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts to be labeled: unit vectors (n, d), example ids and the texts themselves."""

    vectors: NDArray[np.float32]
    example_ids: Sequence[int]
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class DemonstrationPool:
    """The p demonstrations: unit vectors (p, d), class indices (p,), example ids and texts.

    A demonstration with several labels has the class that it was selected for; an id of None is a
    text that no task holds.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.intp]
    example_ids: Sequence[int | None]
    texts: Sequence[str]

    def members(self) -> list[NDArray[np.intp]]:
        """Return the positions of each class that has any, by ascending class."""
        return [np.flatnonzero(self.classes == label) for label in np.unique(self.classes)]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`shots`: the pool positions in each text's prompt, in their order. `order`: the texts'
    positions, shape (n,), those with the same demonstrations together."""

    shots: tuple[tuple[int, ...], ...]
    order: NDArray[np.intp]


def retrieve(
    texts: Texts, pool: DemonstrationPool, n_shots: int, *, rng: np.random.Generator, seed: int = 0
) -> Retrieval:
    """Return the demonstrations of every text; never a text for itself, by id or by wording.

    Texts are put into balanced clusters, and all texts of a cluster share one set in one order, so
    that the LLM server computes it once. A set has n_shots // C demonstrations of every class that
    are the nearest to the cluster's mean, and one more of the nearest classes for the remainder. No
    demonstration stands in more than `MAX_PROMPT_SHARE` of the prompts: hubs hurt, and in FreeAL's
    published run (arXiv 2311.15614, feedback files) one stood in 71 % of them. A text that stands
    in its own set gets a replacement. The order within a set is drawn, because whole classes in a
    row right before the question bias the answer. Where the pool is too small, prompts have fewer
    demonstrations, down to one per class; under that the cap gives way.

    Same seeds, same result; ties go to the lower position. Cost: O(g p log(g p)) for g sets.

    Args:
        texts: the texts to be labeled.
        pool: the demonstrations to choose from.
        n_shots: demonstrations wanted per prompt.
        rng: draws the first cluster centers.
        seed: moves the order within prompts.
    """
    n = len(texts.vectors)
    if n == 0 or n_shots < 1 or len(pool.classes) == 0:
        return Retrieval(((),) * n, np.arange(n))
    n_most = _max_prompts(n)
    # a cluster is near 64 texts and a whole fraction of the cap, so that a demonstration may stand
    # in that many clusters without a place lost
    n_parts = max(1, min(int(_MAX_CLUSTERS * MAX_PROMPT_SHARE), round(n_most / _TEXTS_PER_CLUSTER)))
    sets = balanced_clusters(texts.vectors, max(1, n_most // n_parts), rng=rng)
    assignment = FewShotAssignment(texts, pool, sets, seed=seed)
    shots = assignment.assign(n_shots, _own_positions(texts, pool))
    return Retrieval(tuple(shots), np.lexsort((np.array(texts.example_ids), sets)))


def retrieve_paper(texts: Texts, pool: DemonstrationPool, n_shots: int) -> Retrieval:
    """Return n_shots // C demonstrations of every class for each text, class by class.

    FreeAL (arXiv 2311.15614), section 3.3: the most similar first, with no cap. **Deviations**: the
    remainder goes to the nearest classes, where the published code fails for C = 6 and gives
    nothing for C > n_shots; no text demonstrates itself.
    """
    n = len(texts.vectors)
    members = pool.members()
    if n_shots < 1 or not members:
        return Retrieval(((),) * n, np.arange(n))
    n_each, n_left = divmod(n_shots, len(members))
    shots = []
    for vector, own in zip(texts.vectors, _own_positions(texts, pool), strict=True):
        similarities = (pool.vectors @ vector).astype(np.float64)
        similarities[list(own)] = -np.inf
        ranked = [rows[np.argsort(-similarities[rows], kind="stable")] for rows in members]
        nearest = [similarities[rows[n_each]] if len(rows) > n_each else -np.inf for rows in ranked]
        further = set(np.argsort(-np.array(nearest), kind="stable")[:n_left].tolist())
        chosen = [rows[: n_each + (at in further)] for at, rows in enumerate(ranked)]
        shots.append(tuple(at for at in np.concatenate(chosen).tolist() if at not in own))
    return Retrieval(tuple(shots), np.arange(n))


def _own_positions(texts: Texts, pool: DemonstrationPool) -> list[set[int]]:
    """Return, per text, the pool positions that are the text itself."""
    by_id: dict[int, list[int]] = {}
    by_text: dict[str, list[int]] = {}
    for at, (example_id, text) in enumerate(zip(pool.example_ids, pool.texts, strict=True)):
        by_text.setdefault(_normalized(text), []).append(at)
        if example_id is not None:
            by_id.setdefault(example_id, []).append(at)
    return [
        {*by_id.get(example_id, ()), *by_text.get(_normalized(text), ())}
        for example_id, text in zip(texts.example_ids, texts.texts, strict=True)
    ]


def _normalized(text: str) -> str:
    return " ".join(text.split()).casefold()


def _max_prompts(n: int) -> int:
    """Return how many of n prompts one demonstration may stand in; at least one."""
    return max(1, int(MAX_PROMPT_SHARE * n + 1e-9))


class FewShotAssignment:
    """Assigns demonstrations to the sets that texts share, within the cap.

    `sets` are each text's set, 0 to g - 1, none empty, shape (n,); `seed` moves the order in a set.
    """

    def __init__(
        self, texts: Texts, pool: DemonstrationPool, sets: NDArray[np.intp], *, seed: int
    ) -> None:
        self._texts = texts
        self._pool = pool
        self._members = pool.members()
        self._sets = sets
        self._rows = [np.flatnonzero(sets == at) for at in range(int(sets.max()) + 1)]
        self._seed = seed
        self._counts = np.zeros(len(pool.classes), dtype=np.intp)

    def assign(self, n_shots: int, own_positions: list[set[int]]) -> list[tuple[int, ...]]:
        """Return each text's demonstrations, without the text's own pool positions."""
        max_set_size = max(len(rows) for rows in self._rows)
        max_prompts = _max_prompts(len(self._sets))
        means = [self._texts.vectors[rows].mean(axis=0) for rows in self._rows]
        similarities = np.array(means, np.float64) @ self._pool.vectors.T.astype(np.float64)
        counts, capacities = class_quotas(
            np.column_stack([similarities[:, rows].max(axis=1) for rows in self._members]),
            [len(rows) for rows in self._members],
            n_shots=n_shots,
            capacity=max(1, max_prompts // max_set_size),
        )
        is_forbidden = np.zeros(similarities.shape, dtype=np.bool_)
        if max_set_size == 1:
            for set_index, rows in enumerate(self._rows):
                is_forbidden[set_index, list(own_positions[rows[0]])] = True
        matched = np.zeros_like(is_forbidden)
        limits = np.full(len(self._counts), max_prompts)
        for at, (rows, capacity) in enumerate(zip(self._members, capacities, strict=True)):
            limits[rows] = max(max_prompts, capacity * max_set_size)
            matched[:, rows] = match_within_capacity(
                similarities[:, rows],
                counts[:, at],
                np.full(len(rows), capacity, dtype=np.intp),
                is_forbidden[:, rows],
            )
        shared = [self._shuffled(at, np.flatnonzero(row)) for at, row in enumerate(matched)]
        self._counts += matched.T @ np.array([len(rows) for rows in self._rows])
        return [
            self._without_own(at, shared[set_index], own, limits)
            for at, (set_index, own) in enumerate(zip(self._sets, own_positions, strict=True))
        ]

    def _shuffled(self, set_index: int, positions: NDArray[np.intp]) -> tuple[int, ...]:
        key = min(abs(int(self._texts.example_ids[row])) for row in self._rows[set_index])
        order = np.random.default_rng([self._seed, key]).permutation(len(positions))
        return tuple(positions[order].tolist())

    def _without_own(
        self, at: int, shots: tuple[int, ...], own: set[int], limits: NDArray[np.intp]
    ) -> tuple[int, ...]:
        """Replace the text itself by the nearest other of the class with room, if there is one."""
        kept = list(shots)
        for position in own.intersection(shots):
            self._counts[position] -= 1
            is_free = (self._pool.classes == self._pool.classes[position]) & (self._counts < limits)
            is_free[[*kept, *own]] = False
            place = kept.index(position)
            if is_free.any():
                similarities = self._pool.vectors @ self._texts.vectors[at]
                kept[place] = int(np.where(is_free, similarities, -np.inf).argmax())
                self._counts[kept[place]] += 1
            else:
                del kept[place]
        return tuple(kept)
