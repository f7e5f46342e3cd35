"""Labels of one source on one question as a table, whatever the question's kind."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import AnnotatorKind, Answer, Span, WeakLabel
from backend.domain.questions import Question
from backend.label_model.labels_matrix import (
    AggregatedMatrix,
    LabelsMatrix,
    SpanRows,
    align_rows,
    has_label,
    rows_by_id,
)
from backend.label_model.latent_class import Floats

_MIN_PROBABILITY = 1e-12
_ABSENT = 0.25
"""Of a span that an aggregated answer leaves out: it was found too unlikely to be kept."""
_HOLDS = 0.5
"""Probability from which a label of a multiple choice holds."""

Part = int | tuple[int, int, str]
Parts = frozenset[Part]
"""An answer that can be compared: its labels' positions, or its spans with their labels."""


class LabelTable(ABC):
    """Labels of n examples, one row each; a row may have none."""

    ids: NDArray[np.int64]
    key: ClassVar[str]
    """Name of `content` among the arrays of a file."""

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the table as the arrays of a file."""
        return {"ids": self.ids, self.key: self.content}

    @property
    @abstractmethod
    def content(self) -> NDArray[Any]:
        """Return what `read_table` reads, as one array without pickles."""

    @property
    @abstractmethod
    def has_label(self) -> NDArray[np.bool_]:
        """Return which rows (n,) have a label."""

    @property
    @abstractmethod
    def confidences(self) -> Floats:
        """Return the probability (n,) that each row's answer is right as a whole, 0 without one."""

    @property
    @abstractmethod
    def parts(self) -> list[Parts]:
        """Return each row's answer; empty where nothing holds, and where there is none."""

    @abstractmethod
    def certainty(self, row: int, part: Part) -> float:
        """Return the probability that a part belongs to a row's answer."""

    @abstractmethod
    def losses(self, answers: Self) -> Floats:
        """Return the negative log-probability (n,) that this table gives to other answers."""

    @abstractmethod
    def align(self, ids: NDArray[np.int64]) -> Self:
        """Return the rows of these ids, without a label where there is none."""

    @abstractmethod
    def overlay(self, rows: NDArray[np.bool_], other: Self) -> Self:
        """Return the table with the other's labels in some rows (n,)."""

    @abstractmethod
    def without(self, rows: NDArray[np.bool_]) -> Self:
        """Return the table with no label in some rows (n,)."""

    @abstractmethod
    def append(self, other: Self) -> Self:
        """Return both tables' rows, this one's first."""

    @abstractmethod
    def joined_to(
        self, matrix: LabelsMatrix, name: str, kind: AnnotatorKind, version: str
    ) -> LabelsMatrix:
        """Return a matrix of the same rows with the labels as one more annotator's."""

    def differs(self, other: LabelTable) -> NDArray[np.bool_]:
        """Return in which rows (n,) both have an answer and not the same one."""
        has_both = self.has_label & other.has_label
        is_other = [ours != theirs for ours, theirs in zip(self.parts, other.parts, strict=True)]
        return np.asarray(has_both & np.array(is_other, dtype=np.bool_))


@dataclass(frozen=True, slots=True, eq=False)
class Posteriors(LabelTable):
    """Posteriors (n, K), NaN rows without one; several labels may hold unless `is_exclusive`."""

    key: ClassVar[str] = "probabilities"

    ids: NDArray[np.int64]
    probabilities: Floats
    is_exclusive: bool = True

    @property
    def content(self) -> NDArray[Any]:
        """Return the posteriors."""
        return self.probabilities

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """Return which rows are no abstentions."""
        return has_label(self.probabilities)

    @property
    def confidences(self) -> Floats:
        """Return the likeliest label's probability, or that of the least certain decision."""
        filled = np.nan_to_num(self.probabilities, nan=0.0)
        if self.is_exclusive:
            return np.asarray(filled.max(axis=1, initial=0.0))
        least = np.maximum(filled, 1 - filled).min(axis=1, initial=1.0)
        return np.asarray(np.where(self.has_label, least, 0.0))

    @property
    def holds(self) -> NDArray[np.bool_]:
        """Return which labels hold (n, K)."""
        filled = np.nan_to_num(self.probabilities, nan=0.0)
        if not self.is_exclusive:
            return np.asarray(filled >= _HOLDS)
        likeliest = np.eye(filled.shape[1], dtype=np.bool_)[filled.argmax(axis=1)]
        return np.asarray(likeliest & self.has_label[:, None])

    @property
    def parts(self) -> list[Parts]:
        """Return the positions of the labels that hold."""
        return [frozenset(np.flatnonzero(row).tolist()) for row in self.holds]

    def certainty(self, row: int, part: Part) -> float:
        """Return a label's probability; without a posterior that of knowing nothing."""
        known = float(self.probabilities[row, cast(int, part)])
        n_labels = self.probabilities.shape[1]
        return known if np.isfinite(known) else 1 / n_labels if self.is_exclusive else 0.5

    def losses(self, answers: Self) -> Floats:
        """Return the loss on each answer: cross-entropy, the mean over several labels."""
        given, holds = np.nan_to_num(self.probabilities, nan=0.0), answers.holds
        if self.is_exclusive:
            of_answer = np.where(holds, given, 0.0).max(axis=1, initial=0.0)
            return np.asarray(-np.log(np.clip(of_answer, _MIN_PROBABILITY, 1.0)))
        of_cells = np.where(holds, given, 1 - given)
        return np.asarray(-np.log(np.clip(of_cells, _MIN_PROBABILITY, 1.0)).mean(axis=1))

    def align(self, ids: NDArray[np.int64]) -> Self:
        """Return the rows of these ids."""
        return replace(self, ids=ids, probabilities=align_rows(self.ids, self.probabilities, ids))

    def overlay(self, rows: NDArray[np.bool_], other: Self) -> Self:
        """Return the table with the other's posteriors in some rows."""
        merged = np.where(rows[:, None], other.probabilities, self.probabilities)
        return replace(self, probabilities=merged)

    def without(self, rows: NDArray[np.bool_]) -> Self:
        """Return the table with no posterior in some rows."""
        return replace(self, probabilities=np.where(rows[:, None], np.nan, self.probabilities))

    def append(self, other: Self) -> Self:
        """Return both tables' rows."""
        return replace(
            self,
            ids=np.concatenate([self.ids, other.ids]),
            probabilities=np.concatenate([self.probabilities, other.probabilities]),
        )

    def joined_to(
        self, matrix: LabelsMatrix, name: str, kind: AnnotatorKind, version: str
    ) -> LabelsMatrix:
        """Return the matrix with the posteriors as one more annotator's."""
        return matrix.with_annotator(name, self.probabilities, kind, version)


@dataclass(frozen=True, slots=True, eq=False)
class SpanTable(LabelTable):
    """Spans of each row, None where there is no answer.

    `certainties` (n,): the probability that a row's spans are right as a whole; without it the
    least certain span's.
    """

    key: ClassVar[str] = "spans"

    ids: NDArray[np.int64]
    spans: SpanRows
    certainties: Floats | None = None

    @property
    def content(self) -> NDArray[Any]:
        """Return the spans and certainties as JSON, in bytes."""
        rows = [
            None if spans is None else [[s.start, s.end, s.label, s.probability] for s in spans]
            for spans in self.spans
        ]
        certainties = None if self.certainties is None else self.certainties.tolist()
        return np.frombuffer(json.dumps([rows, certainties]).encode(), dtype=np.uint8)

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """Return which rows have an answer, "there is none" being one."""
        return np.array([spans is not None for spans in self.spans], dtype=np.bool_)

    @property
    def confidences(self) -> Floats:
        """Return the probability that each row's spans are right."""
        least = [min((s.probability for s in spans or ()), default=1.0) for spans in self.spans]
        known = np.array(least, dtype=np.float64) if self.certainties is None else self.certainties
        return np.asarray(np.where(self.has_label, known, 0.0))

    @property
    def parts(self) -> list[Parts]:
        """Return the places and labels of each row's spans."""
        return [span_parts(spans or ()) for spans in self.spans]

    def certainty(self, row: int, part: Part) -> float:
        """Return a span's probability; one that is not there is as likely as not, or less."""
        spans = self.spans[row]
        if spans is None:
            return 0.5
        known: dict[Part, float] = {(s.start, s.end, s.label): s.probability for s in spans}
        return known.get(part, _ABSENT)

    def losses(self, answers: Self) -> Floats:
        """Return the loss on each answer: of its spans, and of those that it does not have."""
        losses = np.zeros(len(self.ids))
        for row, (own, wanted) in enumerate(zip(self.spans, answers.parts, strict=True)):
            known: dict[Part, float] = {(s.start, s.end, s.label): s.probability for s in own or ()}
            certainties = [known.get(part, 0.0) for part in wanted]
            certainties += [1 - p for part, p in known.items() if part not in wanted]
            losses[row] = -np.log(np.clip(certainties, _MIN_PROBABILITY, 1.0)).sum()
        return losses

    def align(self, ids: NDArray[np.int64]) -> Self:
        """Return the rows of these ids."""
        rows, is_there = rows_by_id(self.ids, ids)
        pairs = zip(rows.tolist(), is_there.tolist(), strict=True)
        spans = tuple(self.spans[row] if is_known else None for row, is_known in pairs)
        certainties = self.certainties
        if certainties is not None:
            certainties = align_rows(self.ids, certainties[:, None], ids)[:, 0]
            certainties = np.nan_to_num(certainties, nan=0.0)
        return replace(self, ids=ids, spans=spans, certainties=certainties)

    def overlay(self, rows: NDArray[np.bool_], other: Self) -> Self:
        """Return the table with the other's spans in some rows."""
        pairs = zip(rows.tolist(), self.spans, other.spans, strict=True)
        spans = tuple(theirs if is_theirs else ours for is_theirs, ours, theirs in pairs)
        certainties = np.where(rows, other.confidences, self.confidences)
        return replace(self, spans=spans, certainties=certainties)

    def without(self, rows: NDArray[np.bool_]) -> Self:
        """Return the table with no answer in some rows."""
        pairs = zip(rows.tolist(), self.spans, strict=True)
        return replace(self, spans=tuple(None if is_none else own for is_none, own in pairs))

    def append(self, other: Self) -> Self:
        """Return both tables' rows."""
        return replace(
            self,
            ids=np.concatenate([self.ids, other.ids]),
            spans=(*self.spans, *other.spans),
            certainties=np.concatenate([self.confidences, other.confidences]),
        )

    def joined_to(
        self, matrix: LabelsMatrix, name: str, kind: AnnotatorKind, version: str
    ) -> LabelsMatrix:
        """Return the matrix with the spans as one more annotator's."""
        return matrix.with_spans(name, self.spans, kind, version)


def read_table(question: Question, ids: NDArray[np.int64], content: NDArray[Any]) -> LabelTable:
    """Return the table whose `content` was stored."""
    if not question.kind.has_spans:
        return Posteriors(ids, content, question.kind.is_exclusive)
    rows, certainties = json.loads(content.tobytes())
    spans = tuple(None if row is None else tuple(Span(*each) for each in row) for row in rows)
    known = None if certainties is None else np.array(certainties, dtype=np.float64)
    return SpanTable(ids, spans, known)


def stored_table(question: Question, arrays: Mapping[str, NDArray[Any]]) -> LabelTable:
    """Return the table whose `arrays` are in a file."""
    kind = SpanTable if question.kind.has_spans else Posteriors
    return read_table(question, arrays["ids"], arrays[kind.key])


def given_table(question: Question, labels: Sequence[WeakLabel]) -> LabelTable:
    """Return the labels of one annotator as a table, abstentions left out."""
    given = [label for label in labels if _fits(question, label)]
    ids = np.array([label.example_id for label in given], dtype=np.int64)
    if question.kind.has_spans:
        return SpanTable(ids, tuple(label.spans for label in given))
    posteriors = np.array([label.probabilities for label in given], dtype=np.float64)
    shape = (len(given), len(question.labels))
    return Posteriors(ids, posteriors.reshape(shape), question.kind.is_exclusive)


def aggregated_table(
    question: Question, ids: NDArray[np.int64], matrix: AggregatedMatrix
) -> LabelTable:
    """Return aggregated labels as a table."""
    if question.kind.has_spans:
        spans = matrix.spans or (None,) * len(ids)
        return SpanTable(ids, spans, matrix.confidences)
    return Posteriors(ids, matrix.probabilities, question.kind.is_exclusive)


def with_table(matrix: AggregatedMatrix, table: LabelTable) -> AggregatedMatrix:
    """Return aggregated labels with those of a table in their place."""
    if isinstance(table, SpanTable):
        return replace(matrix, spans=table.spans, confidences=table.confidences)
    return replace(matrix, probabilities=table.content)


def combined_table(question: Question, matrix: LabelsMatrix, *kinds: AnnotatorKind) -> LabelTable:
    """Return the labels of annotators of these kinds, a later kind replacing an earlier one."""
    if question.kind.has_spans:
        return SpanTable(matrix.example_ids, matrix.combined_spans(*kinds))
    posteriors = matrix.combined(*kinds)
    return Posteriors(matrix.example_ids, posteriors, question.kind.is_exclusive)


def answer_of(question: Question, parts: Parts) -> Answer:
    """Return an answer in the words of the question's label space."""
    if question.kind.has_spans:
        spans = [Span(*part) for part in parts if isinstance(part, tuple)]
        return Answer(spans=tuple(sorted(spans, key=lambda span: (span.start, span.end))))
    positions = sorted(part for part in parts if isinstance(part, int))
    return Answer(labels=tuple(question.labels[at].value for at in positions))


def representative_classes(question: Question, table: LabelTable) -> tuple[NDArray[np.intp], int]:
    """Return one class (n,) by which to spread each text, and the number of classes.

    That is its label; of several labels the rarest one in the table, and a class of its own for
    texts without any where "there is none" is an answer.
    """
    position = {label.value: at for at, label in enumerate(question.labels)}
    found = [
        {part if isinstance(part, int) else position[part[2]] for part in parts}
        for parts in table.parts
    ]
    n_classes = len(question.labels) + int(question.kind.can_be_empty)
    counts = np.bincount([at for row in found for at in row], minlength=n_classes)
    rarest = [min(row, key=lambda at: (counts[at], at), default=n_classes - 1) for row in found]
    return np.array(rarest, dtype=np.intp), n_classes


def as_spans(table: LabelTable) -> SpanRows:
    """Return the spans of a table of spans; raises TypeError."""
    if not isinstance(table, SpanTable):
        raise TypeError(f"found {type(table).__name__}; expected spans")
    return table.spans


def span_parts(spans: Sequence[Span]) -> Parts:
    """Return the places and labels of spans."""
    return frozenset((span.start, span.end, span.label) for span in spans)


def _fits(question: Question, label: WeakLabel) -> bool:
    if label.question != question.name or label.abstention is not None:
        return False
    if question.kind.has_spans:
        return label.spans is not None
    return len(label.probabilities) == len(question.labels)
