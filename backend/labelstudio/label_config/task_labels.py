"""Labels that come with each task: `$field`s in `Choices`, and the items of a `List`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from backend.domain.decisions import join_values, split_values
from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.offsets import read_html
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    VARIABLE,
    ControlElement,
    RegionSet,
    TaskData,
    UnsupportedTag,
)
from backend.labelstudio.label_config.texts import fill, items_of, look_up, read_value

_LISTED = "$"
"""The value of the placeholder that stands for a task's own list of choices."""


def comes_with_task(element: ControlElement) -> bool:
    """Return whether a task's fields are among a control's choices."""
    choices = element.element.iter("Choice")
    values = [element.attribute("value"), *(choice.get("value") for choice in choices)]
    return any(VARIABLE.search(value or "") for value in values)


def task_choice(element: ControlElement, *, takes_several: bool) -> Question:
    """Return the question about choices that each task brings; raises UnsupportedTag."""
    if element.element.find(".//Choice//Choice") is not None:
        raise UnsupportedTag("nested choices with values that come with each task")
    options = [
        LabelDefinition(
            (choice.get("alias") or choice.get("value") or "").strip(),
            (choice.get("value") or "").strip(),
            choice.get("hint"),
        )
        for choice in element.element.iter("Choice")
        if (choice.get("value") or "").strip()
    ]
    listed = element.attribute("value") or ""
    if VARIABLE.search(listed):
        key, template = read_value(listed)
        if template and " " not in key:
            raise UnsupportedTag(f'value="{listed}": expected one "$field"')
        path = ("nested",) if element.is_set("allowNested") else ()
        options.append(LabelDefinition(_LISTED, key, path=path))
    kind = QuestionKind.TASK_CHOICES if takes_several else QuestionKind.TASK_CHOICE
    return Question(element.parsed.name, (), kind, options=tuple(options))


def task_labels(question: Question, data: Mapping[str, Any]) -> tuple[LabelDefinition, ...]:
    """Return the labels of a question that this task brings; each name once."""
    if question.kind.is_ranked:
        labels = [LabelDefinition(*item) for item in items_of(look_up(data, question.field.key))]
    else:
        labels = [label for option in question.options for label in _filled(option, data)]
    found: dict[str, LabelDefinition] = {}
    for label in labels:
        if label.name.strip() and label.value.strip():
            found.setdefault(" ".join(label.value.split()), label)
    return tuple(found.values())


def write_task_choice(
    question: Question, weak_label: WeakLabel, data: TaskData
) -> RegionSet | None:
    """Return the region for the chosen values; those that the task does not bring are left out."""
    if weak_label.text is None:
        return None
    confidence = weak_label.confidence
    confidence = UNKNOWN_CONFIDENCE if confidence is None else confidence
    chosen = set(split_values(weak_label.text))
    labels = [
        one for one in task_labels(question, data or {}) if join_values([one.value]) in chosen
    ]
    if not labels:
        return RegionSet((), confidence) if question.kind.takes_several else None
    values = [list(label.path) if label.path else label.value for label in labels]
    return RegionSet((({"choices": values}, confidence),), confidence)


def read_task_choice(
    question: Question, chosen: Collection[str | tuple[str, ...]]
) -> Answer | None:
    """Return what a person chose among what the task brought."""
    values = sorted(one if isinstance(one, str) else " / ".join(one) for one in chosen)
    if not values or (len(values) > 1 and not question.kind.takes_several):
        return None
    return Answer(text=join_values(values))


def _filled(option: LabelDefinition, data: Mapping[str, Any]) -> Iterator[LabelDefinition]:
    """Yield the labels that an option of the config stands for in a task."""
    if option.value == _LISTED:
        yield from _listed(look_up(data, option.name), (), is_nested=bool(option.path))
        return
    name = fill(option.name, data) if VARIABLE.search(option.name) else option.name
    value = fill(option.value, data) if VARIABLE.search(option.value) else option.value
    if name and value:
        yield LabelDefinition(value.strip(), name.strip())


def _listed(choices: Any, path: tuple[str, ...], *, is_nested: bool) -> Iterator[LabelDefinition]:
    """Yield the leaves of a task's own choices, as they are stored and as they are shown."""
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        return
    for choice in choices:
        if not isinstance(choice, Mapping) or choice.get("value") is None:
            continue
        value = str(choice.get("alias") or choice["value"])
        html = choice.get("html")
        name = str(choice["value"])
        if isinstance(html, str) and html.strip():  # shown in its stead; a picture says nothing
            name = " ".join(read_html(html).text.split())
        hint = choice.get("hint")
        step = (*path, value)
        below = list(_listed(choice.get("children"), step, is_nested=is_nested))
        if below:
            yield from below
        else:
            yield LabelDefinition(
                " / ".join(step) if is_nested else value,
                name,
                hint if isinstance(hint, str) else None,
                step if is_nested else (),
            )
