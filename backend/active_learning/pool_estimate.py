"""What is expected of every text of a pool, and how that changes as people label."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import Vectors
from backend.active_learning.ordering import PoolView

_MIN_CLARITY = 0.05

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ActiveLLMSettings:
    """The default strategy's numbers, chosen on held-out training rows (docs/algorithms.md).

    `width_share`: kernel width over the pool's mean distance (1 - cos). `label_share`: how much of
    the similarity of two texts is that of their expected labels. `quota_power`: how strongly a
    class in arrears is preferred. `prior_share`: how much of a class's target share comes from the
    pool's expected classes, the rest being equal shares. `clarity`: how strongly texts with a clear
    label are preferred before there is any human label; it is gone at `clarity_until` labels.
    `least_agreement`: annotators that agree less than this beyond chance are not heard before
    `clarity_until` labels.
    `uncertainty`: weight of the uncertainty of texts once the small model is fully trusted, which
    it is to one half at `trust_at` labels. `n_head`: how many are chosen greedily, the rest
    follow by uncertainty. An LLM, where one is asked, reads the first `n_short`; `judgement` is the
    most by which its word moves the logarithm of a gain. Pools larger than `n_candidates` or
    `n_references` are sampled down to these.
    """

    width_share: float = 0.75
    label_share: float = 0.3
    duplicate_similarity: float = 0.95
    quota_power: float = 3.0
    prior_share: float = 0.5
    clarity: float = 1.0
    clarity_until: float = 64.0
    least_agreement: float = 0.05
    uncertainty: float = 1.0
    trust_at: float = 32.0
    n_head: int = 1000
    n_short: int = 200
    scored: float = 0.5
    n_candidates: int = 8000
    n_references: int = 4000


@dataclass(frozen=True, slots=True, eq=False)
class PoolEstimate:
    """What is expected of every text: label probabilities, how unsure, how much it weighs.

    `probabilities` (n, K) blends annotators and small model; None where neither spoke.
    `uncertainty` (n,) is 1 - (best - second best) probability, 1 where nothing is known; `weights`
    (n,) say how much covering a text counts, `clarity` (n,) how readily it is chosen. `is_blank`:
    the annotators seem to guess, and there are too few labels yet to know better.
    """

    probabilities: Probabilities | None
    uncertainty: NDArray[np.float64]
    weights: NDArray[np.float64]
    clarity: NDArray[np.float64]
    source: str
    is_blank: bool = False

    @classmethod
    def of(cls, pool: PoolView, settings: ActiveLLMSettings) -> PoolEstimate:
        """Blend who speaks about the pool by the number of human labels.

        The small model's share is l / (l + `trust_at`) for l labels; uncertainty begins to weigh
        with it. Clear texts are preferred at first: preferring unsure ones from the start lost on
        the training rows of six sets (docs/algorithms.md). Annotators that agree no more than by
        chance are not heard until people have turned them round or the small model has learned.
        """
        n_labels = sum(label is not None for label in pool.labelled.values())
        is_noise = pool.agreement is not None and pool.agreement < settings.least_agreement
        is_blank = is_noise and n_labels < settings.clarity_until
        if is_blank:
            pool = replace(pool, posteriors=None)
        label_model = n_labels / (n_labels + settings.trust_at)
        probabilities, source = _blend(pool, label_model)
        if probabilities is None:
            flat = np.ones(len(pool))
            return cls(None, flat, flat, flat, source, is_blank)
        uncertainty = margin_uncertainty(probabilities)
        share = label_model * settings.uncertainty
        clarity = settings.clarity * max(0.0, 1 - n_labels / settings.clarity_until)
        return cls(
            probabilities,
            uncertainty,
            weights=(1 - share) + share * uncertainty,
            clarity=(_MIN_CLARITY + 1 - uncertainty) ** clarity,
            source=source,
            is_blank=is_blank,
        )

    def joined_to(self, embeddings: Vectors, label_share: float) -> Vectors:
        """Return unit vectors (n, d + K) whose cosine mixes that of texts and that of labels.

        The labels' part is the Bhattacharyya coefficient of the two posteriors, 1 for equal ones.
        """
        if self.probabilities is None or label_share == 0:
            return embeddings
        roots = np.sqrt(filled(self.probabilities))
        parts = [np.sqrt(1 - label_share) * embeddings, np.sqrt(label_share) * roots]
        return np.hstack(parts).astype(np.float32)

    def numbers(self, at: int) -> dict[str, float]:
        """Return the figures about one text."""
        return {"uncertainty": round(float(self.uncertainty[at]), 4)}

    def words(self, pool: PoolView, at: int) -> str:
        """Say how sure the label of one text is: "LLM unsure: 0.52 billing / 0.44 refund"."""
        if self.probabilities is None and self.is_blank:
            return "the annotators agree by chance alone and are not heard"
        if self.probabilities is None or np.isnan(self.probabilities[at]).any():
            return "nothing is known about its label"
        row = self.probabilities[at]
        best = np.argsort(-row, kind="stable")[:2]
        named = [
            f"{row[label]:.2f} "
            f"{pool.label_names[label] if label < len(pool.label_names) else f'class {label}'}"
            for label in best
        ]
        is_unsure = self.uncertainty[at] >= 0.5
        return f"{self.source} {'unsure' if is_unsure else 'fairly sure'}: {' / '.join(named)}"


def margin_uncertainty(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return 1 - (best - second best) per row (n, K), in [0, 1]; 1 for rows of NaN."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.sort(np.nan_to_num(probabilities, nan=0.0), axis=1)[:, -2:]
    margins: NDArray[np.float64] = 1.0 - (two[:, 1] - two[:, 0])
    return margins


def _blend(pool: PoolView, label_model: float) -> tuple[Probabilities | None, str]:
    annotators, small = pool.posteriors, pool.small_model_posteriors
    if annotators is None and small is None:
        return None, ""
    if small is None:
        return annotators, "annotators"
    if annotators is None:
        return small, "small model"
    mixed = (1 - label_model) * annotators + label_model * small
    mixed = np.where(np.isnan(annotators), small, mixed)
    mixed = np.where(np.isnan(small), annotators, mixed)
    return mixed, "small model" if label_model > 0.5 else "annotators"


def filled(probabilities: Probabilities) -> Probabilities:
    """Return the rows (n, K) with the mean of the known ones, or equal shares, in place of NaN."""
    n_classes = probabilities.shape[1]
    is_known = np.isnan(probabilities).sum(axis=1) == 0
    mean = (
        probabilities[is_known].mean(axis=0)
        if is_known.any()
        else np.full(n_classes, 1 / n_classes)
    )
    return np.where(is_known[:, None], probabilities, mean)
