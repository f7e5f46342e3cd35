"""`Relations` between the spans that another control marks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.labels import Answer, Region, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.regions import RegionIds
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
)
from backend.labelstudio.label_config.texts import read_span_text

_NAME = "relations"
_TYPE = "relation"
_UNRELATED = LabelDefinition("", "none", "the two are not related in this way")


class Relations(ControlTag):
    """`<Relations>`: labels of arrows from one span to another."""

    name = "Relations"
    kinds = (QuestionKind.RELATION,)
    needs_no_target = True

    def question(self, element: ControlElement) -> Question:
        raise UnsupportedTag

    def question_about(self, element: ControlElement, questions: Sequence[Question]) -> Question:
        """Return the question which spans of the config's first span question are related."""
        marking = next((q for q in questions if q.kind is QuestionKind.SPANS), None)
        if marking is None:
            raise UnsupportedTag("no regions are marked in a text")
        values = dict.fromkeys(
            (relation.get("value") or "").strip() for relation in element.element.iter("Relation")
        )
        labels = tuple(LabelDefinition(value, value) for value in values if value)
        if not labels:
            raise UnsupportedTag("no relations")
        name = element.attribute("name") or _NAME
        return Question(
            name,
            marking.fields,
            QuestionKind.RELATION,
            labels,
            tag=self.name.lower(),
            inner=Question(name, (), QuestionKind.SINGLE_CHOICE, (*labels, _UNRELATED)),
            region_of=marking.name,
        )

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        """Write nothing by itself: the regions' ids are needed, see `write_relations`."""
        return None

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Read nothing by itself: a relation names no control, see `read_relations`."""
        return None


TAGS = (Relations(),)


def write_relations(
    question: Question, weak_label: WeakLabel, ids: RegionIds
) -> tuple[list[tuple[Region, float]], float] | None:
    """Return the relations between regions that are in a prediction, and the confidence in all."""
    links = _links(weak_label.text)
    if links is None:
        return None
    known = {label.value for label in question.labels}
    confidence = weak_label.confidence
    confidence = UNKNOWN_CONFIDENCE if confidence is None else confidence
    written: list[tuple[Region, float]] = []
    for start, end, to_start, to_end, label in links:
        sources = ids.of_place.get((question.region_of, start, end), ())
        targets = ids.of_place.get((question.region_of, to_start, to_end), ())
        if label in known and sources and targets:
            ends = {"from_id": sources[0].id, "to_id": targets[0].id}
            relation = {"type": _TYPE, "direction": "right", "labels": [label], **ends}
            written.append((relation, confidence))
    return written, confidence


def read_relations(question: Question, result: Sequence[Region], data: TaskData) -> Answer | None:
    """Return the relations of a person's result, as places and labels; None for none."""
    text = read_span_text(question.field, data or {})
    places: dict[str, tuple[int, int]] = {}
    for region in result:
        value = region.get("value")
        if text is not None and isinstance(value, Mapping):
            place = text.read_span(value)
            if region.get("from_name") == question.region_of and place is not None:
                places[str(region.get("id"))] = place
    known = {label.value for label in question.labels}
    links = []
    for one in result:
        ends = [places.get(str(one.get(name))) for name in ("from_id", "to_id")]
        if one.get("type") == _TYPE and None not in ends:
            labels = [label for label in one.get("labels") or () if label in known]
            links += [(*(ends[0] or ()), *(ends[1] or ()), label) for label in labels]
    links.sort()
    return Answer(text=json.dumps(links, ensure_ascii=False)) if links else None


def _links(text: str | None) -> list[tuple[int, int, int, int, str]] | None:
    """Return relations that are written as JSON; None where there is no such list."""
    try:
        links: Any = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(links, list):
        return None
    return [tuple(link) for link in links if isinstance(link, list) and len(link) == 5]
