"""`Labels`, `HyperTextLabels` and `ParagraphLabels`: pieces of a text, exact to the character.

Label Studio counts a Text's characters from its beginning, those of a HyperText over all text
nodes (`globalOffsets`; it derives its XPaths from them), and those of Paragraphs within a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.domain.labels import Answer, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextFormat
from backend.errors import InvalidRequest
from backend.labelstudio.label_config.dialogue import Dialogue, Place
from backend.labelstudio.label_config.html import VisibleText
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    Control,
    RegionSet,
    RegionValue,
    RegionValues,
    TagSpec,
    TaskData,
)
from backend.labelstudio.label_config.texts import read_layout, why_no_spans

_NO_PATH = ""
"""Stands for an XPath: Label Studio then goes by the global offsets and finds the path itself."""


class _Spans:
    """What the three tags share; they differ in what they are over and in their result's key."""

    tag: str
    over: tuple[str, ...]
    n_objects = 1

    def ask(self, control: Control) -> TagSpec | str:
        why = why_no_spans(control.tag.objects[0])
        if why is not None:
            return why
        labels = tuple(
            LabelDefinition(value, str(label.get_attr("value", value)), label.get_attr("hint"))
            for value, label in control.tag.labels_attrs.items()
        )
        return TagSpec(QuestionKind.SPANS, labels) if labels else "no labels"

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if weak_label.spans is None:
            return None
        layout = _layout(question, data)
        if not _is_exact(question, layout):
            return None
        known = {label.value for label in question.labels}
        written = []
        for span in weak_label.spans:
            place = _write_place(span, layout) if span.label in known else None
            if place is not None:
                value = {**place, self.tag.lower(): [span.label]}
                written.append(RegionValue(value, span.probability))
        confidence = weak_label.confidence
        if confidence is None:
            confidence = min((one.confidence for one in written), default=UNKNOWN_CONFIDENCE)
        return RegionSet(tuple(written), confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        layout = _layout(question, data)
        if not _is_exact(question, layout):
            return None
        order = {label.value: index for index, label in enumerate(question.labels)}
        spans: set[Span] = set()
        for value in values:
            place = _read_place(value, layout)
            labels = value.get(self.tag.lower())
            if place is not None and isinstance(labels, list):
                known = [label for label in labels if isinstance(label, str) and label in order]
                spans.update(Span(*place, label) for label in known)
        if not spans:
            return None
        ordered = sorted(spans, key=lambda span: (span.start, span.end, order[span.label]))
        return Answer(spans=tuple(ordered))


class Labels(_Spans):
    """`<Labels>` over a Text or a HyperText."""

    tag = "Labels"
    over: tuple[str, ...] = ("Text", "HyperText")


class HyperTextLabels(_Spans):
    """`<HyperTextLabels>` over a HyperText."""

    tag = "HyperTextLabels"
    over: tuple[str, ...] = ("HyperText",)


class ParagraphLabels(_Spans):
    """`<ParagraphLabels>` over Paragraphs."""

    tag = "ParagraphLabels"
    over: tuple[str, ...] = ("Paragraphs",)


_Layout = str | VisibleText | Dialogue | None


def _layout(question: Question, data: TaskData) -> _Layout:
    if data is not None:
        return read_layout(question.field, data)
    if question.field.format is not TextFormat.PLAIN:
        raise InvalidRequest(
            f"the task's data are needed for {question.name!r}: places in a "
            f"{question.field.format} text depend on it; give the task"
        )
    return None


def _is_exact(question: Question, layout: _Layout) -> bool:
    """Return whether places can be told; those of a plain text can be without looking at it."""
    if question.field.format is TextFormat.PLAIN:
        return True
    return layout is not None and (not isinstance(layout, VisibleText) or layout.is_exact)


def _write_place(span: Span, layout: _Layout) -> dict[str, Any] | None:
    if not 0 <= span.start < span.end:
        return None
    if isinstance(layout, VisibleText):
        found = layout.to_global(span.start, span.end)
        if found is None:
            return None
        return {
            "start": _NO_PATH,
            "end": _NO_PATH,
            "startOffset": found[0],
            "endOffset": found[1],
            "globalOffsets": {"start": found[0], "end": found[1]},
            "text": layout.text[span.start : span.end],
        }
    if isinstance(layout, Dialogue):
        place = layout.to_place(span.start, span.end)
        if place is None:
            return None
        return {
            "start": str(place.start),
            "end": str(place.end),
            "startOffset": place.start_offset,
            "endOffset": place.end_offset,
            "text": place.text,
        }
    value: dict[str, Any] = {"start": span.start, "end": span.end}
    if layout is not None:
        if span.end > len(layout):
            return None
        value["text"] = layout[span.start : span.end]
    return value


def _read_place(value: Mapping[str, Any], layout: _Layout) -> tuple[int, int] | None:
    if isinstance(layout, VisibleText):
        offsets = value.get("globalOffsets")
        numbers = _integers(offsets, "start", "end") if isinstance(offsets, Mapping) else None
        return layout.from_global(*numbers) if numbers else None
    if isinstance(layout, Dialogue):
        numbers = _integers(value, "start", "startOffset", "end", "endOffset")
        if numbers is None:
            return None
        start, start_offset, end, end_offset = numbers
        return layout.from_place(Place(start, start_offset, end, end_offset))
    numbers = _integers(value, "start", "end")
    if numbers is None or not 0 <= numbers[0] < numbers[1]:
        return None
    if layout is not None and numbers[1] > len(layout):
        return None
    return numbers[0], numbers[1]


def _integers(value: Mapping[str, Any], *keys: str) -> list[int] | None:
    """Return whole numbers, which can come as texts; None when one is missing."""
    try:
        return [int(value[key]) for key in keys]
    except (KeyError, TypeError, ValueError):
        return None
