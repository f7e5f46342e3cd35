"""`Rating`, `Number`, `Pairwise` and `TextArea`: one value for a whole text."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    ANY_TEXT,
    UNKNOWN_CONFIDENCE,
    Control,
    RegionSet,
    RegionValue,
    RegionValues,
    TagSpec,
    TaskData,
    winner,
)

MAX_NUMBER_LABELS = 21
_MAX_RATING = 100


class Rating:
    """`<Rating>`: stars from 1 to maxRating."""

    tag = "Rating"
    over = ANY_TEXT
    n_objects = 1

    def ask(self, control: Control) -> TagSpec | str:
        raw = control.attribute("maxRating") or "5"
        most = int(raw) if raw.isdecimal() else 0
        if not 2 <= most <= _MAX_RATING:
            return f'maxRating="{raw}": expected 2 to {_MAX_RATING}'
        return TagSpec(
            QuestionKind.RATING, tuple(_numbers(Decimal(1), Decimal(1), most)), (1.0, float(most))
        )

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        best = winner(question, weak_label)
        return None if best is None else _one({"rating": int(best[0].value)}, best[1])

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        return _read_number(question, values, "rating")


class Number:
    """`<Number>`: labels where min, max and step leave few values, a text otherwise."""

    tag = "Number"
    over = ANY_TEXT
    n_objects = 1

    def ask(self, control: Control) -> TagSpec | str:
        low, high, step = (_decimal(control.attribute(name)) for name in ("min", "max", "step"))
        for name, number in (("min", low), ("max", high), ("step", step)):
            if number is None and control.attribute(name) is not None:
                return f'{name}="{control.attribute(name)}": expected a number'
        if step is not None and step <= 0:
            return f'step="{step}": expected more than 0'
        if low is not None and high is not None:
            n_values = int((high - low) / (step or Decimal(1))) + 1 if high >= low else 0
            if n_values < 2:
                return f'min="{low}" max="{high}": fewer than two possible values'
            bounds = (float(low), float(high))
            if n_values > MAX_NUMBER_LABELS:
                return TagSpec(QuestionKind.NUMBER, (), bounds, _float(step))
            labels = tuple(_numbers(low, step or Decimal(1), n_values))
            return TagSpec(QuestionKind.NUMBER, labels, bounds, float(step or 1))
        bounds = (
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )
        return TagSpec(QuestionKind.NUMBER, (), bounds, _float(step))

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        best = winner(question, weak_label)
        if best is not None:
            return _one({"number": _plain(Decimal(best[0].value))}, best[1])
        number = None if question.labels else _decimal(weak_label.text)
        if number is None:
            return None
        number = _on_step(number, question)
        if question.bounds and not question.bounds[0] <= float(number) <= question.bounds[1]:
            return None
        return _one({"number": _plain(number)}, _confidence(weak_label))

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        return _read_number(question, values, "number")


class Pairwise:
    """`<Pairwise>` over two texts: the left one is the first in toName."""

    tag = "Pairwise"
    over = ANY_TEXT
    n_objects = 2

    def ask(self, control: Control) -> TagSpec | str:
        left, right = control.tag.to_name
        labels = (LabelDefinition("left", left.strip()), LabelDefinition("right", right.strip()))
        return TagSpec(QuestionKind.PAIRWISE, labels)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        best = winner(question, weak_label)
        return None if best is None else _one({"selected": best[0].value}, best[1])

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        picked = [value.get("selected") for value in values]
        if len(picked) != 1 or picked[0] not in ("left", "right"):
            return None
        return Answer((str(picked[0]),))


class TextArea:
    """`<TextArea>`: free text."""

    tag = "TextArea"
    over = ANY_TEXT
    n_objects = 1

    def ask(self, control: Control) -> TagSpec | str:
        return TagSpec(QuestionKind.FREE_TEXT)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if weak_label.text is None:
            return None
        if not weak_label.text.strip():
            return RegionSet((), _confidence(weak_label))
        return _one({"text": [weak_label.text]}, _confidence(weak_label))

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        lines: list[str] = []
        for value in values:
            text = value.get("text")
            items = text if isinstance(text, list) else [text]
            lines += [item for item in items if isinstance(item, str) and item.strip()]
        return Answer(text="\n".join(lines)) if lines else None


def _one(value: dict[str, Any], confidence: float) -> RegionSet:
    return RegionSet((RegionValue(value, confidence),), confidence)


def _confidence(weak_label: WeakLabel) -> float:
    return UNKNOWN_CONFIDENCE if weak_label.confidence is None else weak_label.confidence


def _numbers(low: Decimal, step: Decimal, n_values: int) -> list[LabelDefinition]:
    names = [str(_plain(low + step * index)) for index in range(n_values)]
    return [LabelDefinition(name, name) for name in names]


def _decimal(raw: object) -> Decimal | None:
    """Return a number that is written out; None when there is none."""
    try:
        number = Decimal(str(raw).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 300 else None


def _float(number: Decimal | None) -> float | None:
    return None if number is None else float(number)


def _plain(number: Decimal) -> int | float:
    """Return a number as JSON and people have it: 3 and not 3.0."""
    return int(number) if number == number.to_integral_value() else float(number)


def _on_step(number: Decimal, question: Question) -> Decimal:
    """Return the possible value next to a number: Label Studio takes no other one."""
    if question.step is None:
        return number
    step = Decimal(str(question.step))
    low = question.bounds[0] if question.bounds else -math.inf
    basis = Decimal(str(low)) if math.isfinite(low) else Decimal(0)
    return basis + round((number - basis) / step) * step


def _read_number(question: Question, values: RegionValues, key: str) -> Answer | None:
    found = [value.get(key) for value in values]
    if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int | float):
        return None
    number = _decimal(found[0])
    if number is None:
        return None
    name = str(_plain(number))
    if not question.labels:
        return Answer(text=name)
    return Answer((name,)) if any(label.value == name for label in question.labels) else None
