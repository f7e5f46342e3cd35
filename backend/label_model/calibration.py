"""Calibrate posteriors: without labels, to an estimated accuracy, and on human labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from backend.label_model.latent_class import (
    Floats,
    LatentClassModel,
    Standardizer,
    contrasts,
    default_inverse_temperature,
    fit_latent_classes,
    log_probabilities,
)

HumanLabels = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows of a pool, and class indices
_N_HALF_WEIGHT = 20
_MIN_LOG_RANGE = 1e-3
_INVERSE_TEMPERATURES = (0.1, 50.0)
_MIN_DISAGREEMENT = 1e-9
_WEIGHT_SD = 0.5
_BIAS_SD = 0.7
_N_STRATA = 5
_ANSWER_WEIGHTS = (0.2, 1.0)


@dataclass(frozen=True, slots=True)
class BatchCalibrator:
    """Remove an annotator's preference for labels, whatever the text, from its posteriors.

    The idea of batch calibration (Zhou et al. 2024, arXiv 2309.17249, section 3): the mean
    posterior over unlabeled texts is the prompt's own prior; divide it out. **Deviations**: the
    mean of the logarithms is taken, and the result is moved towards *estimated* class shares
    (`fit_latent_classes`): the published rule takes all classes for equally frequent, and so
    spreads texts over all of them where nearly all are of one. With n texts the result has weight
    n / (n + 20), the raw posterior the rest.
    """

    standardizer: Standardizer
    classes: LatentClassModel
    weight: float

    @classmethod
    def fit(cls, probabilities: Floats) -> BatchCalibrator:
        """Fit to a pool's raw posteriors, shape (n, K), K >= 2, without labels.

        Posteriors that are the same for every text are left as they are.
        """
        n_texts, n_classes = probabilities.shape
        if n_texts == 0:
            shares, means = np.full(n_classes, 1 / n_classes), np.zeros((n_classes, n_classes - 1))
            uniform = LatentClassModel(shares, means, np.eye(n_classes - 1))
            return cls(Standardizer(np.zeros(n_classes), 1.0), uniform, 0.0)
        standardizer = Standardizer.fit(probabilities)
        scores = standardizer.transform(probabilities)
        classes = fit_latent_classes(contrasts(scores), scores)
        is_constant = float(np.abs(scores).max()) * standardizer.spread < _MIN_LOG_RANGE
        weight = 0.0 if is_constant else n_texts / (n_texts + _N_HALF_WEIGHT)
        return cls(standardizer, classes, weight)

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated posteriors (n, K), each independent of the other rows."""
        features = contrasts(self.standardizer.transform(probabilities))
        inverse_temperature = default_inverse_temperature(probabilities.shape[1])
        calibrated = log_softmax(inverse_temperature * self.classes.log_posterior(features), axis=1)
        mixed = (1 - self.weight) * log_probabilities(probabilities) + self.weight * calibrated
        return np.asarray(softmax(mixed, axis=1))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        rest = {"classes": self.classes.to_json(), "weight": self.weight}
        return {**self.standardizer.to_json(), **rest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BatchCalibrator:
        """Read what `to_json` wrote."""
        classes = LatentClassModel.from_json(data["classes"])
        return cls(Standardizer.from_json(data), classes, float(data["weight"]))


def inverse_temperature_for_accuracy(probabilities: Floats, accuracy: float) -> float:
    """Return the s at which the mean confidence of p^s (normalized) equals `accuracy`.

    Without human labels an estimate of the accuracy, such as that from the annotators' agreement,
    gives confidences a plausible level. s is within [0.1, 50]; 1.0 for no text.
    """
    if len(probabilities) == 0:
        return 1.0
    logs = log_probabilities(probabilities)

    def excess(log_inverse_temperature: float) -> float:
        tempered = softmax(np.exp(log_inverse_temperature) * logs, axis=1)
        return float(tempered.max(axis=1).mean()) - accuracy

    low, high = np.log(_INVERSE_TEMPERATURES)
    if excess(low) >= 0:
        return float(np.exp(low))
    return float(np.exp(high if excess(high) <= 0 else brentq(excess, low, high, xtol=1e-4)))


def accuracy_from_agreement(labels: Sequence[NDArray[np.intp]], shares: Floats) -> float | None:
    """Return the mean accuracy that the annotators' pairwise agreement implies; None for one.

    `labels` holds each annotator's class indices (n,), -1 where it abstained; `shares` (K,) are the
    classes' estimated shares. The idea: an annotator knows the label of a share k of the texts and
    guesses the others by the class shares (the one-coin model of Dawid and Skene 1979). Two then
    agree beyond chance, as often as their own label counts let them by luck, on k^2 of the texts:
    Cohen's kappa. The mean kappa is solved for k, and a = k + (1 - k) * sum(shares^2). Where nearly
    all labels are the same, agreement shows nothing. Common errors make it too high.
    """
    n_classes = len(shares)
    kappas = []
    for first, second in combinations(labels, 2):
        both = (first >= 0) & (second >= 0)
        if both.any():
            counts = [np.bincount(each[both], minlength=n_classes) for each in (first, second)]
            chance = float(counts[0] @ counts[1]) / float(both.sum()) ** 2
            agreement = float((first == second)[both].mean())
            kappas.append((agreement - chance) / max(1 - chance, _MIN_DISAGREEMENT))
    if not kappas or n_classes < 2:
        return None
    known = math.sqrt(max(0.0, float(np.mean(kappas))))
    return known + (1 - known) * float(shares @ shares)


def selection_weights(
    scores: Floats, rows: NDArray[np.intp], limits: tuple[float, float]
) -> Floats:
    """Return weights (m,) with which chosen rows spread over a pool's scores as all rows do.

    Where a fifth of the pool, by score (n,), holds more than its share of the chosen rows, each
    counts for less, and for more where it holds fewer, within `limits`. So answers to texts that
    were not drawn at random say what random ones would, as far as the score tells them apart.
    """
    edges = np.quantile(scores, np.linspace(0, 1, _N_STRATA + 1)[1:-1])
    stratum = np.searchsorted(edges, scores)
    in_pool = np.bincount(stratum, minlength=_N_STRATA) / max(len(scores), 1)
    chosen = np.bincount(stratum[rows], minlength=_N_STRATA) / max(len(rows), 1)
    return np.asarray(np.clip(in_pool / np.maximum(chosen, 1e-9), *limits)[stratum[rows]])


@dataclass(frozen=True, slots=True)
class LogLinearPool:
    """Log class shares (n, K), and what each of S sources adds to them, `terms` (S, n, K)."""

    log_shares: Floats
    terms: Floats

    def logits(self, weights: Floats) -> Floats:
        """Return the weighted sum (n, K), not normalized."""
        return np.asarray(self.log_shares + np.tensordot(weights, self.terms, 1))

    def tune(
        self, human: HumanLabels, weights: Floats, inverse_temperature: float, log_sd: float
    ) -> tuple[Floats, float, Floats]:
        """Return weights (S,), inverse temperature and class biases (K,) of maximum posterior.

        Vector scaling (Guo et al. 2017, section 4.2) with one common slope and a weight per source,
        under Gaussian priors around the given parameters and biases of 0, so that few human labels
        move them little. `log_sd` is how uncertain the logarithm of the inverse temperature is.

        The queue asks people about texts with a small margin, and there about one wrong label after
        the other: alone, they teach biases and temperatures that are wrong for sure texts. So an
        answer counts by its margin's share in the pool, for one text at most.
        """
        rows, labels = human
        pool = LogLinearPool(self.log_shares[rows], self.terms[:, rows])
        n_terms, n_classes = len(pool.terms), pool.log_shares.shape[1]
        if len(rows) == 0:
            return weights, inverse_temperature, np.zeros(n_classes)
        truth = np.eye(n_classes)[labels]
        counts = selection_weights(
            _margins(inverse_temperature * self.logits(weights)), rows, _ANSWER_WEIGHTS
        )[:, None]
        mean = np.r_[np.log(inverse_temperature), weights, np.zeros(n_classes)]
        sd = np.repeat([log_sd, _WEIGHT_SD, _BIAS_SD], [1, n_terms, n_classes])

        def loss(parameters: Floats) -> tuple[float, Floats]:
            inverse_temperature = float(np.exp(parameters[0]))
            weights, bias = parameters[1 : 1 + n_terms], parameters[1 + n_terms :]
            logits = inverse_temperature * pool.logits(weights)
            scores = log_softmax(logits + bias, axis=1)
            deviations = (parameters - mean) / sd
            nats = -float((counts * truth * scores).sum()) + 0.5 * float(deviations @ deviations)
            error = counts * (np.exp(scores) - truth)
            of_weights = inverse_temperature * (error[None] * pool.terms).sum(axis=(1, 2))
            slopes = np.concatenate([[(error * logits).sum()], of_weights, error.sum(axis=0)])
            return nats, slopes + deviations / sd

        best = minimize(loss, mean, jac=True, method="L-BFGS-B").x
        return best[1 : 1 + n_terms], float(np.exp(best[0])), best[1 + n_terms :]


def _margins(logits: Floats) -> Floats:
    """Return how far the likeliest class is ahead of the next one, (n,); 1 with one class."""
    if logits.shape[1] < 2:
        return np.ones(len(logits))
    ranked = np.sort(softmax(logits, axis=1), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])
