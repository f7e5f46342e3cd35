"""Calibrate and aggregate annotators' posteriors, with human labels or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.label_model import multilabel
from backend.label_model.calibration import BatchCalibrator
from backend.label_model.capable import CapableLLM
from backend.label_model.single_label import fit_label_model
from benchmarks.label_calibration import fit_label_calibration
from benchmarks.scores import expected_calibration_error

Floats = NDArray[np.float64]
N_DRAWS = 10
LLM, SIMILARITY = "llm", "similarity"


@dataclass(frozen=True, slots=True)
class SingleLabelData:
    """Annotators' posteriors of evaluated texts and pool texts, one class per text.

    Args:
        posteriors: Per annotator (n, K), evaluated texts first, then the pool; a row of NaN is an
            abstention.
        embeddings: Of the same texts, shape (n, d).
        n_evaluated: Number of evaluated texts.
        labels: Gold classes of the pool; small draws of them serve as human labels.
        is_capable: Whether the LLM reads a text alike whatever the prompt.
    """

    posteriors: Mapping[str, Floats]
    embeddings: Floats
    n_evaluated: int
    labels: NDArray[np.intp]
    is_capable: bool = False


@dataclass(frozen=True, slots=True)
class MultilabelData:
    """Annotators' posteriors (n, K) as above, any number of labels per text; gold label sets."""

    posteriors: Mapping[str, Floats]
    n_evaluated: int
    labels: Sequence[frozenset[int]]


def calibrate(data: SingleLabelData) -> Floats:
    """Return the LLM's posteriors calibrated on all unlabeled texts, without any label."""
    return _llm_calibrated(data)[: data.n_evaluated]


def calibrate_with_labels(data: SingleLabelData, n_labels: int, *, seed: int) -> list[Floats]:
    """Return, per draw of human labels, the LLM's posteriors calibrated with them."""
    evaluated, pool = np.split(_llm_calibrated(data), [data.n_evaluated])
    results = []
    for rows in _draws(np.flatnonzero(_is_answered(pool)), n_labels, seed=seed):
        calibration = fit_label_calibration(pool[rows], data.labels[rows])
        results.append(_apply_to_answered(calibration.apply, evaluated))
    return results


def aggregate(data: SingleLabelData, human: Mapping[int, int] | None = None) -> Floats:
    """Return the aggregated posteriors; `human` maps pool positions to classes."""
    known = {data.n_evaluated + row: label for row, label in (human or {}).items()}
    capable = CapableLLM(LLM, SIMILARITY) if data.is_capable else None
    label_model = fit_label_model(data.posteriors, data.embeddings, known, capable=capable)
    return label_model.posterior(data.posteriors, data.embeddings)[: data.n_evaluated]


def aggregate_with_labels(data: SingleLabelData, n_labels: int, *, seed: int) -> list[Floats]:
    """Return, per draw of human labels, the posteriors aggregated with them."""
    return [
        aggregate(data, {row: int(data.labels[row]) for row in rows.tolist()})
        for rows in _draws(np.arange(len(data.labels)), n_labels, seed=seed)
    ]


def aggregate_multilabel(
    data: MultilabelData, human: Mapping[int, frozenset[int]] | None = None
) -> Floats:
    """Return the aggregated probabilities per label; `human` maps pool positions to label sets."""
    known = {data.n_evaluated + row: labels for row, labels in (human or {}).items()}
    label_model = multilabel.fit_multilabel_model(data.posteriors, known)
    return multilabel.aggregate_multilabel(data.posteriors, label_model)[: data.n_evaluated]


def aggregate_multilabel_with_labels(
    data: MultilabelData, n_labels: int, *, seed: int
) -> list[Floats]:
    """Return, per draw of human labels, the probabilities aggregated with them."""
    return [
        aggregate_multilabel(data, {row: data.labels[row] for row in rows.tolist()})
        for rows in _draws(np.arange(len(data.labels)), n_labels, seed=seed)
    ]


def calibration_error(posteriors: Floats, gold: NDArray[np.intp]) -> float:
    """Return the expected calibration error over the texts without abstention."""
    rows = np.flatnonzero(_is_answered(posteriors))
    return expected_calibration_error(posteriors[rows], gold[rows])


def mean_accuracy(results: Sequence[Floats], gold: NDArray[np.intp]) -> float:
    """Return the mean accuracy over draws; an abstention counts as wrong."""
    return float(np.mean([_is_correct(each, gold).mean() for each in results]))


def _draws(rows: NDArray[np.intp], n: int, *, seed: int) -> list[NDArray[np.intp]]:
    """Return `N_DRAWS` sorted draws of n rows without replacement."""
    generators = [np.random.default_rng([seed, number]) for number in range(N_DRAWS)]
    return [np.sort(rng.choice(rows, min(n, len(rows)), replace=False)) for rng in generators]


def _is_correct(posteriors: Floats, gold: NDArray[np.intp]) -> NDArray[np.bool_]:
    answered = _is_answered(posteriors)
    best = np.where(answered[:, None], posteriors, -1.0).argmax(axis=1)
    return np.asarray(answered & (best == gold))


def _llm_calibrated(data: SingleLabelData) -> Floats:
    raw = data.posteriors[LLM]
    calibrator = BatchCalibrator.fit(raw[_is_answered(raw)])
    return _apply_to_answered(calibrator.apply, raw)


def _is_answered(posteriors: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(posteriors).all(axis=1))


def _apply_to_answered(apply: Callable[[Floats], Floats], posteriors: Floats) -> Floats:
    result = posteriors.copy()
    rows = _is_answered(posteriors)
    if rows.any():
        result[rows] = apply(posteriors[rows])
    return result
