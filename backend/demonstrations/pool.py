"""The demonstration pool: per class, the texts whose labels can be trusted and that differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.medoids import k_medoids

_PAPER_POOL_SIZE = 100
_MIN_CLEAN_PROBABILITY = 0.5


@dataclass(frozen=True, slots=True)
class PoolEvidence:
    """What is known about n texts and C classes before the pool is chosen.

    `is_candidate`, shape (n, C): the weak label names the class and the small model agrees, or a
    person said so; see `class_members`. `losses`, shape (n,) or (n, C): the
    small model's loss on that label; smaller is more trusted. `embeddings`: unit vectors, shape
    (n, d). `is_human`, shape (n,): the label is a person's. `label_quality_score`, shape (n,) or
    (n, C), in [0, 1]: that the weak label is right.
    """

    is_candidate: NDArray[np.bool_]
    losses: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    is_human: NDArray[np.bool_] | None = None
    label_quality_score: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """How large the pool is and how it is chosen.

    `n_per_class` None: 100 texts over all classes as in FreeAL's code, and never fewer than two
    per class. `share` is R, the part of a class's candidates with the smallest losses that medoids
    are taken from.
    """

    n_per_class: int | None = None
    share: float = 0.2
    recipe: Literal["default", "paper"] = "default"

    def size(self, n_classes: int) -> int:
        """Return how many texts a class may have."""
        if self.n_per_class is not None:
            return self.n_per_class
        return max(2, _PAPER_POOL_SIZE // max(1, n_classes))


def pool_size_per_class(n_classes: int, n_shots: int, *, max_share: float = 0.1) -> int:
    """Return how many demonstrations per class let every prompt have its shots under the cap.

    With n_shots in each prompt and no demonstration in more than `max_share` of the prompts there
    have to be n_shots / max_share of them; half as many again leave a choice. At least three.
    """
    n_needed = 1.5 * n_shots / max_share
    return max(3, math.ceil(n_needed / max(1, n_classes)))


def class_members(
    labels: NDArray[np.intp], agrees: NDArray[np.bool_], n_classes: int
) -> NDArray[np.bool_]:
    """Return which text may stand for which class, shape (n, C), where each has one label.

    `labels` are class positions, shape (n,); a text without a label has `agrees` False.
    """
    members = np.zeros((len(labels), n_classes), dtype=np.bool_)
    rows = np.flatnonzero(agrees)
    members[rows, labels[rows]] = True
    return members


def select_pool(evidence: PoolEvidence, plan: PoolPlan | None = None) -> list[NDArray[np.intp]]:
    """Return the positions of each class's demonstrations, the most trusted first.

    Per class the `share` of candidates with the smallest losses are taken, and the medoids of
    their embeddings are the demonstrations: trusted first, different second. FreeAL
    (arXiv 2311.15614), section 3.3, with R = 20 %. A class without candidates has an empty pool.

    Deviations of `recipe="paper"`, from the published code alone: loss instead of the largest
    logit, which does not follow the loss beyond two classes; k-medoids as in the paper instead of
    k-means centroids; cosine in clustering as in retrieval; at least two per class, where 100 // C
    gave none over 100 classes; a class with few candidates gives what it has, where k-means failed.

    `recipe="default"` besides: human labels come first, whatever their loss, since a person's label
    is no guess; weak labels that are more likely wrong than right stay out; at least `n_per_class`
    candidates are kept where the share holds fewer; texts with the same vector count once.

    Cost: one k-medoids per class, see `k_medoids`. Ties go to the lower position.
    """
    plan = plan or PoolPlan()
    n, n_classes = evidence.is_candidate.shape
    losses = np.broadcast_to(_as_table(evidence.losses), (n, n_classes))
    size = plan.size(n_classes)
    pool = []
    for at in range(n_classes):
        rows = np.flatnonzero(evidence.is_candidate[:, at] & np.isfinite(losses[:, at]))
        ranked = rows[np.argsort(losses[rows, at], kind="stable")]
        if plan.recipe == "paper":
            pool.append(_published(evidence, ranked, plan.share, size))
        else:
            pool.append(_trusted(evidence, ranked, _clean(evidence, at), plan.share, size))
    return pool


def _published(
    evidence: PoolEvidence, ranked: NDArray[np.intp], share: float, size: int
) -> NDArray[np.intp]:
    return _medoids(evidence.embeddings, ranked[: math.ceil(share * len(ranked))], size)


def _trusted(
    evidence: PoolEvidence,
    ranked: NDArray[np.intp],
    is_clean: NDArray[np.bool_],
    share: float,
    size: int,
) -> NDArray[np.intp]:
    """Return a class's human texts, then as many weak ones as there is room for."""
    ranked = _without_twins(evidence.embeddings, _humans_first(evidence, ranked))
    is_human = _human_mask(evidence)[ranked]
    human = _medoids(evidence.embeddings, ranked[is_human], size)
    weak = ranked[~is_human & is_clean[ranked]]
    n_kept = max(math.ceil(share * len(weak)), min(size, len(weak)))
    return np.concatenate([human, _medoids(evidence.embeddings, weak[:n_kept], size - len(human))])


def _medoids(embeddings: NDArray[np.float32], ranked: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """Return up to k of the rows, still ranked."""
    if k < 1 or len(ranked) <= k:
        return ranked[: max(0, k)]
    return ranked[k_medoids(embeddings[ranked], k).medoids]


def _humans_first(evidence: PoolEvidence, ranked: NDArray[np.intp]) -> NDArray[np.intp]:
    is_human = _human_mask(evidence)[ranked]
    return np.concatenate([ranked[is_human], ranked[~is_human]])


def _human_mask(evidence: PoolEvidence) -> NDArray[np.bool_]:
    if evidence.is_human is None:
        return np.zeros(len(evidence.embeddings), dtype=np.bool_)
    return evidence.is_human


def _clean(evidence: PoolEvidence, class_index: int) -> NDArray[np.bool_]:
    if evidence.label_quality_score is None:
        return np.ones(len(evidence.embeddings), dtype=np.bool_)
    by_class = _as_table(evidence.label_quality_score)
    column = by_class[:, min(class_index, by_class.shape[1] - 1)]
    return np.asarray(column >= _MIN_CLEAN_PROBABILITY)


def _as_table(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 2 else values[:, None]


def _without_twins(embeddings: NDArray[np.float32], ranked: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows without those whose vector an earlier one has, to three decimals."""
    rounded = np.round(embeddings[ranked], 3)
    _, first = np.unique(rounded, axis=0, return_index=True)
    return ranked[np.sort(first)]
