"""A linear probe on frozen embeddings that takes soft labels and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from backend.label_model.latent_class import Floats

_MAX_STEPS = 60
_PRECISION = 0.2


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Softmax regression: `weights` (d, K) and `bias` (K,), on vectors minus `centre` (d,)."""

    centre: Floats
    weights: Floats
    bias: Floats

    def scores(self, vectors: Floats) -> Floats:
        """Return what the softmax is taken of, shape (n, K)."""
        scores: Floats = (vectors - self.centre) @ self.weights + self.bias
        return scores

    def log_posterior(self, vectors: Floats) -> Floats:
        """Return log-probabilities of the classes, shape (n, K)."""
        posterior: Floats = log_softmax(self.scores(vectors), axis=1)
        return posterior

    def posterior(self, vectors: Floats) -> Floats:
        """Return probabilities of the classes, shape (n, K)."""
        probabilities: Floats = softmax(self.log_posterior(vectors), axis=1)
        return probabilities

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, from which `from_json` makes the same probe."""
        return {
            "centre": self.centre.tolist(),
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LinearProbe:
        """Read what `to_json` wrote."""
        return cls(
            np.asarray(data["centre"], dtype=float),
            np.asarray(data["weights"], dtype=float),
            np.asarray(data["bias"], dtype=float),
        )


def fit_least_squares(
    vectors: Floats, targets: Floats, weights: Floats, *, precision: float = 1.0
) -> LinearProbe:
    """Fit ridge regression to soft labels: the vectors' part of each class's share, no more.

    Shapes as for `fit_probe`. Scores are deviations from the mean target, of zero mean over the
    vectors: whoever wants probabilities has to scale them and to add class shares. Cost: one
    system of d equations, O(n d^2 + d^3), whatever K is.
    """
    total = max(float(weights.sum()), 1e-12)
    centre: Floats = weights @ vectors / total
    level = weights @ targets / total
    inputs = vectors - centre
    gram = (inputs * weights[:, None]).T @ inputs + precision * np.eye(vectors.shape[1])
    slopes = np.linalg.solve(gram, (inputs * weights[:, None]).T @ (targets - level))
    centred = np.asarray(slopes - slopes.mean(axis=1, keepdims=True), dtype=float)
    middle: Floats = vectors.mean(axis=0) if len(vectors) else centre
    return LinearProbe(middle, centred, np.zeros(targets.shape[1]))


def fit_probe(
    vectors: Floats, targets: Floats, weights: Floats, *, precision: float = _PRECISION
) -> LinearProbe:
    """Fit softmax regression to soft labels by maximum posterior.

    `vectors` (n, d), unit length; `targets` (n, K), rows summing to 1; `weights` (n,) says for how
    many texts each row counts. `precision` is that of the Gaussian prior on every weight, the
    bias's is a hundredth. Cost: at most 60 L-BFGS steps of O(n d K).
    """
    n_features, n_classes = vectors.shape[1], targets.shape[1]
    centre = vectors.mean(axis=0) if len(vectors) else np.zeros(n_features)
    inputs = np.hstack([vectors - centre, np.ones((len(vectors), 1))])
    precisions = np.full((n_features + 1, 1), float(precision))
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
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    parameters = found.reshape(n_features + 1, n_classes)
    return LinearProbe(centre, parameters[:-1], parameters[-1])
