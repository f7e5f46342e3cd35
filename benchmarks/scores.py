"""Score answers against gold labels, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from backend.domain.labels import Span, WeakLabel
from backend.domain.questions import Question
from benchmarks.datasets import Gold

Floats = NDArray[np.float64]
_N_RESAMPLES = 500
_N_BINS = 15


@dataclass(frozen=True, slots=True)
class Score:
    """One figure with its 95 % interval; `macro` is the macro F1 beside a micro F1."""

    value: float
    low: float
    high: float
    macro: float | None = None

    def as_notes(self, name: str) -> dict[str, object]:
        """Return interval and macro F1 for a report, under keys that begin with `name`."""
        notes: dict[str, object] = {f"{name}_95": [round(self.low, 4), round(self.high, 4)]}
        return notes if self.macro is None else {**notes, f"{name}_macro": round(self.macro, 4)}


def posteriors(weak_labels: Sequence[WeakLabel], n_labels: int) -> Floats:
    """Return the probabilities, shape (n, K); a row of NaN where there is no label."""
    rows = np.full((len(weak_labels), n_labels), np.nan)
    for at, weak in enumerate(weak_labels):
        if len(weak.probabilities) == n_labels:
            rows[at] = weak.probabilities
    return rows


def score_posteriors(probabilities: Floats, gold: Sequence[Gold], question: Question) -> Score:
    """Return accuracy, or F1 for multiple labels; a text without an answer counts as wrong."""
    if question.kind.is_multilabel:
        return _multilabel_f1(probabilities, gold)
    answered = np.asarray(np.isfinite(probabilities).all(axis=1))
    best = np.where(answered[:, None], probabilities, -1.0).argmax(axis=1)
    is_correct = answered & (best == np.array(gold, dtype=int))
    return accuracy(int(is_correct.sum()), len(gold))


def accuracy(n_correct: int, n: int) -> Score:
    """Return a share with its Wilson interval."""
    if n == 0:
        return Score(0.0, 0.0, 1.0)
    interval = binomtest(n_correct, n).proportion_ci(0.95, method="wilson")
    return Score(n_correct / n, float(interval.low), float(interval.high))


def score_spans(weak_labels: Sequence[WeakLabel], gold: Sequence[Gold]) -> Score:
    """Return the F1 of exact spans, with a bootstrap interval over texts."""
    found: list[tuple[Span, ...]] = [weak.spans or () for weak in weak_labels]
    wanted = [spans if isinstance(spans, tuple) else () for spans in gold]

    def f1(rows: NDArray[np.intp]) -> float:
        return span_f1([found[at] for at in rows], [wanted[at] for at in rows])

    return _bootstrapped(f1, len(gold))


def expected_calibration_error(
    probabilities: Floats, labels: NDArray[np.integer], *, n_bins: int = _N_BINS
) -> float:
    """Return the mean distance of confidence and accuracy over texts, in [0, 1]; 0.0 for none.

    `probabilities` has shape (n, K), `labels` holds n class indices. The confidence is the highest
    probability; texts are put into `n_bins` bins of equal width (Guo et al. 2017, section 2).
    """
    n_texts = len(labels)
    if n_texts == 0:
        return 0.0
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == labels
    bin_index = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bin_index, weights=confidence - is_correct, minlength=n_bins)
    return float(np.abs(gaps).sum() / n_texts)


def span_precision_recall(
    weak_labels: Sequence[WeakLabel], gold: Sequence[Gold]
) -> tuple[float, float]:
    """Return the micro-averaged precision and recall of exact spans; 0.0 for none."""
    found = [weak.spans or () for weak in weak_labels]
    return _precision_recall(found, [spans if isinstance(spans, tuple) else () for spans in gold])


def span_f1(predicted: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]) -> float:
    """Return the micro-averaged F1 over texts of exact spans with their labels; 0.0 for none."""
    precision, recall = _precision_recall(predicted, gold)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _precision_recall(
    predicted: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]
) -> tuple[float, float]:
    n_correct = n_predicted = n_gold = 0
    for ours, theirs in zip(predicted, gold, strict=True):
        found = {(span.start, span.end, span.label) for span in ours}
        wanted = {(span.start, span.end, span.label) for span in theirs}
        n_correct += len(found & wanted)
        n_predicted += len(found)
        n_gold += len(wanted)
    return n_correct / max(n_predicted, 1), n_correct / max(n_gold, 1)


def _multilabel_f1(probabilities: Floats, gold: Sequence[Gold]) -> Score:
    found = np.nan_to_num(probabilities) >= 0.5
    wanted = np.zeros_like(found)
    for at, labels in enumerate(gold):
        if isinstance(labels, frozenset):
            wanted[at, sorted(labels)] = True

    n_correct, n_named = (found & wanted).sum(axis=1), found.sum(axis=1) + wanted.sum(axis=1)

    def f1(rows: NDArray[np.intp]) -> float:
        return float(2 * n_correct[rows].sum() / max(1, n_named[rows].sum()))

    score = _bootstrapped(f1, len(gold))
    macro = float(f1_score(wanted, found, average="macro", zero_division=0))
    return Score(score.value, score.low, score.high, macro)


def _bootstrapped(figure: Callable[[NDArray[np.intp]], float], n: int) -> Score:
    """Return a figure of all n texts with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = [figure(rng.integers(0, n, n)) for _ in range(_N_RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(figure(np.arange(n)), float(low), float(high))
