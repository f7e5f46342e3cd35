"""Fit a Gaussian latent-class model to the posteriors of several annotators, without labels."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import log_softmax, logsumexp, softmax

Floats = NDArray[np.float64]

_MAX_TEXTS = 4000
MIN_PROBABILITY = 1e-6
INITIAL_INVERSE_TEMPERATURE = 2.0
_PRIOR_SHARE = 1.0  # pseudo-texts that hold the class means, per text
_WEAK_PRIOR_SHARE = 0.02
_RIDGE = 1e-2
_N_PRIOR_COVARIANCE = 5
_MAX_STEPS = 60
_TOLERANCE = 1e-4
_MIN_GAIN_PER_FEATURE = 0.012  # nats per text
_MIN_GAIN = 3.0  # nats in all


@dataclass(frozen=True, slots=True)
class Standardizer:
    """Turn one annotator's posteriors into centered log-probabilities of unit variance.

    `mean` (K,) is the mean centered log-probability over the pool: the annotator's preference for
    labels whatever the text. `spread` is the root mean square of what is left.
    """

    mean: Floats
    spread: float

    @classmethod
    def fit(cls, probabilities: Floats) -> Standardizer:
        """Measure mean and spread of a pool's posteriors, shape (n, K), n >= 1."""
        logs = _centered_logs(probabilities)
        mean = logs.mean(axis=0)
        spread = float(np.sqrt(((logs - mean) ** 2).mean()))
        return cls(mean, spread if spread > MIN_PROBABILITY else 1.0)

    def transform(self, probabilities: Floats) -> Floats:
        """Return centered, scaled log-probabilities, shape (n, K); each row sums to 0."""
        return np.asarray((_centered_logs(probabilities) - self.mean) / self.spread)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return {"mean": self.mean.tolist(), "spread": self.spread}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Standardizer:
        """Read `mean` and `spread` as `to_json` wrote them."""
        return cls(np.asarray(data["mean"], dtype=float), float(data["spread"]))


@dataclass(frozen=True, slots=True)
class LatentClassModel:
    """Class shares (K,), class means (K, d) of the features and their common covariance (d, d).

    The features are each annotator's K - 1 contrasts, side by side.
    """

    shares: Floats
    means: Floats
    covariance: Floats

    def log_posterior(self, features: Floats) -> Floats:
        """Return normalized log-probabilities of the classes, shape (n, K)."""
        return np.asarray(log_softmax(self._joint(features), axis=1))

    def log_linear_pool(
        self, features: Floats, weights: Floats, is_present: NDArray[np.bool_]
    ) -> Floats:
        """Return log shares plus each present annotator's weighted log-likelihood, (n, K).

        Args:
            features: contrasts of all annotators (n, d); those of absent ones are ignored.
            weights: one per annotator.
            is_present: which annotators to use; the others are integrated out.
        """
        width = len(self.shares) - 1
        used = np.repeat(is_present, width)
        means = self.means[:, used]
        directions = means @ np.linalg.inv(self.covariance[np.ix_(used, used)])
        factors = np.repeat(weights[is_present], width)
        linear = features[:, used] @ (directions * factors).T
        offset = 0.5 * (directions * means * factors).sum(axis=1)
        return np.asarray(np.log(self.shares) + linear - offset)

    def log_likelihood(self, features: Floats) -> float:
        """Return the mean log density of the features in nats per text, up to a constant."""
        spread = np.einsum("nd,nd->n", features @ np.linalg.inv(self.covariance), features)
        log_determinant = np.linalg.slogdet(self.covariance)[1]
        joint = logsumexp(self._joint(features), axis=1)
        return float((joint - 0.5 * spread - 0.5 * log_determinant).mean())

    def _joint(self, features: Floats) -> Floats:
        """Return log share plus log density, without the terms that all classes share."""
        means = np.asfortranarray(self.means)  # the layout decides the last bits of results
        directions = np.linalg.solve(self.covariance, means.T)
        offsets = np.log(self.shares) - 0.5 * np.einsum("kd,dk->k", means, directions)
        return np.asarray(np.asfortranarray(features) @ directions + offsets)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists for `from_json`."""
        return {name: getattr(self, name).tolist() for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatentClassModel:
        """Read what `to_json` wrote."""
        shares, means, covariance = (np.asarray(data[name], float) for name in cls.__slots__)
        n_features = len(covariance)
        means = means.reshape(len(shares), n_features)  # also without any feature
        return cls(shares, means, covariance.reshape(n_features, n_features))


def contrasts(scores: Floats) -> Floats:
    """Return scores (n, K), whose rows sum to 0, in K - 1 orthonormal Helmert coordinates."""
    return np.asarray(scores @ helmert(scores.shape[1]).T)


def default_inverse_temperature(n_classes: int) -> float:
    """Return the factor for a single annotator's log-posterior against overconfidence.

    Its K - 1 scores are less independent than the model assumes, the more so with more classes.
    1 / sqrt(K) was of the right size on training texts of data sets with few classes and with many;
    it is used until agreement or human labels give a better one.
    """
    return 1 / math.sqrt(max(1, n_classes))


def log_probabilities(probabilities: Floats) -> Floats:
    """Return logarithms, of no less than 1e-6."""
    return np.asarray(np.log(np.clip(probabilities, MIN_PROBABILITY, None)))


def is_answered(probabilities: Floats) -> NDArray[np.bool_]:
    """Return which rows (n, K) hold a posterior; a row with NaN is an abstention."""
    return np.asarray(~np.isnan(probabilities).any(axis=1))


def sample_rows(is_answered: NDArray[np.bool_], human: Collection[int]) -> NDArray[np.intp]:
    """Return the rows to fit on: all in `human`, and up to 4,000 other answered, evenly spread."""
    is_human = np.isin(np.arange(len(is_answered)), list(human))
    others = np.flatnonzero(is_answered & ~is_human)
    others = others[:: max(1, -(-len(others) // _MAX_TEXTS))]
    return np.sort(np.concatenate([np.flatnonzero(is_human), others]))


def fit_latent_classes(features: Floats, scores: Floats) -> LatentClassModel:
    """Fit class shares, means and covariance by expectation maximization, without labels.

    The idea: the annotators' scores scatter around one mean per class; means and shares are found
    by turns (Dempster et al. 1977). A prior of pseudo-texts holds each mean near its initial place,
    so that a class keeps its meaning. With two classes the prior is weakened when the data are much
    likelier so: then the classes are of unequal size, which centered scores cannot show.

    Args:
        features: contrasts of all annotators, side by side (n, d).
        scores: the annotators' standardized scores, summed (n, K); their softmax is the start.

    Cost: O(n d^2) once and at most 60 steps of O(n d K + d^3).
    """
    responsibilities: Floats = softmax(INITIAL_INVERSE_TEMPERATURE * scores, axis=1)
    strong = _fit(features, responsibilities, _PRIOR_SHARE)
    if scores.shape[1] != 2 or len(features) == 0:
        return strong
    weak = _fit(features, responsibilities, _WEAK_PRIOR_SHARE)
    gain = weak.log_likelihood(features) - strong.log_likelihood(features)
    needed = max(_MIN_GAIN_PER_FEATURE * features.shape[1], _MIN_GAIN / len(features))
    return weak if gain > needed else strong


def _fit(features: Floats, responsibilities: Floats, prior_share: float) -> LatentClassModel:
    """Fit by turns; each covariance is shrunk towards a multiple of the identity."""
    (n_texts, n_classes), n_features = responsibilities.shape, features.shape[1]
    n_pseudo = prior_share * n_texts / n_classes
    sums, counts = responsibilities.T @ features, responsibilities.sum(axis=0)
    anchors = sums / (counts[:, None] + MIN_PROBABILITY)
    scatter = features.T @ features
    n_prior = n_features + _N_PRIOR_COVARIANCE
    for _ in range(_MAX_STEPS):
        means = (sums + n_pseudo * anchors) / (counts[:, None] + n_pseudo + MIN_PROBABILITY)
        total = float(counts.sum())
        cross = sums.T @ means
        within = (scatter - cross - cross.T + means.T @ (counts[:, None] * means)) / max(total, 1.0)
        shrinkage = n_prior / (n_prior + total)
        level = float(np.trace(scatter)) / max(n_features * total, 1.0)
        covariance = (1 - shrinkage) * within + (shrinkage * level + _RIDGE) * np.eye(n_features)
        model = LatentClassModel((counts + 1) / (total + n_classes), means, covariance)
        updated = np.exp(model.log_posterior(features))
        change = np.abs(updated - responsibilities).max(initial=0.0)
        responsibilities = updated
        if change < _TOLERANCE:
            break
        sums, counts = responsibilities.T @ features, responsibilities.sum(axis=0)
    return model


def _centered_logs(probabilities: Floats) -> Floats:
    logs = log_probabilities(probabilities)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))
