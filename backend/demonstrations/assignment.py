"""Sets of demonstrations that texts share, none of them in too many prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.few_shot import RetrievalPlan, ShotPool, Texts, n_most_prompts
from backend.demonstrations.matching import match_within_capacity
from backend.demonstrations.quotas import Quotas, settle_quotas, shares_by_class


class FewShotAssignment:
    """Sets of demonstrations under the cap, and one stand-in where a text met itself."""

    def __init__(
        self,
        texts: Texts,
        pool: ShotPool,
        members: list[NDArray[np.intp]],
        plan: RetrievalPlan,
        sets: NDArray[np.intp],
    ) -> None:
        self._texts = texts
        self._pool = pool
        self._members = members
        self._plan = plan
        self._sets = sets
        self._rows = [np.flatnonzero(sets == at) for at in range(int(sets.max()) + 1)]
        self._counts = np.zeros(len(pool.classes), dtype=np.intp)

    def shots(self, barred: list[set[int]]) -> tuple[list[tuple[int, ...]], int]:
        """Return each text's demonstrations and how many a prompt was to have."""
        n_largest = max(len(rows) for rows in self._rows)
        most_prompts = n_most_prompts(len(self._sets), self._plan.max_share)
        quotas = settle_quotas(
            [len(rows) for rows in self._members],
            n_sets=len(self._rows),
            n_shots=self._plan.n_shots,
            capacity=max(1, most_prompts // n_largest),
        )
        chosen = self._chosen(quotas, barred if n_largest == 1 else None)
        shared = [self._in_order(at, columns) for at, columns in enumerate(chosen)]
        for at, columns in enumerate(shared):
            self._counts[list(columns)] += len(self._rows[at])
        most = np.full(len(self._counts), most_prompts)
        for rows, capacity in zip(self._members, quotas.capacities, strict=True):
            most[rows] = max(most_prompts, capacity * n_largest)
        shots = []
        for at, (own, self_positions) in enumerate(zip(self._sets, barred, strict=True)):
            shots.append(self._without_itself(at, shared[own], self_positions, most))
        return shots, quotas.n_shots

    def _chosen(self, quotas: Quotas, barred: list[set[int]] | None) -> list[list[int]]:
        """Return the pool positions of each set; `barred` where every set serves one text."""
        similarities = self._centres() @ self._pool.vectors.T.astype(np.float64)
        is_barred = np.zeros(similarities.shape, dtype=np.bool_)
        if barred is not None:
            for own, rows in enumerate(self._rows):
                is_barred[own, list(barred[rows[0]])] = True
        nearest = np.column_stack([similarities[:, rows].max(axis=1) for rows in self._members])
        wanted = shares_by_class(nearest, quotas)
        chosen: list[list[int]] = [[] for _ in self._rows]
        for at, rows in enumerate(self._members):
            capacities = np.full(len(rows), quotas.capacities[at], dtype=np.intp)
            taken = match_within_capacity(
                similarities[:, rows], wanted[:, at], capacities, is_barred[:, rows]
            )
            for own, column in zip(*np.nonzero(taken), strict=True):
                chosen[own].append(int(rows[column]))
        return chosen

    def _centres(self) -> NDArray[np.float64]:
        means = [self._texts.vectors[rows].mean(axis=0) for rows in self._rows]
        return np.array(means, dtype=np.float64)

    def _in_order(self, own: int, columns: list[int]) -> tuple[int, ...]:
        key = min(abs(int(self._texts.example_ids[row])) for row in self._rows[own])
        order = np.random.default_rng([self._plan.seed, key]).permutation(len(columns))
        ranked = sorted(columns)
        return tuple(ranked[at] for at in order)

    def _without_itself(
        self, at: int, columns: tuple[int, ...], barred: set[int], most: NDArray[np.intp]
    ) -> tuple[int, ...]:
        if barred.isdisjoint(columns):
            return columns
        kept = list(columns)
        for column in barred.intersection(columns):
            self._counts[column] -= 1
            instead = self._stand_in(at, column, {*kept, *barred}, most)
            place = kept.index(column)
            kept[place : place + 1] = [] if instead is None else [instead]
        return tuple(kept)

    def _stand_in(
        self, at: int, column: int, taken: set[int], most: NDArray[np.intp]
    ) -> int | None:
        """Return the nearest other demonstration of the class with room, and count it."""
        is_free = (self._pool.classes == self._pool.classes[column]) & (self._counts < most)
        is_free[list(taken)] = False
        if not is_free.any():
            return None
        similarities = self._pool.vectors @ self._texts.vectors[at]
        best = int(np.where(is_free, similarities, -np.inf).argmax())
        self._counts[best] += 1
        return best
