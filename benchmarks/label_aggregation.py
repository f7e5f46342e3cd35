"""From the annotators' raw posteriors to what a project would publish, with labels or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.label_model.calibration import BatchCalibrator
from backend.label_model.multilabel import aggregate_multilabel, fit_multilabel_model
from backend.label_model.single_label import fit_label_model
from benchmarks.label_calibration import fit_label_calibration
from benchmarks.scores import expected_calibration_error

Floats = NDArray[np.float64]
N_DRAWS = 10


LLM, SIMILARITY = "llm", "similarity"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the annotators said about evaluated texts and pool texts; NaN rows are abstentions.

    `votes` and `embeddings` hold the evaluated texts first, then the pool's; `labels` are the
    classes of the pool's texts, of which draws of a few stand for human labels.
    """

    votes: Mapping[str, Floats]
    embeddings: Floats
    n_evaluated: int
    labels: NDArray[np.intp]


def calibrated(evidence: Evidence) -> Floats:
    """Return the LLM's posteriors calibrated on all unlabelled texts, no label used."""
    return _llm_calibrated(evidence)[: evidence.n_evaluated]


def calibrated_with_labels(evidence: Evidence, n_labels: int, *, seed: int) -> list[Floats]:
    """Return, per draw of human labels, the LLM's posteriors calibrated with them."""
    every = _llm_calibrated(evidence)
    evaluated, pool = every[: evidence.n_evaluated], every[evidence.n_evaluated :]
    results = []
    for rows, _ in draws(np.flatnonzero(_answered(pool)), n_labels, seed=seed):
        calibration = fit_label_calibration(pool[rows], evidence.labels[rows])
        results.append(_applied(calibration.apply, evaluated))
    return results


def combined(evidence: Evidence, human: Mapping[int, int] | None = None) -> Floats:
    """Return the fused posteriors; `human` maps pool positions to classes."""
    known = {evidence.n_evaluated + row: label for row, label in (human or {}).items()}
    label_model = fit_label_model(evidence.votes, evidence.embeddings, known)
    return label_model.posterior(evidence.votes, evidence.embeddings)[: evidence.n_evaluated]


def combined_with_labels(evidence: Evidence, n_labels: int, *, seed: int) -> list[Floats]:
    """Return, per draw of human labels, the posteriors fused with them."""
    every = np.arange(len(evidence.labels))
    return [
        combined(evidence, {row: int(evidence.labels[row]) for row in rows.tolist()})
        for rows, _ in draws(every, n_labels, seed=seed)
    ]


@dataclass(frozen=True, slots=True)
class SetEvidence:
    """The same for several labels per text: `labels` holds the sets of the pool's texts."""

    votes: Mapping[str, Floats]
    n_evaluated: int
    labels: Sequence[frozenset[int]]


def combined_sets(
    evidence: SetEvidence, human: Mapping[int, frozenset[int]] | None = None
) -> Floats:
    """Return the fused probabilities per label; `human` maps pool positions to sets."""
    known = {evidence.n_evaluated + row: labels for row, labels in (human or {}).items()}
    label_model = fit_multilabel_model(evidence.votes, known)
    return aggregate_multilabel(evidence.votes, label_model)[: evidence.n_evaluated]


def combined_sets_with_labels(evidence: SetEvidence, n_labels: int, *, seed: int) -> list[Floats]:
    """Return, per draw of human labels, the probabilities fused with them."""
    every = np.arange(len(evidence.labels))
    return [
        combined_sets(evidence, {row: evidence.labels[row] for row in rows.tolist()})
        for rows, _ in draws(every, n_labels, seed=seed)
    ]


def draws(
    rows: NDArray[np.intp], n: int, *, seed: int
) -> list[tuple[NDArray[np.intp], np.random.Generator]]:
    """Return `N_DRAWS` draws of n rows, each with the generator to go on with."""
    found = []
    for number in range(N_DRAWS):
        rng = np.random.default_rng([seed, number])
        found.append((np.sort(rng.choice(rows, size=min(n, len(rows)), replace=False)), rng))
    return found


def calibration_error(posteriors: Floats, gold: NDArray[np.intp]) -> float:
    """Return the expected calibration error over the texts that have an answer."""
    rows = np.flatnonzero(_answered(posteriors))
    return expected_calibration_error(posteriors[rows], gold[rows])


def mean_accuracy(results: Sequence[Floats], gold: NDArray[np.intp]) -> float:
    """Return the mean accuracy over draws; no answer is wrong."""
    return float(np.mean([_is_right(each, gold).mean() for each in results]))


def _is_right(posteriors: Floats, gold: NDArray[np.intp]) -> NDArray[np.bool_]:
    answered = _answered(posteriors)
    best = np.where(answered[:, None], posteriors, -1.0).argmax(axis=1)
    right: NDArray[np.bool_] = answered & (best == gold)
    return right


def _llm_calibrated(evidence: Evidence) -> Floats:
    votes = evidence.votes[LLM]
    calibrator = BatchCalibrator.fit(votes[_answered(votes)])
    return _applied(calibrator.apply, votes)


def _answered(posteriors: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(posteriors).all(axis=1))


def _applied(apply, posteriors: Floats) -> Floats:  # type: ignore[no-untyped-def]
    changed = posteriors.copy()
    rows = _answered(posteriors)
    if rows.any():
        changed[rows] = apply(posteriors[rows])
    return changed
