"""The log-linear pool: one posterior from the votes of those that are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from backend.label_model.latent_class import (
    Floats,
    LatentClasses,
    Standardizer,
    contrasts,
    default_inverse_temperature,
)
from backend.label_model.linear_probe import LinearProbe


@dataclass(frozen=True, slots=True)
class AnnotatorParameters:
    """What is known about one annotator.

    `weight` multiplies its say in the log-linear pool (1 before there are human labels); `signal`
    in [0, 1] is how far its votes follow the text, None where that was not measured; `accuracy`
    is an estimate with its 90 % interval `low` to `high`, over `n_human` human labels.
    """

    scale: Standardizer
    weight: float
    signal: float | None
    accuracy: float
    low: float
    high: float
    n_human: int


@dataclass(frozen=True, slots=True)
class LabelModel:
    """Everything needed to fuse the votes on any text of a project; JSON by `to_json`.

    `probe` speaks on embeddings, its weight already in its scores; `sharpness` tempers the pool,
    `bias` (K,) moves it as human labels say. `accuracy` is the estimate that the confidences were
    tempered to, None where only one annotator was heard.
    """

    annotators: Mapping[str, AnnotatorParameters]
    classes: LatentClasses
    sharpness: float
    bias: Floats
    probe: LinearProbe | None
    accuracy: float | None
    n_human: int

    def posterior(self, posteriors: Mapping[str, Floats], embeddings: Floats | None) -> Floats:
        """Return the pooled posterior, shape (n, K), from raw ones; NaN rows are abstentions.

        Voters that were not learned are not heard; without any, the class shares come back.
        """
        heard = {name: posteriors[name] for name in self.annotators if name in posteriors}
        by_probe = None
        if self.probe is not None and embeddings is not None:
            by_probe = self.probe.scores(embeddings)
        known = [*posteriors.values(), *([] if by_probe is None else [by_probe])]
        n_texts = len(known[0]) if known else 0
        features, present = _features(heard, self.annotators, n_texts, len(self.bias))
        weights = np.array([annotator.weight for annotator in self.annotators.values()])
        pooled = np.empty((n_texts, len(self.bias)))
        for pattern in np.unique(present, axis=0):
            rows = (present == pattern).all(axis=1)
            pooled[rows] = pool(self.classes, features[rows], weights, pattern)
        if by_probe is not None:
            pooled += by_probe
        fused: Floats = softmax(self.sharpness * pooled + self.bias, axis=1)
        return fused

    def annotator_posterior(self, name: str, probabilities: Floats) -> Floats:
        """Return what a voter's raw posteriors (n, K) mean by themselves, calibrated."""
        alone = {name: probabilities}
        present = np.array([annotator == name for annotator in self.annotators])
        features, _ = _features(alone, self.annotators, len(probabilities), len(self.bias))
        pooled = pool(self.classes, features, np.ones(len(present)), present)
        own: Floats = softmax(default_inverse_temperature(len(self.bias)) * pooled, axis=1)
        return own

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same trust."""
        return {
            "annotators": {
                name: _voter_to_json(annotator) for name, annotator in self.annotators.items()
            },
            "classes": self.classes.to_json(),
            "sharpness": self.sharpness,
            "bias": self.bias.tolist(),
            "probe": self.probe.to_json() if self.probe else None,
            "accuracy": self.accuracy,
            "n_human": self.n_human,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelModel:
        """Read what `to_json` wrote."""
        return cls(
            {name: _voter_from_json(annotator) for name, annotator in data["annotators"].items()},
            LatentClasses.from_json(data["classes"]),
            float(data["sharpness"]),
            np.asarray(data["bias"], dtype=float),
            LinearProbe.from_json(data["probe"]) if data["probe"] else None,
            data["accuracy"],
            int(data["n_human"]),
        )


def pool(
    classes: LatentClasses,
    features: Floats,
    weights: Floats,
    present: NDArray[np.bool_] | None = None,
) -> Floats:
    """Return log shares plus each present voter's log-likelihood times its weight, (n, K)."""
    n_voters, n_classes = len(weights), len(classes.shares)
    width = n_classes - 1
    heard = np.ones(n_voters, dtype=bool) if present is None else present
    known = np.repeat(heard, width)
    means = classes.means[:, known]
    inverse = np.linalg.inv(classes.covariance[np.ix_(known, known)])
    directions = means @ inverse
    spread = np.repeat(weights[heard], width)
    linear = features[:, known] @ (directions * spread).T
    offset = 0.5 * (directions * means * spread).sum(axis=1)
    pooled: Floats = np.log(classes.shares) + linear - offset
    return pooled


def _features(
    posteriors: Mapping[str, Floats],
    annotators: Mapping[str, AnnotatorParameters],
    n_texts: int,
    n_classes: int,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return all voters' features (n, d), 0 where absent, and who is present (n, V)."""
    blocks: list[Floats] = []
    present: list[Any] = []
    for name, annotator in annotators.items():
        given = posteriors.get(name)
        if given is None:
            blocks.append(np.zeros((n_texts, n_classes - 1)))
            present.append(np.zeros(n_texts, dtype=bool))
            continue
        blocks.append(np.nan_to_num(contrasts(annotator.scale.scores(given)), nan=0.0))
        present.append(np.isfinite(given).all(axis=1))
    return np.hstack(blocks), np.stack(present, axis=1)


def _voter_to_json(annotator: AnnotatorParameters) -> dict[str, Any]:
    return {
        "mean": annotator.scale.mean.tolist(),
        "spread": annotator.scale.spread,
        "weight": annotator.weight,
        "signal": annotator.signal,
        "accuracy": annotator.accuracy,
        "low": annotator.low,
        "high": annotator.high,
        "n_human": annotator.n_human,
    }


def _voter_from_json(data: Mapping[str, Any]) -> AnnotatorParameters:
    scale = Standardizer(np.asarray(data["mean"], dtype=float), float(data["spread"]))
    return AnnotatorParameters(
        scale,
        float(data["weight"]),
        data["signal"],
        float(data["accuracy"]),
        float(data["low"]),
        float(data["high"]),
        int(data["n_human"]),
    )
