"""A latent-class model: one bell curve per class over the votes, found without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import log_softmax, logsumexp, softmax

Floats = NDArray[np.float64]

_SMALLEST_PROBABILITY = 1e-6
_START_SHARPNESS = 2.0
_ANCHOR = 1.0
_FREE_ANCHOR = 0.02
_RIDGE = 1e-2
_N_PSEUDO_SPREAD = 5
_N_STEPS = 60
_TOLERANCE = 1e-4
_GAIN_NATS_PER_TEXT = 0.012
_GAIN_NATS = 3.0


@dataclass(frozen=True, slots=True)
class Standardizer:
    """How one voter's posteriors become features: centred log-probabilities of unit spread.

    `mean` (K,) is the mean centred log-probability over the pool, which is the voter's own leaning
    towards labels whatever the text; `spread` is what is left's root mean square.
    """

    mean: Floats
    spread: float

    @classmethod
    def fit(cls, probabilities: Floats) -> Standardizer:
        """Measure a pool's posteriors, shape (n, K), n >= 1."""
        logs = _centred_logs(probabilities)
        mean = logs.mean(axis=0)
        spread = float(np.sqrt(((logs - mean) ** 2).mean()))
        return cls(mean, spread if spread > _SMALLEST_PROBABILITY else 1.0)

    def scores(self, probabilities: Floats) -> Floats:
        """Return centred, scaled log-probabilities, shape (n, K); each row sums to 0."""
        scores: Floats = (_centred_logs(probabilities) - self.mean) / self.spread
        return scores


@dataclass(frozen=True, slots=True)
class LatentClasses:
    """Class shares, class means of the features and their common covariance.

    `means` (K, d), `covariance` (d, d), `shares` (K,); d is K - 1 per voter.
    """

    shares: Floats
    means: Floats
    covariance: Floats

    def log_posterior(self, features: Floats, known: NDArray[np.bool_] | None = None) -> Floats:
        """Return normalised log-probabilities of the classes, shape (n, K).

        `known` (d,) says which features are there; the others are integrated out, which for a
        bell curve is leaving them away. With none, this is the class shares.
        """
        part = np.ones(len(self.covariance), dtype=bool) if known is None else known
        posterior: Floats = log_softmax(self._joint(features[:, part], part), axis=1)
        return posterior

    def log_likelihood(self, features: Floats) -> float:
        """Return the mean log density of the features in nats per text, up to a constant."""
        everything = np.ones(len(self.covariance), dtype=bool)
        spread = np.einsum("nd,nd->n", features @ np.linalg.inv(self.covariance), features)
        log_determinant = np.linalg.slogdet(self.covariance)[1]
        joint = logsumexp(self._joint(features, everything), axis=1)
        return float((joint - 0.5 * spread - 0.5 * log_determinant).mean())

    def _joint(self, features: Floats, part: NDArray[np.bool_]) -> Floats:
        """Return log share + log density, without what is the same for all classes."""
        means = self.means[:, part]
        directions = np.linalg.solve(self.covariance[np.ix_(part, part)], means.T)
        offsets = np.log(self.shares) - 0.5 * np.einsum("kd,dk->k", means, directions)
        joint: Floats = features @ directions + offsets
        return joint

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, from which `from_json` makes the same model."""
        return {
            "shares": self.shares.tolist(),
            "means": self.means.tolist(),
            "covariance": self.covariance.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatentClasses:
        """Read what `to_json` wrote."""
        n_features = len(data["covariance"])
        return cls(
            np.asarray(data["shares"], dtype=float),
            np.asarray(data["means"], dtype=float).reshape(len(data["shares"]), n_features),
            np.asarray(data["covariance"], dtype=float).reshape(n_features, n_features),
        )


def contrasts(scores: Floats) -> Floats:
    """Return scores (n, K), whose rows sum to 0, in K - 1 orthonormal coordinates."""
    coordinates: Floats = scores @ helmert(scores.shape[1]).T
    return coordinates


def start_from(scores: Floats) -> Floats:
    """Return the responsibilities (n, K) that summed vote scores (n, K) suggest at first."""
    start: Floats = softmax(_START_SHARPNESS * scores, axis=1)
    return start


def default_inverse_temperature(n_classes: int) -> float:
    """Return what to multiply a single voter's log-posterior with, so that it is not too sure.

    Its K - 1 scores are not as independent as the model takes them to be, the less the more
    classes there are. 1 / sqrt(K) is a rule of thumb, of the right size on training texts of sets
    with few classes and with many. It stands until agreement or human labels say more.
    """
    return 1 / math.sqrt(max(1, n_classes))


def fit_latent_classes(features: Floats, start: Floats) -> LatentClasses:
    """Fit class shares, means and covariance by expectation maximisation, without labels.

    The idea: what the voters say scatters around one centre per class; where the centres lie and
    how many texts belong to each is found by turns (Dempster et al. 1977), beginning at `start`
    (n, K). Each centre is held back by pseudo-texts at its place under `start`, so that a class
    keeps its meaning. With two classes they are let go when the data are much likelier so: then
    the classes are of unequal size, which centred votes cannot show by themselves.

    Cost: O(n d^2) once and at most 60 steps of O(n d K + d^3).
    """
    held = _fit(features, start, _ANCHOR)
    if start.shape[1] != 2 or len(features) == 0:
        return held
    free = _fit(features, start, _FREE_ANCHOR)
    gain = free.log_likelihood(features) - held.log_likelihood(features)
    needed = max(_GAIN_NATS_PER_TEXT * features.shape[1], _GAIN_NATS / len(features))
    return free if gain > needed else held


def _fit(features: Floats, start: Floats, anchor: float) -> LatentClasses:
    n_texts, n_classes = start.shape
    responsibilities = start
    n_pseudo = anchor * n_texts / n_classes
    anchors = _class_means(features, responsibilities, None, 0.0)
    scatter = features.T @ features
    for _ in range(_N_STEPS):
        means = _class_means(features, responsibilities, anchors, n_pseudo)
        sums, counts = responsibilities.T @ features, responsibilities.sum(axis=0)
        model = _maximise(means, sums, counts, scatter)
        updated = np.exp(model.log_posterior(features))
        change = np.abs(updated - responsibilities).max(initial=0.0)
        responsibilities = updated
        if change < _TOLERANCE:
            break
    return model


def _maximise(means: Floats, sums: Floats, counts: Floats, scatter: Floats) -> LatentClasses:
    """Return the likeliest model from what each class adds up to.

    `sums` (K, d) and `counts` (K,) are of the texts by responsibility; `scatter` (d, d), their sum
    of squares, is the same at every step.
    """
    total, n_classes = float(counts.sum()), len(counts)
    cross = sums.T @ means
    within = (scatter - cross - cross.T + means.T @ (counts[:, None] * means)) / max(total, 1.0)
    n_features = means.shape[1]
    shrinkage = (n_features + _N_PSEUDO_SPREAD) / (n_features + _N_PSEUDO_SPREAD + total)
    level = float(np.trace(scatter)) / max(n_features * total, 1.0)
    covariance = (1 - shrinkage) * within + (shrinkage * level + _RIDGE) * np.eye(n_features)
    return LatentClasses((counts + 1) / (total + n_classes), means, covariance)


def _class_means(
    features: Floats, weighted: Floats, anchors: Floats | None, n_pseudo: float
) -> Floats:
    sums = weighted.T @ features
    if anchors is not None:
        sums = sums + n_pseudo * anchors
    means: Floats = sums / (weighted.sum(axis=0)[:, None] + n_pseudo + _SMALLEST_PROBABILITY)
    return means


def _centred_logs(probabilities: Floats) -> Floats:
    logs = np.log(np.clip(probabilities, _SMALLEST_PROBABILITY, None))
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    return centred
