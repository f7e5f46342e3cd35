"""Write weak labels as Label Studio results, and read people's results as answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.domain.decisions import is_shown, parents_first, selected_labels, split_values
from backend.domain.labels import Answer, Region, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import LabelDefinition, Question, TaskSchema
from backend.labelstudio.label_config.regions import (
    RegionIds,
    read_region_answer,
    write_region_answer,
)
from backend.labelstudio.label_config.relations import read_relations, write_relations
from backend.labelstudio.label_config.tags import TaskData, tag_of

_SCORE_DIGITS = 4
_CUT_NOTE = "The text or the answer was too long for the model; a part of it is missing."


def write_prediction(
    schema: TaskSchema,
    weak_labels: Sequence[WeakLabel],
    model_version: str,
    task: Task | None = None,
) -> Prediction | None:
    """Turn one example's weak labels into a prediction; None when there is no answer in them.

    Answers that the schema does not ask for (any more), or that Label Studio does not show beside
    the others, are left out. "There is none" is an answer without a region. The score is the
    confidence in the least sure answer. Without the task, spans lack their text, and those of a
    HyperText or of Paragraphs raise InvalidRequest.
    """
    if not weak_labels:
        return None
    by_question = {weak_label.question: weak_label for weak_label in weak_labels}
    data = None if task is None else task.data
    result = _Result(weak_labels[0].example_id, data)
    chosen: dict[str, list[LabelDefinition]] = {}
    for question in parents_first(schema.questions):
        weak_label = by_question.get(question.name)
        if weak_label is None or not is_shown(question, chosen):
            continue
        if result.write(question, weak_label):
            selected = selected_labels(question, weak_label)
            if selected is not None:
                chosen[question.name] = selected
    if not result.confidences:
        return None
    regions = sorted(result.regions, key=lambda region: "from_id" in region)  # relations last
    score = _score(min(result.confidences))
    return Prediction(weak_labels[0].example_id, model_version, tuple(regions), score)


@dataclass
class _Result:
    """The regions of one prediction, as they are written."""

    example_id: int
    data: TaskData
    regions: list[Region] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    ids: RegionIds = field(default_factory=RegionIds)

    def write(self, question: Question, weak_label: WeakLabel) -> bool:
        """Add the regions of an answer; return whether there is one."""
        if question.kind.is_per_region:
            answer = write_region_answer(question, weak_label, self.data, self.ids)
        elif question.kind.links_regions:
            answer = write_relations(question, weak_label, self.ids)
        else:
            answer = self._own_regions(question, weak_label)
        if answer is None:
            return False
        regions, confidence = answer
        note = {"meta": {"text": [_CUT_NOTE]}} if weak_label.is_truncated else {}
        self.confidences.append(confidence)
        self.regions += [{**region, "score": _score(own), **note} for region, own in regions]
        return True

    def _own_regions(
        self, question: Question, weak_label: WeakLabel
    ) -> tuple[list[tuple[Region, float]], float] | None:
        """Return the regions that a question has for itself; note where its spans are."""
        tag = tag_of(question)
        answer = tag.write(question, weak_label, self.data)
        if answer is None:
            return None
        common = {
            "from_name": question.name,
            "to_name": question.field.name,
            "type": tag.name.lower(),
        }
        regions: list[tuple[Region, float]] = []
        for index, (value, confidence) in enumerate(answer.regions):
            # an id that is the same for every version of a prediction
            name = f"{self.example_id}:{question.name}" + (f":{index}" if index else "")
            region_id = hashlib.sha256(name.encode()).hexdigest()[:10]
            region = {"id": region_id, **common, "value": value}
            regions.append((region, confidence))
            if answer.places:
                self.ids.add((question.name, *answer.places[index]), region, tag.name.lower())
        return regions, answer.confidence


def _score(confidence: float) -> float:
    return round(min(max(float(confidence), 0.0), 1.0), _SCORE_DIGITS)


def read_answers(
    schema: TaskSchema, result: Sequence[Region], data: Mapping[str, Any] | None = None
) -> dict[str, Answer]:
    """Return what a person answered in a submitted annotation, by question name.

    Regions of other tags, and labels that the config does not have (any more), are left out. No
    region at all answers a multiple choice or a span question with "there is none", where it is
    shown. Without the task's data, places in a HyperText or in Paragraphs raise InvalidRequest.
    """
    values: dict[str, list[Mapping[str, Any]]] = {}
    for region in result:
        value = region.get("value")
        if isinstance(value, Mapping):
            values.setdefault(str(region.get("from_name")), []).append(value)
    answers: dict[str, Answer] = {}
    chosen: dict[str, list[LabelDefinition]] = {}
    for question in parents_first(schema.questions):
        answer = _read_answer(question, result, values, data)
        if answer is None and question.kind.can_be_empty and is_shown(question, chosen):
            answer = Answer() if question.name not in values else None
        if answer is not None:
            answers[question.name] = answer
            labels = [one for one in question.labels if one.value in answer.labels]
            given = split_values(answer.text or "") if question.kind.is_from_task else ()
            chosen[question.name] = [*labels, *(LabelDefinition(one, one) for one in given)]
    return {q.name: answers[q.name] for q in schema.questions if q.name in answers}


def _read_answer(
    question: Question,
    result: Sequence[Region],
    values: Mapping[str, Sequence[Mapping[str, Any]]],
    data: Mapping[str, Any] | None,
) -> Answer | None:
    if question.kind.is_per_region:
        return read_region_answer(question, result, data) if question.name in values else None
    if question.kind.links_regions:
        return read_relations(question, result, data)
    given = values.get(question.name)
    return tag_of(question).read(question, given, data) if given else None


def as_validated(schema: TaskSchema, region: Region) -> Region:
    """Return a region as Label Studio's SDK validates it; most of them as they are.

    Its editor knows nested choices by their paths and fills in a task's own choices, while its SDK
    takes any list within `choices` and any choice that the config does not list for a mistake.
    Paths that are in the config become their last step; a task's own choices are left out.
    """
    question = next((q for q in schema.questions if q.name == region.get("from_name")), None)
    value = region.get("value")
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if question is None or not isinstance(choices, list):
        return region
    if question.kind.is_from_task:
        return {**region, "value": {"choices": []}}
    paths = {label.path for label in question.labels if label.path}
    if not paths:
        return region
    flat = [
        choice[-1] if isinstance(choice, list) and tuple(choice) in paths else choice
        for choice in choices
    ]
    return {**region, "value": {"choices": flat}}
