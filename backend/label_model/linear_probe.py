"""Fit linear probes on frozen embeddings, and measure what embeddings predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from backend.label_model.latent_class import Floats

_MAX_STEPS = 60
_PRECISION = 0.2
_RIDGE_PRECISION = 5.0
_MAX_SCALE = 100.0
_N_FOLDS = 2
_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Softmax regression: `weights` (d, K) and `bias` (K,), on vectors minus `center` (d,)."""

    center: Floats
    weights: Floats
    bias: Floats

    def scores(self, vectors: Floats) -> Floats:
        """Return the logits, shape (n, K)."""
        return np.asarray((vectors - self.center) @ self.weights + self.bias)

    def posterior(self, vectors: Floats) -> Floats:
        """Return probabilities of the classes, shape (n, K)."""
        return np.asarray(softmax(log_softmax(self.scores(vectors), axis=1), axis=1))

    def to_json(self) -> dict[str, Any]:
        """Return plain lists for `from_json`."""
        return {name: getattr(self, name).tolist() for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LinearProbe:
        """Read what `to_json` wrote; older files call the center `centre`."""
        center = data["center"] if "center" in data else data["centre"]
        return cls(*(np.asarray(part, float) for part in (center, data["weights"], data["bias"])))


def fit_ridge_probe(vectors: Floats, targets: Floats, weights: Floats) -> LinearProbe:
    """Fit ridge regression from vectors to soft labels; `bias` is 0.

    Args as for `fit_probe`. Scores are deviations from the mean target, of zero mean over the
    vectors: for probabilities they must be scaled and class log-shares added. Cost: one system of
    d equations, O(n d^2 + d^3), whatever K is.
    """
    total = max(float(weights.sum()), 1e-12)
    center: Floats = weights @ vectors / total
    inputs = vectors - center
    weighted = (inputs * weights[:, None]).T
    gram = weighted @ inputs + _RIDGE_PRECISION * np.eye(vectors.shape[1])
    slopes = np.linalg.solve(gram, weighted @ (targets - weights @ targets / total))
    centered = np.asarray(slopes - slopes.mean(axis=1, keepdims=True), dtype=float)
    mean: Floats = vectors.mean(axis=0) if len(vectors) else center
    return LinearProbe(mean, centered, np.zeros(targets.shape[1]))


def fit_probe(vectors: Floats, targets: Floats, weights: Floats) -> LinearProbe:
    """Fit softmax regression from vectors to soft labels by maximum posterior.

    The Gaussian prior has precision 0.2 on every weight, and a hundredth of it on the bias.

    Args:
        vectors: embeddings (n, d) of unit length.
        targets: soft labels (n, K), rows summing to 1.
        weights: how many texts each row counts for, (n,).

    Cost: at most 60 L-BFGS steps of O(n d K).
    """
    n_features, n_classes = vectors.shape[1], targets.shape[1]
    center = vectors.mean(axis=0) if len(vectors) else np.zeros(n_features)
    inputs = np.hstack([vectors - center, np.ones((len(vectors), 1))])
    precisions = np.full((n_features + 1, 1), _PRECISION)
    precisions[-1] /= 100

    def loss(flat: Floats) -> tuple[float, Floats]:
        parameters = flat.reshape(n_features + 1, n_classes)
        scores = log_softmax(inputs @ parameters, axis=1)
        nats = -float((weights[:, None] * targets * scores).sum())
        nats += 0.5 * float((precisions * parameters**2).sum())
        slope = inputs.T @ (weights[:, None] * (np.exp(scores) - targets))
        return nats, (slope + precisions * parameters).ravel()

    start = np.zeros((n_features + 1) * n_classes)
    options = {"maxiter": _MAX_STEPS}
    flat = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    parameters = flat.reshape(n_features + 1, n_classes)
    return LinearProbe(center, parameters[:-1], parameters[-1])


def cross_fit_ridge(
    vectors: Floats, targets: Floats, weights: Floats
) -> tuple[Floats, LinearProbe]:
    """Fit a ridge probe with scores scaled to log-odds; return cross-fitted ones (n, K) and it.

    Args as for `fit_probe`. The scale is the factor that makes the two-fold cross-fitted scores
    the likeliest log-odds. The probe's own scores of the texts that it was fitted to are wider than
    cross-fitted ones, since it has seen their labels; it is scaled to the same spread, so that
    weights and temperatures that were found with the latter hold for it.
    """
    held_out = np.empty_like(targets)
    for out in _folds(len(vectors)):
        probe = fit_ridge_probe(vectors[~out], targets[~out], weights[~out])
        held_out[out] = probe.scores(vectors[out])
    held_out -= held_out.mean(axis=0)
    shares = np.log(np.clip(weights @ targets / weights.sum(), 1e-9, None))

    def loss(factor: float) -> float:
        logs = log_softmax(factor * held_out + shares, axis=1)
        return -float((weights[:, None] * targets * logs).sum())

    scale = float(minimize_scalar(loss, bounds=(0.0, _MAX_SCALE), method="bounded").x)
    probe = fit_ridge_probe(vectors, targets, weights)
    fitted_spread = float(np.linalg.norm(probe.scores(vectors)))
    shrinkage = float(np.linalg.norm(held_out)) / max(fitted_spread, 1e-12)
    return scale * held_out, replace(probe, weights=scale * shrinkage * probe.weights)


def explained_variance(vectors: Floats, scores: Floats) -> float:
    """Return the share of the scores' variance (n, K) that embeddings (n, d) predict, in [0, 1].

    Two-fold cross-fitted ridge regression; few texts make it too low. Scores have zero mean.
    """
    vectors = vectors - vectors.mean(axis=0)
    residual = 0.0
    for out in _folds(len(vectors)):
        rest = vectors[~out]
        gram = rest.T @ rest + _RIDGE * np.eye(rest.shape[1])
        slopes = np.linalg.solve(gram, rest.T @ scores[~out])
        residual += float(((scores[out] - vectors[out] @ slopes) ** 2).sum())
    total = float((scores**2).sum())
    return float(np.clip(1 - residual / total, 0.0, 1.0)) if total > 0 else 0.0


def _folds(n: int) -> list[NDArray[np.bool_]]:
    return [np.arange(n) % _N_FOLDS == fold for fold in range(_N_FOLDS)]
