"""Linear probes on frozen vectors, for each kind of question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import QuestionKind
from backend.label_model.linear_probe import LinearProbe, fit_probe
from backend.self_training.temperature import fit_temperature

Floats = NDArray[np.float64]

_MAX_LABELS = 20
_RIDGE = 1.0
_SHARPNESS = 16.0


def fit_probes(
    vectors: Floats, targets: Floats, weights: Floats, kind: QuestionKind
) -> tuple[LinearProbe, ...]:
    """Fit one probe, or one per label where several labels may hold.

    Over 20 exclusive labels the probe is a ridge regression with one fitted scale, which costs
    O(n d^2) whatever the number of labels; softmax regression would take half a minute for 150.
    """
    used = weights > 0
    if kind.is_exclusive:
        fitter = _ridge if targets.shape[1] > _MAX_LABELS else fit_probe
        return (fitter(vectors[used], targets[used], weights[used]),)
    return tuple(
        fit_probe(vectors[used], np.stack([1 - column, column], axis=1), weights[used])
        for column in targets[used].T
    )


def _ridge(vectors: Floats, targets: Floats, weights: Floats) -> LinearProbe:
    """Regress soft labels on vectors, then scale the scores so that their softmax fits best."""
    shares = weights / weights.sum()
    centre, prior = shares @ vectors, shares @ targets
    inputs = vectors - centre
    gram = inputs.T @ (inputs * weights[:, None])
    gram[np.diag_indices_from(gram)] += _RIDGE
    slopes = np.linalg.solve(gram, inputs.T @ ((targets - prior) * weights[:, None]))
    scores = _SHARPNESS * (inputs @ slopes + prior)
    sharpness = _SHARPNESS / fit_temperature(scores, targets)
    return LinearProbe(centre, sharpness * slopes, sharpness * prior)


def answers(probes: tuple[LinearProbe, ...], vectors: Floats) -> Floats:
    """Return label probabilities, shape (n, K)."""
    if len(probes) == 1:
        return probes[0].posterior(vectors)
    return np.stack([probe.posterior(vectors)[:, 1] for probe in probes], axis=1)
