"""How good answers are: figures that scikit-learn does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Span

_N_BINS = 15


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Precision, recall and F1 over spans; 0.0 where a quotient has nothing below the line."""

    precision: float
    recall: float
    f1: float


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, n_bins: int = _N_BINS
) -> float:
    """Return how far confidence is from accuracy, on average over texts, in [0, 1].

    `probabilities` has shape (n, K), `labels` holds n class indices. The confidence is the highest
    probability; texts are put into `n_bins` bins of equal width (Guo et al. 2017, section 2). 0.0
    for no text.
    """
    n_texts = len(labels)
    if n_texts == 0:
        return 0.0
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bin_index = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bin_index, weights=confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / n_texts)


def cohens_kappa(first: NDArray[np.integer], second: NDArray[np.integer]) -> float | None:
    """Return the chance-corrected agreement of two lists of class indices, at most 1.

    None where it is undefined: without examples, and where both consist of one and the same class.
    """
    if len(first) == 0:
        return None
    n_classes = 1 + int(max(first.max(), second.max()))
    shares = [np.bincount(labels, minlength=n_classes) / len(labels) for labels in (first, second)]
    chance = float(shares[0] @ shares[1])
    if chance >= 1:
        return None
    return (float((first == second).mean()) - chance) / (1 - chance)


def span_scores(predicted: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]) -> SpanScores:
    """Return micro-averaged scores over texts; a span is right if ends and label are exactly so."""
    n_right = n_predicted = n_gold = 0
    for ours, theirs in zip(predicted, gold, strict=True):
        found = {(span.start, span.end, span.label) for span in ours}
        wanted = {(span.start, span.end, span.label) for span in theirs}
        n_right += len(found & wanted)
        n_predicted += len(found)
        n_gold += len(wanted)
    precision = n_right / n_predicted if n_predicted else 0.0
    recall = n_right / n_gold if n_gold else 0.0
    total = precision + recall
    return SpanScores(precision, recall, 2 * precision * recall / total if total else 0.0)
