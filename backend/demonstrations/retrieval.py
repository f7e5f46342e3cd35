"""Which demonstrations stand in which prompt: near, balanced over classes, none everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.assignment import FewShotAssignment
from backend.demonstrations.clusters import equal_clusters
from backend.demonstrations.few_shot import (
    Retrieval,
    RetrievalPlan,
    RetrievalReport,
    ShotPool,
    Texts,
    n_most_prompts,
)

_TEXTS_PER_CLUSTER = 64
_MAX_CLUSTERS = 128


def retrieve(
    texts: Texts, pool: ShotPool, plan: RetrievalPlan, *, n_classes: int, rng: np.random.Generator
) -> Retrieval:
    """Return the demonstrations of every text; never a text for itself, by id or by wording.

    Each prompt has n_shots // C nearest demonstrations of every class, and one more of the
    nearest classes for the remainder; where there are more classes than shots, one of each of the
    nearest classes. No demonstration stands in more than `max_share` of the prompts: sets are
    matched to demonstrations within capacities (`match_within_capacity`). Hubs hurt: in FreeAL's
    published run (arXiv 2311.15614, feedback files) one demonstration stood in 71 % of the prompts.

    "cluster": texts are put into equal clusters no larger than the cap, each has one set, nearest
    to its centre, in one order; a text that stands in its own set gets a stand-in. "text": a set
    per text. The order within a set is drawn, because whole classes in a row right before the
    question pull the answer. Where the pool is too small, prompts have fewer demonstrations, down
    to one per class; under that the cap gives way, and the report says so.

    `recipe="paper"`: for each text m // C of every class, class by class, most similar first, no
    cap. Deviations of it: the remainder goes to the nearest classes, where the published code
    fails for C = 6 and gives nothing for C > m; no text demonstrates itself.

    Deterministic for a seed; ties go to the lower position. Cost: O(g p log(g p)) for g sets.
    """
    barred = _same_texts(texts, pool)
    sets: NDArray[np.intp]
    members = [np.flatnonzero(pool.classes == at) for at in range(n_classes)]
    filled = [rows for rows in members if len(rows)]
    n = len(texts.vectors)
    if not filled or plan.n_shots < 1 or n == 0:
        return _nothing(n, n_classes - len(filled))
    if plan.recipe == "paper":
        shots, n_sets = _published(texts, pool, filled, barred, plan.n_shots), n
        n_shots, sets = min(plan.n_shots, len(pool.classes)), np.arange(n, dtype=np.intp)
    else:
        sets = _sets(texts, plan, rng)
        n_sets = int(sets.max()) + 1
        shots, n_shots = FewShotAssignment(texts, pool, filled, plan, sets).shots(barred)
    order = np.lexsort((np.array(texts.example_ids), sets))
    report = _report(shots, n_shots, plan.max_share, n_sets, n_classes - len(filled))
    return Retrieval(tuple(shots), order, report)


def _same_texts(texts: Texts, pool: ShotPool) -> list[set[int]]:
    """Return, per text, the pool positions that are the text itself."""
    by_id: dict[int, list[int]] = {}
    by_text: dict[str, list[int]] = {}
    for at, (example_id, text) in enumerate(zip(pool.example_ids, pool.texts, strict=True)):
        by_text.setdefault(_key(text), []).append(at)
        if example_id is not None:
            by_id.setdefault(example_id, []).append(at)
    return [
        {*by_id.get(example_id, ()), *by_text.get(_key(text), ())}
        for example_id, text in zip(texts.example_ids, texts.texts, strict=True)
    ]


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()


def _sets(texts: Texts, plan: RetrievalPlan, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which set of demonstrations each text shares.

    Clusters are as large as a whole fraction of the cap allows, near 64 texts: then a
    demonstration may stand in that many clusters without a place lost.
    """
    n = len(texts.vectors)
    if plan.sharing == "text":
        return np.arange(n, dtype=np.intp)
    n_most = n_most_prompts(n, plan.max_share)
    most_parts = max(1, int(_MAX_CLUSTERS * plan.max_share))
    n_parts = min(most_parts, max(1, round(n_most / _TEXTS_PER_CLUSTER)))
    return equal_clusters(texts.vectors, max(1, n_most // n_parts), rng=rng)


def _published(
    texts: Texts,
    pool: ShotPool,
    members: list[NDArray[np.intp]],
    barred: list[set[int]],
    n_shots: int,
) -> list[tuple[int, ...]]:
    """Return the nearest of every class for each text, class by class."""
    n_each, n_left = divmod(n_shots, len(members))
    shots = []
    for vector, self_positions in zip(texts.vectors, barred, strict=True):
        similarities = (pool.vectors @ vector).astype(np.float64)
        similarities[list(self_positions)] = -np.inf
        ranked = [rows[np.argsort(-similarities[rows], kind="stable")] for rows in members]
        nearest = [similarities[rows[n_each]] if len(rows) > n_each else -np.inf for rows in ranked]
        further = set(np.argsort(-np.array(nearest), kind="stable")[:n_left].tolist())
        row: list[int] = []
        for at, rows in enumerate(ranked):
            row += rows[: n_each + (at in further)].tolist()
        shots.append(tuple(column for column in row if column not in self_positions))
    return shots


def _report(
    shots: list[tuple[int, ...]], n_shots: int, max_share: float, n_sets: int, n_empty: int
) -> RetrievalReport:
    places = [column for row in shots for column in row]
    counts = np.sort(np.bincount(places))[::-1] if places else np.zeros(1, dtype=np.intp)
    return RetrievalReport(
        n_shots=n_shots,
        hub_share=float(counts[0] / len(shots)),
        top10_share=float(counts[:10].sum() / max(1, len(places))),
        is_cap_met=bool(counts[0] <= max_share * len(shots) + 1e-9),
        n_sets=n_sets,
        n_incomplete=sum(len(row) < n_shots for row in shots),
        n_empty_classes=n_empty,
    )


def _nothing(n: int, n_empty: int) -> Retrieval:
    report = RetrievalReport(0, 0.0, 0.0, True, 0, 0, n_empty)
    return Retrieval(((),) * n, np.arange(n), report)
