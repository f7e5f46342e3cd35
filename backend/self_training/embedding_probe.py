"""Linear probes on frozen embeddings: a student of their own, and cross-fitted predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax

from backend.domain.ports import Encoder
from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, StudentPrediction, TrainingSet
from backend.errors import InvalidRequest
from backend.files import replacing_folder
from backend.label_model.linear_probe import LinearProbe, fit_probe
from backend.self_training.noise import Floats, assign_folds

PROBE_FILE = "probe.json"
_MAX_SOFTMAX_LABELS = 20
_RIDGE_PENALTY = 1.0
_RIDGE_SCALE = 16.0
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.25, 8.0
_MIN_TEXTS_FOR_TEMPERATURE = 20
_MIN_PROBABILITY = 1e-9

Probes = tuple[LinearProbe, ...]


@dataclass(frozen=True, slots=True)
class EmbeddingProbe:
    """Softmax regression on the frozen encoder's vectors; for multiple choice one per label."""

    encoder: Encoder
    labels: tuple[str, ...]
    kind: QuestionKind
    probes: Probes

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        """Predict the labels of each text, in order."""
        vectors = embed_pool(self.encoder, pool)
        return StudentPrediction(predict_proba(self.probes, vectors), vectors.astype(np.float32))

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write the probe as JSON; an existing folder is replaced as a whole."""
        content = {
            "labels": list(self.labels),
            "kind": self.kind.value,
            "encoder": self.encoder.name,
            "card": dict(card or {}),
            "probes": [probe.to_json() for probe in self.probes],
        }
        with replacing_folder(folder) as fresh:
            fresh.mkdir()
            (fresh / PROBE_FILE).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, encoder: Encoder) -> EmbeddingProbe:
        """Read what `save` wrote; raises InvalidRequest, also when the encoder is another."""
        try:
            content = json.loads((folder / PROBE_FILE).read_text(encoding="utf-8"))
            probes = tuple(LinearProbe.from_json(probe) for probe in content["probes"])
            labels, kind = tuple(content["labels"]), QuestionKind(content["kind"])
        except (OSError, ValueError, KeyError) as exc:
            raise InvalidRequest(f"{folder} holds no probe of this project: {exc}") from exc
        if content["encoder"] != encoder.name:
            raise InvalidRequest(
                f"{folder} was fitted on vectors of {content['encoder']}, not of {encoder.name}; "
                "set ENCODER_MODEL back or train again"
            )
        return cls(encoder, labels, kind, probes)


def embed_pool(encoder: Encoder, pool: PoolTexts) -> Floats:
    """Return one row per text; of a pair both vectors, their distance and their product."""
    first = encoder.embed(pool.texts).astype(np.float64)
    if pool.pairs is None:
        return first
    second = encoder.embed(pool.pairs).astype(np.float64)
    product = first * second * np.sqrt(first.shape[1])
    return np.hstack([first, second, np.abs(first - second), product])


def cross_fit(
    data: TrainingSet, vectors: Floats, weights: Floats, *, n_folds: int, rng: np.random.Generator
) -> Floats:
    """Return predictions for each text by probes that did not see its label, shape (n, K).

    Args:
        data: the texts with soft labels.
        vectors: (n, d), as `embed_pool` makes them.
        weights: (n,), for how many texts each counts; 0 where there is no label.
        n_folds: folds; duplicates share one.
        rng: draws the folds.
    """
    targets = data.given_targets(soft=True)
    folds = assign_folds(data.pool.keys, data.hard_labels, n_folds=n_folds, rng=rng)
    out = np.full_like(targets, 1 / len(data.labels))
    for fold in range(n_folds):
        rest = weights * (folds != fold)
        if rest.any():
            rows = folds == fold
            probes = fit_probes(vectors, targets, rest, data.kind)
            out[rows] = predict_proba(probes, vectors[rows])
    return out


def fit_probes(vectors: Floats, targets: Floats, weights: Floats, kind: QuestionKind) -> Probes:
    """Fit one probe, or one per label where several labels may hold.

    Over 20 exclusive labels the probe is a ridge regression with one fitted scale, which costs
    O(n d^2) whatever the number of labels; softmax regression would take half a minute for 150.

    Args:
        vectors: (n, d).
        targets: (n, K), soft labels.
        weights: (n,), for how many texts each counts; those of 0 are left out.
        kind: whether one label holds or several.
    """
    used = weights > 0
    vectors, targets, weights = vectors[used], targets[used], weights[used]
    if not kind.is_exclusive:
        binary = (np.stack([1 - column, column], axis=1) for column in targets.T)
        return tuple(fit_probe(vectors, each, weights) for each in binary)
    fit = fit_probe if targets.shape[1] <= _MAX_SOFTMAX_LABELS else _fit_ridge
    return (fit(vectors, targets, weights),)


def _fit_ridge(vectors: Floats, targets: Floats, weights: Floats) -> LinearProbe:
    """Regress soft labels on vectors, then scale the scores so that their softmax fits best."""
    shares = weights / weights.sum()
    center, prior = shares @ vectors, shares @ targets
    inputs = vectors - center
    gram = inputs.T @ (inputs * weights[:, None])
    gram[np.diag_indices_from(gram)] += _RIDGE_PENALTY
    slopes = np.linalg.solve(gram, inputs.T @ ((targets - prior) * weights[:, None]))
    scores = _RIDGE_SCALE * (inputs @ slopes + prior)
    scale = _RIDGE_SCALE / fit_temperature(scores, targets)
    return LinearProbe(center, scale * slopes, scale * prior)


def predict_proba(probes: Probes, vectors: Floats) -> Floats:
    """Return label probabilities, shape (n, K)."""
    if len(probes) == 1:
        return probes[0].posterior(vectors)
    return np.stack([probe.posterior(vectors)[:, 1] for probe in probes], axis=1)


def fit_temperature(
    logits: NDArray[np.floating], targets: NDArray[np.floating], *, is_exclusive: bool = True
) -> float:
    """Return the temperature, in [0.25, 8], at which the logits fit soft targets best.

    The loss is the cross-entropy (Guo et al. 2017, section 4.2), here against posteriors instead of
    labels. 1.0 for fewer than 20 texts. Cost: O(n K).

    Args:
        logits: (n, K).
        targets: (n, K), probabilities.
        is_exclusive: softmax over the labels, else one sigmoid each.
    """
    if len(logits) < _MIN_TEXTS_FOR_TEMPERATURE:
        return 1.0
    scores = np.asarray(logits, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        if is_exclusive:
            return -float((targets * log_softmax(scaled, axis=1)).sum(axis=1).mean())
        positive = np.clip(expit(scaled), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        return -float((targets * np.log(positive) + (1 - targets) * np.log(1 - positive)).mean())

    bounds = (np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
