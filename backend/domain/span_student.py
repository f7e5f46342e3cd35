"""Training data and results of the student that finds spans, and the port that trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Span
from backend.domain.student import TrainingHooks, TrainingReport
from backend.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SpanTrainingSet:
    """Texts with spans: None where nobody labelled the text, empty where it has none."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    spans: tuple[tuple[Span, ...] | None, ...]
    is_human: NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.texts), len(self.spans), len(self.is_human)}
        if len(lengths) > 1:
            raise InvalidRequest(f"ids, texts, spans and is_human differ in length: {lengths}")
        if not self.labels or all(spans is None for spans in self.spans):
            raise InvalidRequest("nothing to learn from: no text has spans; label some first")


@dataclass(frozen=True, slots=True)
class SpanOutput:
    """Predicted spans of a pool, and the quality of the given ones.

    Args:
        predicted: by the finished model.
        cross_fitted: by models that did not see the text's spans; without folds as `predicted`.
        label_quality_score: (n,), probability of a text's spans being right as a whole.
        label_issues: rows with spans given, the likeliest errors first.
    """

    predicted: tuple[tuple[Span, ...], ...]
    cross_fitted: tuple[tuple[Span, ...], ...]
    label_quality_score: NDArray[np.float64]
    label_issues: NDArray[np.int64]
    report: TrainingReport


class FittedTagger(Protocol):
    """A trained student that finds spans."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels of its spans."""

    def predict(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return each text's spans with their probabilities, in order."""

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write the model and its card's sections by title; an existing folder is replaced."""


class SpanStudent(Protocol):
    """Trains and loads students that find spans."""

    def fit(
        self, data: SpanTrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedTagger, SpanOutput]:
        """Train on `data`; raises as `Student.fit`."""

    def load(self, folder: Path) -> FittedTagger:
        """Read what `FittedTagger.save` wrote; raises InvalidRequest."""
