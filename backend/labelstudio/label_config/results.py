"""Write weak labels as Label Studio results, and read people's results as answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.labels import Answer, Region, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import TaskSchema
from backend.labelstudio.label_config.tags import tag_of

_SCORE_DIGITS = 4
_CUT_NOTE = "The text or the answer was too long for the model; a part of it is missing."


def write_prediction(
    schema: TaskSchema,
    weak_labels: Sequence[WeakLabel],
    model_version: str,
    task: Task | None = None,
) -> Prediction | None:
    """Turn one example's weak labels into a prediction; None when there is no answer in them.

    Answers that the schema does not ask for (any more) are left out. "There is none" is an answer
    without a region. The score is the confidence in the least sure answer. Without the task, spans
    lack their text, and those of a HyperText or of Paragraphs raise InvalidRequest.
    """
    questions = {question.name: question for question in schema.questions}
    data = None if task is None else task.data
    regions: list[Region] = []
    confidences: list[float] = []
    for weak_label in weak_labels:
        question = questions.get(weak_label.question)
        if question is None:
            continue
        answer = tag_of(question).write(question, weak_label, data)
        if answer is not None:
            confidences.append(answer.confidence)
            common = {
                "from_name": question.name,
                "to_name": question.field.name,
                "type": tag_of(question).name.lower(),
            }
            note = {"meta": {"text": [_CUT_NOTE]}} if weak_label.is_truncated else {}
            for index, (value, confidence) in enumerate(answer.regions):
                # an id that is the same for every version of a prediction
                name = f"{weak_label.example_id}:{question.name}" + (f":{index}" if index else "")
                region_id = hashlib.sha256(name.encode()).hexdigest()[:10]
                scored = {"value": value, "score": _score(confidence)}
                regions.append({"id": region_id, **common, **scored, **note})
    if not confidences:
        return None
    score = _score(min(confidences))
    return Prediction(weak_labels[0].example_id, model_version, tuple(regions), score)


def _score(confidence: float) -> float:
    return round(min(max(float(confidence), 0.0), 1.0), _SCORE_DIGITS)


def read_answers(
    schema: TaskSchema, result: Sequence[Region], data: Mapping[str, Any] | None = None
) -> dict[str, Answer]:
    """Return what a person answered in a submitted annotation, by question name.

    Regions of other tags, and labels that the config does not have (any more), are left out. No
    region at all answers a multiple choice or a span question with "there is none". Without the
    task's data, places in a HyperText or in Paragraphs raise InvalidRequest.
    """
    values: dict[str, list[Mapping[str, Any]]] = {}
    for region in result:
        value = region.get("value")
        if isinstance(value, Mapping):
            values.setdefault(str(region.get("from_name")), []).append(value)
    answers = {}
    for question in schema.questions:
        if question.name in values:
            answer = tag_of(question).read(question, values[question.name], data)
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
