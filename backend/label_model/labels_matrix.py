"""Annotators' posteriors on one question as arrays, read from weak labels and written as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    Example,
    Span,
    WeakLabel,
)
from backend.domain.questions import Question
from backend.label_model.latent_class import Floats

AGGREGATED = "fused"
"""Name of the annotator of aggregated labels."""
_NO_LABEL = Abstention(AbstentionReason.UNREADABLE, "no annotator gave a label")

SpanRows = tuple[tuple[Span, ...] | None, ...]
"""Spans of n examples; None where there is no answer."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelsMatrix:
    """Labels of all annotators on one question; row i is about `example_ids[i]`.

    `example_ids` (n,); `posteriors` holds (n, K) by annotator, NaN rows being abstentions; `spans`
    holds those of a question about spans; `kinds` and `versions` (of the prompt or the round) are
    by annotator too.
    """

    example_ids: NDArray[np.int64]
    n_labels: int
    posteriors: Mapping[str, Floats] = field(default_factory=dict)
    kinds: Mapping[str, AnnotatorKind] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, SpanRows] = field(default_factory=dict)

    @classmethod
    def read(
        cls, question: Question, examples: Sequence[Example], weak_labels: Sequence[WeakLabel]
    ) -> LabelsMatrix:
        """Return what annotators say about a question; aggregated labels are left out."""
        row_of = {example.id: row for row, example in enumerate(examples)}
        shape = (len(examples), len(question.labels))
        found: dict[str, Floats] = {}
        spans: dict[str, list[tuple[Span, ...] | None]] = {}
        kinds: dict[str, AnnotatorKind] = {}
        versions: dict[str, str] = {}
        for label in weak_labels:
            is_given = label.abstention is None and label.example_id in row_of
            is_annotator = label.annotator_kind is not AnnotatorKind.AGGREGATED
            if label.question != question.name or not is_given or not is_annotator:
                continue
            row = row_of[label.example_id]
            if question.kind.has_spans and label.spans is not None:
                spans.setdefault(label.annotator, [None] * shape[0])[row] = label.spans
            elif label.probabilities and len(label.probabilities) == shape[1]:
                array = found.setdefault(label.annotator, np.full(shape, np.nan))
                array[row] = label.probabilities
            else:
                continue
            kinds[label.annotator] = label.annotator_kind
            versions[label.annotator] = label.prompt_version
        ids = np.array([example.id for example in examples], dtype=np.int64)
        rows = {name: tuple(of_annotator) for name, of_annotator in spans.items()}
        return cls(ids, shape[1], found, kinds, versions, rows)

    @property
    def students(self) -> set[str]:
        """Return the names of the annotators that are students."""
        return {name for name, kind in self.kinds.items() if kind is AnnotatorKind.STUDENT}

    def select(self, is_wanted: Callable[[AnnotatorKind], bool]) -> LabelsMatrix:
        """Return the annotators of some kinds alone."""
        names = {name for name, kind in self.kinds.items() if is_wanted(kind)}
        return replace(
            self,
            posteriors={n: p for n, p in self.posteriors.items() if n in names},
            spans={n: rows for n, rows in self.spans.items() if n in names},
        )

    def without(self, annotator: str) -> LabelsMatrix:
        """Return the matrix without one annotator; an unknown one is not missed."""
        return replace(
            self,
            posteriors={n: p for n, p in self.posteriors.items() if n != annotator},
            spans={n: rows for n, rows in self.spans.items() if n != annotator},
        )

    def with_annotator(
        self, name: str, posteriors: Floats, kind: AnnotatorKind, version: str
    ) -> LabelsMatrix:
        """Return the matrix with one more annotator; rows that are not finite are abstentions."""
        is_given = has_label(posteriors)[:, None]
        return replace(
            self,
            posteriors={**self.posteriors, name: np.where(is_given, posteriors, np.nan)},
            kinds={**self.kinds, name: kind},
            versions={**self.versions, name: version},
        )

    def with_spans(
        self, name: str, spans: SpanRows, kind: AnnotatorKind, version: str
    ) -> LabelsMatrix:
        """Return the matrix with one more annotator of spans."""
        return replace(
            self,
            spans={**self.spans, name: spans},
            kinds={**self.kinds, name: kind},
            versions={**self.versions, name: version},
        )

    def combined_spans(self, *kinds: AnnotatorKind) -> SpanRows:
        """Return the spans (n,) of annotators of these kinds, a later kind replacing."""
        names = [n for kind in kinds for n in self.spans if self.kinds[n] is kind]
        combined: list[tuple[Span, ...] | None] = [None] * len(self.example_ids)
        for name in names:
            combined = [
                old if new is None else new
                for old, new in zip(combined, self.spans[name], strict=True)
            ]
        return tuple(combined)

    def combined(self, *kinds: AnnotatorKind) -> Floats:
        """Return the posteriors (n, K) of annotators of these kinds, a later kind replacing."""
        names = [n for kind in kinds for n in self.posteriors if self.kinds[n] is kind]
        return self._overlay([self.posteriors[name] for name in names])

    def first(self) -> Floats:
        """Return the posteriors (n, K) of the first annotator that gave one, row by row."""
        return self._overlay([*self.posteriors.values()][::-1])

    def _overlay(self, layers: Sequence[Floats]) -> Floats:
        combined: Floats = np.full((len(self.example_ids), self.n_labels), np.nan)
        for posteriors in layers:
            combined = np.where(has_label(posteriors)[:, None], posteriors, combined)
        return combined

    def weak_labels(self, question: Question) -> list[WeakLabel]:
        """Return every label as a weak label, annotator by annotator."""

        def label(name: str, row: int, **given: Any) -> WeakLabel:
            example_id, kind = int(self.example_ids[row]), self.kinds[name]
            version = self.versions[name]
            return WeakLabel(example_id, question.name, name, version, annotator_kind=kind, **given)

        posteriors = [
            label(name, row, probabilities=tuple(rows[row].tolist()))
            for name, rows in self.posteriors.items()
            for row in np.flatnonzero(has_label(rows)).tolist()
        ]
        return posteriors + [
            label(name, row, spans=spans)
            for name, rows in self.spans.items()
            for row, spans in enumerate(rows)
            if spans is not None
        ]


@dataclass(frozen=True, slots=True, eq=False)
class AggregatedMatrix:
    """One label per example on one question.

    `probabilities` (n, K), NaN rows where no annotator gave a label; `sources` (n,): "human",
    "agreement", "combination" or the only annotator's name, None where nothing was aggregated and
    the first label stands; `annotator_posteriors`: calibrated (n, K) by annotator, NaN if absent.
    On a question about spans `spans` (n,) holds the labels, and `confidences` (n,) the probability
    that an example's are right as a whole.
    """

    probabilities: Floats
    sources: Sequence[str | None]
    annotator_posteriors: Mapping[str, Floats]
    spans: SpanRows | None = None
    confidences: Floats | None = None

    def weak_labels(
        self, question: Question, examples: Sequence[Example], first_labels: Mapping[int, WeakLabel]
    ) -> list[WeakLabel]:
        """Return one aggregated label per example, in order.

        `first_labels` holds by example id the label whose flags the aggregated one keeps, and which
        stands where `sources` is None.
        """
        labels = []
        for row, (example, source) in enumerate(zip(examples, self.sources, strict=True)):
            first = first_labels.get(example.id)
            if source is None:
                none = WeakLabel(example.id, question.name, "nobody", abstention=_NO_LABEL)
                labels.append(_as_aggregated(first or none))
                continue
            own = {name: p[row] for name, p in self.annotator_posteriors.items()}
            label = WeakLabel(
                example.id,
                question.name,
                AGGREGATED,
                **self._answer(row),
                label_mass=first.label_mass if first and question.kind.is_exclusive else None,
                annotator_posteriors={
                    n: tuple(p.tolist()) for n, p in own.items() if np.isfinite(p).all()
                },
                injection_flag=first.injection_flag if first else None,
                is_truncated=bool(first and first.is_truncated),
                annotator_kind=AnnotatorKind.AGGREGATED,
                source=source,
            )
            labels.append(label)
        return labels

    def expected_errors(self, question: Question) -> Floats:
        """Return how many of each example's labels are expected to be wrong, (n,), NaN if unknown.

        Every label of a multiple choice and every span counts by itself.
        """
        if self.spans is not None:
            spans = [np.nan if r is None else sum(1 - s.probability for s in r) for r in self.spans]
            by_spans = np.array(spans, dtype=np.float64)
            if self.confidences is None:
                return by_spans
            return np.maximum(by_spans, 1 - self.confidences)
        if question.kind.is_multilabel:
            return np.asarray(np.minimum(self.probabilities, 1 - self.probabilities).sum(axis=1))
        if not self.probabilities.shape[1]:
            return np.full(len(self.probabilities), np.nan)
        return np.asarray(1 - self.probabilities.max(axis=1))

    def _answer(self, row: int) -> dict[str, Any]:
        if self.spans is None:
            return {"probabilities": tuple(self.probabilities[row].tolist())}
        confidence = None if self.confidences is None else float(self.confidences[row])
        return {"spans": self.spans[row], "confidence": confidence}


def has_label(posteriors: Floats) -> NDArray[np.bool_]:
    """Return which rows (n,) of posteriors (n, K) are no abstentions."""
    return np.asarray(np.isfinite(posteriors).all(axis=1))


def first_labels(question: Question, weak_labels: Sequence[WeakLabel]) -> dict[int, WeakLabel]:
    """Return each example's first label on a question, its first abstention without any."""
    first: dict[int, WeakLabel] = {}
    for label in weak_labels:
        known = first.get(label.example_id)
        is_better = known is None or (known.abstention is not None and label.abstention is None)
        if label.question == question.name and is_better:
            first[label.example_id] = label
    return first


def _as_aggregated(label: WeakLabel) -> WeakLabel:
    return replace(
        label,
        annotator=AGGREGATED,
        annotator_kind=AnnotatorKind.AGGREGATED,
        source=label.annotator,
        prompt_version="",
        n_tokens_in=0,
        n_tokens_out=0,
    )


def rows_by_id(
    ids: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each wanted id its row in `ids`, and whether it is there; both (n,)."""
    if len(ids) == 0:
        return np.zeros(len(wanted), dtype=np.intp), np.zeros(len(wanted), dtype=np.bool_)
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    return rows, np.asarray(ids[rows] == wanted)


def align_rows(ids: NDArray[np.int64], values: Floats, wanted: NDArray[np.int64]) -> Floats:
    """Return the rows of `values` (n, K) for the wanted ids, NaN rows where there is none."""
    rows, is_there = rows_by_id(ids, wanted)
    aligned = np.full((len(wanted), values.shape[1]), np.nan)
    aligned[is_there] = values[rows[is_there]]
    return aligned
