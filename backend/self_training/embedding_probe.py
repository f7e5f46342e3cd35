"""The fast path: a linear probe on frozen, cached embeddings, behind the same interface."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backend.domain.ports import Encoder
from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, StudentPrediction, TrainingSet
from backend.errors import InvalidRequest
from backend.files import replacing_folder
from backend.label_model.linear_probe import LinearProbe
from backend.self_training.context import Floats, assign_folds, given_targets
from backend.self_training.linear_heads import answers, fit_probes

PROBE_FILE = "probe.json"


class EmbeddingProbe:
    """Softmax regression on the frozen encoder's vectors; for multiple choice one per label."""

    def __init__(
        self,
        encoder: Encoder,
        labels: tuple[str, ...],
        kind: QuestionKind,
        probes: tuple[LinearProbe, ...],
    ) -> None:
        self._encoder = encoder
        self._labels = labels
        self._kind = kind
        self._probes = probes

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label space that probabilities follow."""
        return self._labels

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        """Answer for each text, in order."""
        vectors = embed_pool(self._encoder, pool)
        return StudentPrediction(answers(self._probes, vectors), vectors.astype(np.float32))

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write the probe as JSON; a folder that is there is replaced as a whole."""
        content = {
            "labels": list(self._labels),
            "kind": self._kind.value,
            "encoder": self._encoder.name,
            "card": dict(card or {}),
            "probes": [probe.to_json() for probe in self._probes],
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
            raise InvalidRequest(f"{folder} holds no probe of ours: {exc}") from exc
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
    scale = np.sqrt(first.shape[1])
    return np.hstack([first, second, np.abs(first - second), first * second * scale])


def cross_fit(
    data: TrainingSet, vectors: Floats, weights: Floats, *, n_folds: int, rng: np.random.Generator
) -> Floats:
    """Return predictions for each text by probes that did not see its label, shape (n, K)."""
    targets = given_targets(data, soft=True)
    folds = assign_folds(data, n_folds, rng)
    out = np.full_like(targets, 1 / len(data.labels))
    for fold in range(n_folds):
        rest = weights * (folds != fold)
        if rest.any():
            mine = folds == fold
            out[mine] = answers(fit_probes(vectors, targets, rest, data.kind), vectors[mine])
    return out
