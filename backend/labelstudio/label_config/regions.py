"""Answers about each region: a span that another control marks, or a message of a chat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.domain.labels import Answer, Region, Span, WeakLabel
from backend.domain.questions import Question, TextField
from backend.labelstudio.label_config.offsets import DialogueText
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlTag,
    TaskData,
    control_tags,
)
from backend.labelstudio.label_config.texts import look_up, read_span_text

Place = tuple[str, int, int]
"""The question that marks a region ("" for a chat's messages), its first character and its end."""
_MESSAGE = "chatmessage"


@dataclass(frozen=True, slots=True)
class PlacedRegion:
    """A region of a result: its id, and its value without labels, which says where it is."""

    id: str
    where: Mapping[str, Any]


@dataclass
class RegionIds:
    """The regions that a result holds so far."""

    of_place: dict[Place, list[PlacedRegion]] = field(default_factory=dict)

    def add(self, place: Place, region: Region, label_key: str) -> None:
        """Add a region that is at this place."""
        where = {name: value for name, value in region["value"].items() if name != label_key}
        self.of_place.setdefault(place, []).append(PlacedRegion(str(region["id"]), where))


def write_region_answer(
    question: Question, weak_label: WeakLabel, data: TaskData, ids: RegionIds
) -> tuple[list[tuple[Region, float]], float] | None:
    """Return the results about the regions that are in a prediction, and the whole's confidence.

    What is said about a place at which no region is written is left out.
    """
    inner = question.inner
    if weak_label.spans is None or inner is None:
        return None
    tag = control_tags()[question.tag]
    written: list[tuple[Region, float]] = []
    for (start, end), spans in _by_place(weak_label.spans).items():
        place = (question.region_of, start, end)
        if not question.region_of and place not in ids.of_place:
            message = _message(question.field, weak_label.example_id, start, data)
            if message is not None:
                ids.add(place, message, "")
                written.append((message, 1.0))
        value = _value(tag, inner, spans, data)
        for region in ids.of_place.get(place, ()) if value else ():
            probability = min(span.probability for span in spans)
            where = region.where if question.region_of else {}
            result = {
                "id": region.id,
                "from_name": question.name,
                "to_name": question.field.name,
                "type": tag.name.lower(),
                "value": {**where, **(value or {})},
            }
            written.append((result, probability))
    confidence = weak_label.confidence
    return written, UNKNOWN_CONFIDENCE if confidence is None else confidence


def read_region_answer(
    question: Question, result: Sequence[Region], data: TaskData
) -> Answer | None:
    """Return what a person answered about regions, as spans that carry the answers' labels."""
    inner = question.inner
    text = None if inner is None else read_span_text(question.field, data or {})
    if inner is None or text is None:
        return None
    tag = control_tags()[question.tag]
    values = {str(region.get("id")): region.get("value") for region in _areas(question, result)}
    spans: set[Span] = set()
    for region in result:
        value = region.get("value")
        if region.get("from_name") != question.name or not isinstance(value, Mapping):
            continue
        area = values.get(str(region.get("id")), value)
        place = _read_place(text, area)
        answer = tag.read(inner, [value], data)
        if place is not None and answer is not None:
            labels = answer.labels or ((answer.text,) if answer.text else ())
            spans.update(Span(*place, label) for label in labels)
    return Answer(spans=tuple(sorted(spans, key=lambda s: (s.start, s.end, s.label))))


def _areas(question: Question, result: Sequence[Region]) -> Iterator[Region]:
    """Yield the regions of a result that an answer can be about."""
    for region in result:
        of_question = region.get("from_name") == question.region_of
        if of_question or (not question.region_of and region.get("type") == _MESSAGE):
            yield region


def _read_place(text: Any, value: Any) -> tuple[int, int] | None:
    if not isinstance(value, Mapping):
        return None
    message = value.get(_MESSAGE)
    if isinstance(message, Mapping) and isinstance(text, DialogueText):
        said = " ".join(str(message.get("content") or "").split())
        found = [turn for turn in text.turns if " ".join(turn.text.split()) == said]
        return (found[0].start, found[0].end) if found else None
    place: tuple[int, int] | None = text.read_span(value)
    return place


def _by_place(spans: Sequence[Span]) -> dict[tuple[int, int], list[Span]]:
    found: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        found.setdefault((span.start, span.end), []).append(span)
    return found


def _value(
    tag: ControlTag, inner: Question, spans: Sequence[Span], data: TaskData
) -> Mapping[str, Any] | None:
    """Return a region's value for the labels that are said about it."""
    labels = {span.label for span in spans}
    given: dict[str, Any] = {"text": spans[0].label}
    if inner.labels:
        given = {"probabilities": tuple(float(one.value in labels) for one in inner.labels)}
    answer = tag.write(inner, WeakLabel(0, inner.name, "", **given), data)
    return answer.regions[0][0] if answer and answer.regions else None


def _message(text_field: TextField, example_id: int, start: int, data: TaskData) -> Region | None:
    """Return the message of a chat that begins at this character, as a region."""
    text = read_span_text(text_field, data or {})
    turns = look_up(data or {}, text_field.key)
    if not isinstance(text, DialogueText):
        return None
    index = next((at for at, turn in enumerate(text.turns) if turn.start == start), None)
    if index is None:
        return None
    name = f"{example_id}:{text_field.name}:{index}"
    message = {key: str(turns[index].get(key) or "") for key in text_field.turn_keys}
    return {
        "id": hashlib.sha256(name.encode()).hexdigest()[:10],
        "from_name": text_field.name,
        "to_name": text_field.name,
        "type": _MESSAGE,
        "value": {_MESSAGE: message},
    }
