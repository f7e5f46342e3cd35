"""Find probable errors in the labels of a question, people's included, and say who objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import Question
from backend.label_model.label_tables import LabelTable, Part, Parts

_PERSON_ACCURACY = 0.9  # before the annotators are asked about a person's label
_MIN_ERROR = 0.3
_MAX_ISSUES = 2000


class IssueKind(StrEnum):
    """What is probably wrong with a label."""

    WRONG = "wrong"
    MISSING = "missing"
    WRONG_TYPE = "wrong type"
    WRONG_BORDER = "wrong border"


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A probable error in one label of one text.

    `given` and `suggested` are parts of the answer in words, as in `part_in_words`, None where
    there is nothing; of single labels the likeliest other one is suggested. `error_probability` is
    in [0, 1]. `says` holds by annotator what it says instead or as well, with its probability.
    """

    example_id: int
    question: str
    kind: IssueKind
    given: str | None
    suggested: str | None
    is_human: bool
    error_probability: float
    says: Mapping[str, tuple[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "example_id"}
        says = {name: list(said) for name, said in self.says.items()}
        return {"task_id": self.example_id, **values, "kind": str(self.kind), "says": says}


@dataclass(frozen=True, slots=True, eq=False)
class GivenLabels:
    """A question's labels in use, and which of them are people's (n,)."""

    question: Question
    labels: LabelTable
    is_human: NDArray[np.bool_]


def find_label_issues(
    given: GivenLabels, expected: LabelTable, annotators: Mapping[str, LabelTable]
) -> list[LabelIssue]:
    """Return probable errors, the likeliest first; at most 2,000.

    A label is judged by the annotators' aggregated labels, made without any person's answer to this
    text. A person is believed to be right in nine of ten cases beforehand, so that it takes clear
    annotators to question an answer. Listed is what is wrong with a probability of 0.3 or more.

    Args:
        given: the labels in use.
        expected: aggregated labels with probabilities, in the same rows, made without the text's
            human label.
        annotators: the labels of each annotator, in the same rows.
    """
    rows = np.flatnonzero(given.labels.has_label & expected.has_label)
    all_given, all_expected = given.labels.parts, expected.parts
    issues: list[LabelIssue] = []
    for row in rows.tolist():
        pair = all_given[row], all_expected[row]
        if given.question.kind.has_spans:
            found = _span_errors(row, pair, expected)
        elif given.question.kind.is_exclusive:
            found = _exclusive_errors(row, len(given.question.labels), pair, expected)
        else:
            found = _cell_errors(row, len(given.question.labels), pair[0], expected)
        for kind, part, other, p_error in found:
            error = _weighed(p_error) if given.is_human[row] else p_error
            if error >= _MIN_ERROR:
                issues.append(_issue(given, row, (kind, part, other, error), annotators))
    issues.sort(key=lambda issue: (-issue.error_probability, issue.example_id))
    return issues[:_MAX_ISSUES]


_Error = tuple[IssueKind, Part | None, Part | None, float]
"""Its kind, the part that is given, the one that should be, and the probability of the error."""


def _exclusive_errors(
    row: int, n_labels: int, pair: tuple[Parts, Parts], expected: LabelTable
) -> Iterator[_Error]:
    """Yield the error of one label that may be one; proposed is the likeliest of the others."""
    (label,), (likeliest,) = pair
    error = 1 - expected.certainty(row, label)
    if error < _MIN_ERROR:
        return
    if likeliest != label:
        yield IssueKind.WRONG, label, likeliest, error
        return
    others = [other for other in range(n_labels) if other != label]
    proposed = max(others, key=lambda other: expected.certainty(row, other), default=None)
    yield IssueKind.WRONG, label, proposed, error


def _cell_errors(row: int, n_labels: int, given: Parts, expected: LabelTable) -> Iterator[_Error]:
    for label in range(n_labels):
        holds = expected.certainty(row, label)
        if label in given:
            yield IssueKind.WRONG, label, None, 1 - holds
        else:
            yield IssueKind.MISSING, None, label, holds


def _span_errors(row: int, pair: tuple[Parts, Parts], expected: LabelTable) -> Iterator[_Error]:
    given, other = _spans(pair[0]), _spans(pair[1])
    for span in given:
        rivals = [each for each in other if _overlap(span, each)]
        if span in other or not rivals:
            yield IssueKind.WRONG, span, None, 1 - expected.certainty(row, span)
            continue
        rival = max(rivals, key=lambda each: (expected.certainty(row, each), each))
        kind = IssueKind.WRONG_BORDER if rival[2] == span[2] else IssueKind.WRONG_TYPE
        yield kind, span, rival, expected.certainty(row, rival)
    for span in other:
        if not any(_overlap(span, each) for each in given):
            yield IssueKind.MISSING, None, span, expected.certainty(row, span)


def _spans(parts: Parts) -> list[tuple[int, int, str]]:
    return sorted(part for part in parts if isinstance(part, tuple))


def _overlap(one: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _weighed(p_error: float) -> float:
    """Return the probability of an error in a person's label by Bayes' rule."""
    wrong, right = p_error * (1 - _PERSON_ACCURACY), (1 - p_error) * _PERSON_ACCURACY
    return wrong / (wrong + right) if wrong + right > 0 else 0.0


def _issue(
    given: GivenLabels, row: int, error: _Error, annotators: Mapping[str, LabelTable]
) -> LabelIssue:
    kind, part, other, probability = error
    question = given.question
    about = [each for each in (part, other) if each is not None]
    says = {
        name: (part_in_words(question, said), round(table.certainty(row, said), 4))
        for name, table in annotators.items()
        if table.has_label[row] and (said := _said(question, table.parts[row], about)) is not None
    }
    return LabelIssue(
        int(given.labels.ids[row]),
        question.name,
        kind,
        None if part is None else part_in_words(question, part),
        None if other is None else part_in_words(question, other),
        bool(given.is_human[row]),
        round(probability, 4),
        says,
    )


def _said(question: Question, parts: Parts, about: Sequence[Part]) -> Part | None:
    """Return the part of an annotator's answer that bears on an issue, None without one."""
    if question.kind.is_exclusive:
        return next(iter(parts), None)
    if not question.kind.has_spans:
        return next((part for part in about if part in parts), None)
    named = [part for part in about if isinstance(part, tuple)]
    near = [s for s in _spans(parts) if any(_overlap(s, each) for each in named)]
    return near[0] if near else None


def part_in_words(question: Question, part: Part) -> str:
    """Return a label's value; of a span also its characters: "PER 3-8"."""
    if isinstance(part, tuple):
        return f"{part[2]} {part[0]}-{part[1]}"
    return question.labels[part].value
