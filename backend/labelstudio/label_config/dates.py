"""`DateTime`: a date, a time, or both."""

from __future__ import annotations

from datetime import datetime

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
)

_DATE, _TIME = "%Y-%m-%d", "%H:%M"
_BOTH = "%Y-%m-%dT%H:%M"


class DateTime(ControlTag):
    """`<DateTime>`. Results hold text in the tag's `format`, by default that of ISO 8601."""

    name = "DateTime"
    kinds = (QuestionKind.DATE_TIME,)

    def question(self, element: ControlElement) -> Question:
        """Return the question with the format in which the editor stores what `only` leaves."""
        only = {part.strip() for part in (element.attribute("only") or "").split(",")} - {""}
        stored = element.attribute("format")
        if only == {"time"}:
            stored = _TIME  # the editor does not format a time alone
        elif not stored:
            stored = _DATE if only and "time" not in only else _BOTH
        if only and only.isdisjoint({"date", "time"}):
            raise UnsupportedTag(f'only="{element.attribute("only")}": a part of a date')
        try:
            datetime.strptime(datetime(2001, 2, 3, 4, 5).strftime(stored), stored)
        except ValueError as exc:
            raise UnsupportedTag(f'format="{stored}": {exc}') from exc
        return Question(element.parsed.name, (), QuestionKind.DATE_TIME, date_format=stored)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        """Write a date that fits the format; None for any other text."""
        text = (weak_label.text or "").strip()
        try:
            datetime.strptime(text, question.date_format)
        except ValueError:
            return None
        confidence = weak_label.confidence
        confidence = UNKNOWN_CONFIDENCE if confidence is None else confidence
        return RegionSet((({"datetime": text}, confidence),), confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        value = values[0].get("datetime") if len(values) == 1 else None
        return Answer(text=str(value)) if isinstance(value, str | int) and value else None


TAGS = (DateTime(),)
