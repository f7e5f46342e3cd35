"""`Rating`, `Number`, `Pairwise` and `TextArea`: one value for a whole text."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from backend.domain.decisions import decide
from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
    check_fixed,
)

_MAX_NUMBER_LABELS = 21
_MAX_RATING = 100


class _ValueTag(ControlTag):
    """A tag whose region holds one label's value, or one number, under `key`."""

    key: str

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        decision = decide(question, weak_label)
        if decision is None:
            return None
        (label,), confidence = decision
        value = _json(Decimal(label.value)) if question.kind.is_ordinal else label.value
        return _one_region({self.key: value}, confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        if len(values) != 1:
            return None
        value = values[0].get(self.key)
        if question.kind.is_ordinal:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            number = _decimal(value) if is_number else None
            value = None if number is None else str(_json(number))
        if not isinstance(value, str):
            return None
        if not question.labels:
            return Answer(text=value)
        return Answer((value,)) if any(label.value == value for label in question.labels) else None


class Rating(_ValueTag):
    """`<Rating>`: stars from 1 to maxRating."""

    name = "Rating"
    key = "rating"
    kinds = (QuestionKind.RATING,)

    def question(self, element: ControlElement) -> Question:
        raw = element.attribute("maxRating") or "5"
        n_stars = int(raw) if raw.isdecimal() and len(raw) <= len(str(_MAX_RATING)) else 0
        if not 2 <= n_stars <= _MAX_RATING:
            raise UnsupportedTag(f'maxRating="{raw:.20}": expected 2 to {_MAX_RATING}')
        labels, bounds = _number_labels(Decimal(1), Decimal(1), n_stars), (1.0, float(n_stars))
        return Question(element.parsed.name, (), QuestionKind.RATING, labels, bounds)


class Number(_ValueTag):
    """`<Number>`: labels where min, max and step leave few values, a text otherwise."""

    name = "Number"
    key = "number"
    kinds = (QuestionKind.NUMBER,)

    def question(self, element: ControlElement) -> Question:
        low, high, step = (_attribute(element, name) for name in ("min", "max", "step"))
        if step is not None and step <= 0:
            raise UnsupportedTag(f'step="{step}": expected more than 0')
        least = -math.inf if low is None else float(low)
        bounds = (least, math.inf if high is None else float(high))
        spacing = None if step is None else float(step)
        wide = Question(element.parsed.name, (), QuestionKind.NUMBER, (), bounds, spacing)
        if low is None or high is None:
            return wide
        step = step or Decimal(1)
        n_values = int((high - low) / step) + 1 if high >= low else 0
        if n_values < 2:
            raise UnsupportedTag(f'min="{low}" max="{high}": fewer than two possible values')
        if n_values > _MAX_NUMBER_LABELS:
            return wide
        return replace(wide, labels=_number_labels(low, step, n_values), step=float(step))

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if question.labels:
            return super().write(question, weak_label, data)
        number = _decimal(weak_label.text)
        if number is None:
            return None
        if question.step is not None:  # Label Studio takes the possible values alone
            step, low = Decimal(str(question.step)), (question.bounds or (-math.inf,))[0]
            basis = Decimal(str(low)) if math.isfinite(low) else Decimal(0)
            number = basis + round((number - basis) / step) * step
        if question.bounds and not question.bounds[0] <= float(number) <= question.bounds[1]:
            return None
        return _one_region({"number": _json(number)}, _confidence(weak_label))


class Pairwise(_ValueTag):
    """`<Pairwise>` over two texts: the left one is the first in toName."""

    name = "Pairwise"
    key = "selected"
    kinds = (QuestionKind.PAIRWISE,)
    n_objects = 2

    def question(self, element: ControlElement) -> Question:
        left, right = element.parsed.to_name
        labels = (LabelDefinition("left", left.strip()), LabelDefinition("right", right.strip()))
        return Question(element.parsed.name, (), QuestionKind.PAIRWISE, labels)


class TextArea(ControlTag):
    """`<TextArea>`: free text."""

    name = "TextArea"
    kinds = (QuestionKind.FREE_TEXT,)

    def question(self, element: ControlElement) -> Question:
        check_fixed(element)
        return Question(element.parsed.name, (), QuestionKind.FREE_TEXT)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if weak_label.text is None:
            return None
        if not weak_label.text.strip():
            return RegionSet((), _confidence(weak_label))
        return _one_region({"text": [weak_label.text]}, _confidence(weak_label))

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        lines: list[str] = []
        for value in values:
            text = value.get("text")
            items = text if isinstance(text, list) else [text]
            lines += [item for item in items if isinstance(item, str) and item.strip()]
        return Answer(text="\n".join(lines)) if lines else None


TAGS = (Rating(), Number(), Pairwise(), TextArea())


def _one_region(value: dict[str, Any], confidence: float) -> RegionSet:
    return RegionSet(((value, confidence),), confidence)


def _confidence(weak_label: WeakLabel) -> float:
    return UNKNOWN_CONFIDENCE if weak_label.confidence is None else weak_label.confidence


def _number_labels(low: Decimal, step: Decimal, n_values: int) -> tuple[LabelDefinition, ...]:
    names = [str(_json(low + step * index)) for index in range(n_values)]
    return tuple(LabelDefinition(name, name) for name in names)


def _attribute(element: ControlElement, name: str) -> Decimal | None:
    """Return an attribute's number; None when it is not there."""
    raw = element.attribute(name)
    number = None if raw is None else _decimal(raw)
    if number is None and raw is not None:
        raise UnsupportedTag(f'{name}="{raw}": expected a number')
    return number


def _decimal(raw: object) -> Decimal | None:
    """Return a number that is written out; None when there is none."""
    try:
        number = Decimal(str(raw).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 300 else None


def _json(number: Decimal) -> int | float:
    """Return a number as JSON and people have it: 3 and not 3.0."""
    return int(number) if number == number.to_integral_value() else float(number)
