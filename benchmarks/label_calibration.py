"""Calibrate one annotator's posteriors on human labels: the label model's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from backend.domain.labels import MIN_HUMAN_LABELS

Floats = NDArray[np.float64]

_MIN_PROBABILITY = 1e-6
_LOG_TEMPERATURE_SD = 0.7
_BIAS_SD = 0.7


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """An inverse temperature and a bias per class."""

    inverse_temperature: float
    bias: tuple[float, ...]

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated posteriors, shape (n, K)."""
        logits = self.inverse_temperature * _logs(probabilities) + np.asarray(self.bias)
        calibrated: Floats = softmax(logits, axis=1)
        return calibrated


def fit_label_calibration(probabilities: Floats, labels: NDArray[np.integer]) -> LabelCalibration:
    """Fit one inverse temperature and a bias per class on human labels, from 20 on.

    The idea: vector scaling (Guo et al. 2017, section 4.2) with one common slope, held near the
    identity by Gaussian priors.

    Args:
        probabilities: The annotator's posteriors (n, K) of the human-labeled texts.
        labels: Their class indices (n,).
    """
    n_labels, n_classes = probabilities.shape
    if n_labels < MIN_HUMAN_LABELS:
        return LabelCalibration(1.0, (0.0,) * n_classes)
    logs, truth = _logs(probabilities), np.eye(n_classes)[labels]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        inverse_temperature, bias = np.exp(parameters[0]), parameters[1:]
        scores = log_softmax(inverse_temperature * logs + bias, axis=1)
        nats = -float((truth * scores).sum())
        nats += 0.5 * float(parameters[0] ** 2) / _LOG_TEMPERATURE_SD**2
        nats += 0.5 * float((bias**2).sum()) / _BIAS_SD**2
        error = np.exp(scores) - truth
        slope = inverse_temperature * float((error * logs).sum())
        slope += parameters[0] / _LOG_TEMPERATURE_SD**2
        return nats, np.concatenate([[slope], error.sum(axis=0) + bias / _BIAS_SD**2])

    best = minimize(loss, np.zeros(n_classes + 1), jac=True, method="L-BFGS-B").x
    return LabelCalibration(float(np.exp(best[0])), tuple(best[1:].tolist()))


def _logs(probabilities: Floats) -> Floats:
    logs: Floats = np.log(np.clip(probabilities, _MIN_PROBABILITY, None))
    return logs
