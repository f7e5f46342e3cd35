"""Makes probabilities honest: from unlabelled posteriors first, from human labels later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from backend.evaluation.metrics import expected_calibration_error
from backend.label_model.latent_class import (
    Floats,
    LatentClasses,
    Standardizer,
    contrasts,
    default_inverse_temperature,
    fit_latent_classes,
    start_from,
)

MIN_HUMAN_LABELS = 20
_SMALLEST_PROBABILITY = 1e-6
_N_HALF_TRUSTED = 20
_FLAT_SPREAD = 1e-3
_TEMPERATURE_SD = 0.7
_BIAS_SD = 0.7
_N_FOLDS = 5
_TEMPERATURES = (0.02, 50.0)


@dataclass(frozen=True, slots=True)
class BatchCalibrator:
    """Takes out of an annotator's posteriors its leaning towards labels, whatever the text says.

    The idea of batch calibration (Zhou et al. 2024, arXiv 2309.17249, section 3): the mean
    posterior over unlabelled texts is the prompt's own prior; divide it out. **Deviations**: the
    mean of the logarithms is taken, the scale on which the model works, and what is divided out
    goes towards *estimated* class shares instead of equal ones (`fit_latent_classes`), since the
    published rule takes every class for as frequent as any other: where nearly all texts are of
    one class it spreads them over all. With n texts the result counts n / (n + 20), the raw
    posterior the rest.
    """

    scale: Standardizer
    classes: LatentClasses
    weight: float

    @classmethod
    def fit(cls, probabilities: Floats) -> BatchCalibrator:
        """Learn from a pool's raw posteriors, shape (n, K), K >= 2, without any label.

        Posteriors that are the same for every text say nothing: they are left as they are.
        """
        n_texts, n_classes = probabilities.shape
        if n_texts == 0:
            flat = LatentClasses(
                np.full(n_classes, 1 / n_classes),
                np.zeros((n_classes, n_classes - 1)),
                np.eye(n_classes - 1),
            )
            return cls(Standardizer(np.zeros(n_classes), 1.0), flat, 0.0)
        scale = Standardizer.fit(probabilities)
        scores = scale.scores(probabilities)
        classes = fit_latent_classes(contrasts(scores), start_from(scores))
        says_nothing = float(np.abs(scores).max()) * scale.spread < _FLAT_SPREAD
        return cls(scale, classes, 0.0 if says_nothing else n_texts / (n_texts + _N_HALF_TRUSTED))

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated posteriors (n, K); one text alone gets what it gets in the pool."""
        calibrated = self.classes.log_posterior(contrasts(self.scale.scores(probabilities)))
        tempered = log_softmax(
            default_inverse_temperature(calibrated.shape[1]) * calibrated, axis=1
        )
        return softmax_mix(probabilities, tempered, self.weight)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same calibrator."""
        return {
            "mean": self.scale.mean.tolist(),
            "spread": self.scale.spread,
            "classes": self.classes.to_json(),
            "weight": self.weight,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BatchCalibrator:
        """Read what `to_json` wrote."""
        scale = Standardizer(np.asarray(data["mean"], dtype=float), float(data["spread"]))
        return cls(scale, LatentClasses.from_json(data["classes"]), float(data["weight"]))


def softmax_mix(raw: Floats, log_calibrated: Floats, weight: float) -> Floats:
    """Return the geometric mean of both, normalised; `weight` in [0, 1] is the second's."""
    mixed: Floats = softmax((1 - weight) * _logs(raw) + weight * log_calibrated, axis=1)
    return mixed


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """Temperature and class-wise bias, with the calibration error before and after.

    The errors (expected calibration error, [0, 1]) are cross-validated: each label is judged by a
    fit without it. None: fewer than 20 human labels, nothing was fitted.
    """

    sharpness: float
    bias: tuple[float, ...]
    n_labels: int = 0
    ece_before: float | None = None
    ece_after: float | None = None

    def apply(self, probabilities: Floats) -> Floats:
        """Return corrected posteriors, shape (n, K)."""
        return _scaled(_logs(probabilities), self.sharpness, np.asarray(self.bias))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same correction."""
        return {
            "sharpness": self.sharpness,
            "bias": list(self.bias),
            "n_labels": self.n_labels,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelCalibration:
        """Read what `to_json` wrote."""
        return cls(
            float(data["sharpness"]),
            tuple(data["bias"]),
            int(data["n_labels"]),
            data["ece_before"],
            data["ece_after"],
        )


def fit_label_calibration(
    probabilities: Floats, labels: NDArray[np.integer], rng: np.random.Generator
) -> LabelCalibration:
    """Fit one temperature and a bias per class on human labels, once there are 20.

    The idea: vector scaling (Guo et al. 2017, section 4.2) with one common slope, held near the
    identity by Gaussian priors, so that 20 labels can move it only as far as they bear out.
    `probabilities` (n, K) and class indices `labels` (n,) are of the human-labelled texts.
    `rng` draws the folds.
    """
    n_labels, n_classes = probabilities.shape
    if n_labels < MIN_HUMAN_LABELS:
        return LabelCalibration(1.0, (0.0,) * n_classes, n_labels)
    logs = _logs(probabilities)
    folds = rng.permutation(np.arange(n_labels) % _N_FOLDS)
    held_out = np.empty_like(logs)
    for fold in range(_N_FOLDS):
        out = folds == fold
        held_out[out] = _scaled(logs[out], *_fit_scaling(logs[~out], labels[~out]))
    sharpness, bias = _fit_scaling(logs, labels)
    return LabelCalibration(
        sharpness,
        tuple(bias.tolist()),
        n_labels,
        expected_calibration_error(probabilities, labels),
        expected_calibration_error(held_out, labels),
    )


def temper_to_accuracy(probabilities: Floats, accuracy: float) -> float:
    """Return the sharpness s at which the mean confidence of p^s (normalised) is `accuracy`.

    Without human labels an estimate of accuracy, such as one from the annotators' agreement,
    gives confidences a plausible level. s is kept within [0.02, 50]; 1.0 for no text.
    """
    if len(probabilities) == 0:
        return 1.0
    logs = _logs(probabilities)

    def excess(log_sharpness: float) -> float:
        tempered = softmax(np.exp(log_sharpness) * logs, axis=1)
        return float(tempered.max(axis=1).mean()) - accuracy

    low, high = np.log(_TEMPERATURES)
    if excess(low) >= 0:
        return float(np.exp(low))
    if excess(high) <= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(excess, low, high, xtol=1e-4)))


def _fit_scaling(logs: Floats, labels: NDArray[np.integer]) -> tuple[float, Floats]:
    n_classes = logs.shape[1]
    truth = np.eye(n_classes)[labels]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        sharpness, bias = np.exp(parameters[0]), parameters[1:]
        scores = log_softmax(sharpness * logs + bias, axis=1)
        nats = -float((truth * scores).sum())
        nats += 0.5 * float(parameters[0] ** 2) / _TEMPERATURE_SD**2
        nats += 0.5 * float((bias**2).sum()) / _BIAS_SD**2
        error = np.exp(scores) - truth
        slope = sharpness * float((error * logs).sum()) + parameters[0] / _TEMPERATURE_SD**2
        return nats, np.concatenate([[slope], error.sum(axis=0) + bias / _BIAS_SD**2])

    found = minimize(loss, np.zeros(n_classes + 1), jac=True, method="L-BFGS-B").x
    return float(np.exp(found[0])), found[1:]


def _scaled(logs: Floats, sharpness: float, bias: Floats) -> Floats:
    scaled: Floats = softmax(sharpness * logs + bias, axis=1)
    return scaled


def _logs(probabilities: Floats) -> Floats:
    logs: Floats = np.log(np.clip(probabilities, _SMALLEST_PROBABILITY, None))
    return logs
