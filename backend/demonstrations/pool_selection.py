"""Select the demonstration pool: per class, diverse texts whose labels are reliable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.medoids import k_medoids
from backend.demonstrations.retrieval import MAX_PROMPT_SHARE

_PAPER_POOL_SIZE = 100
_CLEAN_SHARE = 0.2
_MIN_LABEL_QUALITY = 0.5


@dataclass(frozen=True, slots=True)
class PoolEvidence:
    """What is known about n texts and C classes before the pool is selected.

    Args:
        is_candidate: whether a text may stand for a class, shape (n, C); see `class_members`.
        losses: the student's loss on each text's label, shape (n,).
        embeddings: unit vectors, shape (n, d).
        is_human: whether the label is a person's, shape (n,); None for no such label.
        label_quality_score: probability that the label is right, shape (n,), in [0, 1].
    """

    is_candidate: NDArray[np.bool_]
    losses: NDArray[np.float64]
    embeddings: NDArray[np.float32]
    is_human: NDArray[np.bool_] | None = None
    label_quality_score: NDArray[np.float64] | None = None

    def ranked(self, class_index: int) -> NDArray[np.intp]:
        """Return a class's candidates with a finite loss, the smallest loss first."""
        rows = np.flatnonzero(self.is_candidate[:, class_index] & np.isfinite(self.losses))
        return rows[np.argsort(self.losses[rows], kind="stable")]


def pool_size_per_class(n_classes: int, n_shots: int) -> int:
    """Return how many demonstrations a class needs so that every prompt has its shots.

    With `n_shots` in each prompt and none in more than `MAX_PROMPT_SHARE` of the prompts there have
    to be n_shots / MAX_PROMPT_SHARE of them; half as many again leave a choice. At least three.
    """
    n_needed = 1.5 * n_shots / MAX_PROMPT_SHARE
    return max(3, math.ceil(n_needed / max(1, n_classes)))


def class_members(
    labels: NDArray[np.intp], agrees: NDArray[np.bool_], n_classes: int
) -> NDArray[np.bool_]:
    """Return which text may stand for which class, shape (n, C), where each has one label.

    Args:
        labels: class indices, shape (n,).
        agrees: whether the student agrees or a person gave the label, shape (n,).
        n_classes: the number of classes C.
    """
    return np.eye(n_classes, dtype=np.bool_)[labels] & agrees[:, None]


def select_pool(evidence: PoolEvidence, n_per_class: int) -> list[NDArray[np.intp]]:
    """Return the positions of each class's demonstrations, human labels before weak ones.

    Per class the fifth of the candidates with the smallest losses is kept, and the medoids of their
    embeddings are the demonstrations: FreeAL (arXiv 2311.15614), section 3.3, with R = 20 %. A
    class without candidates has an empty pool. Ties go to the lower position.

    **Deviations** besides those of `select_pool_paper`: human labels come first, whatever their
    loss, since they are no guess; weak labels that are more likely wrong than right stay out; at
    least `n_per_class` candidates are kept; texts with the same vector (to three decimals) count
    once. Cost: one `k_medoids` per class.
    """
    n, n_classes = evidence.is_candidate.shape
    is_human = np.zeros(n, dtype=np.bool_) if evidence.is_human is None else evidence.is_human
    quality = evidence.label_quality_score
    is_clean = np.ones(n, dtype=np.bool_) if quality is None else quality >= _MIN_LABEL_QUALITY
    pool = []
    for at in range(n_classes):
        ranked = evidence.ranked(at)
        ranked = np.concatenate([ranked[is_human[ranked]], ranked[~is_human[ranked]]])
        rounded = np.round(evidence.embeddings[ranked], 3)
        ranked = ranked[np.sort(np.unique(rounded, axis=0, return_index=True)[1])]
        human = _medoids(evidence.embeddings, ranked[is_human[ranked]], n_per_class)
        weak = ranked[~is_human[ranked] & is_clean[ranked]]
        n_kept = max(math.ceil(_CLEAN_SHARE * len(weak)), min(n_per_class, len(weak)))
        rest = _medoids(evidence.embeddings, weak[:n_kept], n_per_class - len(human))
        pool.append(np.concatenate([human, rest]))
    return pool


def select_pool_paper(
    evidence: PoolEvidence, n_per_class: int | None = None
) -> list[NDArray[np.intp]]:
    """Return the positions of each class's demonstrations, as FreeAL does, smallest loss first.

    FreeAL (arXiv 2311.15614), section 3.3: human labels and label quality are not looked at.
    `n_per_class` None: 100 texts over all classes, as in its code.

    **Deviations** from its code alone: loss instead of the largest logit, which does not follow the
    loss beyond two classes; k-medoids as in the paper instead of k-means centroids; cosine in
    clustering as in retrieval; at least two per class, where 100 // C gave none over 100 classes; a
    class with few candidates gives what it has, where k-means failed.
    """
    n_classes = evidence.is_candidate.shape[1]
    size = n_per_class or max(2, _PAPER_POOL_SIZE // max(1, n_classes))
    pool = []
    for at in range(n_classes):
        ranked = evidence.ranked(at)
        n_kept = math.ceil(_CLEAN_SHARE * len(ranked))
        pool.append(_medoids(evidence.embeddings, ranked[:n_kept], size))
    return pool


def _medoids(embeddings: NDArray[np.float32], ranked: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """Return up to k of the rows, still ranked."""
    if k < 1 or len(ranked) <= k:
        return ranked[: max(0, k)]
    return ranked[k_medoids(embeddings[ranked], k)]
