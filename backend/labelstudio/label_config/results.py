"""Between weak labels or people's results and the questions that they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backend.domain.labels import Answer, Region, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import Question, TaskSchema
from backend.labelstudio.label_config.controls import tag_of
from backend.labelstudio.label_config.tags import RegionSet, RegionValue

_SCORE_DIGITS = 4
_CUT_NOTE = "The text was longer than the model's context; only its beginning was read."


def write_prediction(
    schema: TaskSchema,
    weak_labels: Sequence[WeakLabel],
    model_version: str,
    task: Task | None,
) -> Prediction | None:
    """Turn one example's weak labels into a prediction; None when there is no answer in them.

    Answers that the schema does not ask for (any more) are left out. "There is none" is an answer
    without a region. The score is the confidence in the least sure answer.
    """
    questions = {question.name: question for question in schema.questions}
    data = None if task is None else task.data
    regions: list[Region] = []
    confidences: list[float] = []
    for weak_label in weak_labels:
        question = questions.get(weak_label.question)
        reply = None if question is None else tag_of(question).write(question, weak_label, data)
        if question is not None and reply is not None:
            confidences.append(reply.confidence)
            regions += _regions(question, weak_label, reply)
    if not confidences:
        return None
    return Prediction(
        task_id=weak_labels[0].example_id,
        model_version=model_version,
        result=tuple(regions),
        score=_score(min(confidences)),
    )


def read_answers(
    schema: TaskSchema, result: Iterable[Region], data: Mapping[str, Any] | None = None
) -> dict[str, Answer]:
    """Return what a person answered in a submitted annotation, by question name.

    Regions of other tags, and labels that the config does not have (any more), are left out. No
    region at all answers a multiple choice or a span question with "there is none". `data` is the
    task's data, without which places in a HyperText or in Paragraphs cannot be told: then
    InvalidRequest is raised.
    """
    values: dict[str, list[Mapping[str, Any]]] = {}
    for region in result:
        value = region.get("value")
        if isinstance(value, Mapping):
            values.setdefault(str(region.get("from_name")), []).append(value)
    answers = {}
    for question in schema.questions:
        found = values.get(question.name)
        if found:
            answer = tag_of(question).read(question, found, data)
            if answer is not None:
                answers[question.name] = answer
        elif question.kind.can_be_empty:
            answers[question.name] = Answer()
    return answers


def with_flat_choices(schema: TaskSchema, region: Region) -> Region:
    """Return a region of nested `Choices` as if they were not nested; any other one as it is.

    Label Studio's editor knows nested choices by their paths only, while its SDK takes any list
    within `choices` for a mistake. Paths that are in the config become their last step.
    """
    question = next((q for q in schema.questions if q.name == region.get("from_name")), None)
    paths = {label.path for label in question.labels if label.path} if question else set()
    value = region.get("value")
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not paths or not isinstance(choices, list):
        return region
    flat = [
        choice[-1] if isinstance(choice, list) and tuple(choice) in paths else choice
        for choice in choices
    ]
    return {**region, "value": {"choices": flat}}


def _regions(question: Question, weak_label: WeakLabel, reply: RegionSet) -> list[Region]:
    return [
        _region(question, weak_label, written, index) for index, written in enumerate(reply.regions)
    ]


def _region(question: Question, weak_label: WeakLabel, written: RegionValue, index: int) -> Region:
    name = f"{weak_label.example_id}:{question.name}" + (f":{index}" if index else "")
    region: Region = {
        "id": hashlib.sha256(name.encode()).hexdigest()[:10],
        "from_name": question.name,
        "to_name": question.field.name,
        "type": tag_of(question).tag.lower(),
        "value": written.value,
        "score": _score(written.confidence),
    }
    if weak_label.is_truncated:
        region["meta"] = {"text": [_CUT_NOTE]}
    return region


def _score(confidence: float) -> float:
    return round(min(max(float(confidence), 0.0), 1.0), _SCORE_DIGITS)
