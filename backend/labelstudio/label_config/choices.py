"""`Choices` and `Taxonomy`: one label or several, in a list or as the leaves of a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    ANY_TEXT,
    Control,
    RegionSet,
    RegionValue,
    RegionValues,
    TagSpec,
    TaskData,
    chosen,
    winner,
)

PATH_SEPARATOR = " / "
_KIND_BY_CHOICE = {
    "single": QuestionKind.SINGLE_CHOICE,
    "single-radio": QuestionKind.SINGLE_CHOICE,
    "multiple": QuestionKind.MULTIPLE_CHOICE,
}


class _Picked:
    """What both tags share; they differ in what they ask and in their result's key, their name."""

    tag: str
    over = ANY_TEXT
    n_objects = 1

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if question.kind.is_exclusive:
            best = winner(question, weak_label)
            found = None if best is None else ([best[0]], best[1])
        else:
            found = chosen(question, weak_label)
        if found is None:
            return None
        labels, confidence = found
        if not labels:
            return RegionSet((), confidence)
        values = [list(label.path) if label.path else label.value for label in labels]
        return RegionSet((RegionValue({self.tag.lower(): values}, confidence),), confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Read labels in the config's order; what is no leaf, or unknown, is left out."""
        by_stored: dict[Any, str] = {
            label.path or label.value: label.value for label in question.labels
        }
        picked: set[str] = set()
        for value in values:
            stored = value.get(self.tag.lower())
            for item in stored if isinstance(stored, list) else ():
                label = _lookup(by_stored, item)
                if label is not None:
                    picked.add(label)
        if not picked or (question.kind.is_exclusive and len(picked) != 1):
            return None
        return Answer(tuple(label.value for label in question.labels if label.value in picked))


class Choices(_Picked):
    """`<Choices>`. Results hold a choice's alias where it has one, and paths for a tree."""

    tag = "Choices"

    def ask(self, control: Control) -> TagSpec | str:
        choice = control.attribute("choice") or "single"
        kind = _KIND_BY_CHOICE.get(choice)
        if kind is None:
            return f'choice="{choice}"'
        if control.element.find(".//Choice//Choice") is None:
            labels: tuple[LabelDefinition, ...] | str = _flat(control)
        elif control.is_set("allowNested"):
            labels = _leaves(control.element)
        else:
            return 'nested choices without allowNested="true", which Label Studio does not show'
        return _asked(kind, labels)


class Taxonomy(_Picked):
    """`<Taxonomy>`: several leaves of a tree, or one with maxUsages="1"."""

    tag = "Taxonomy"

    def ask(self, control: Control) -> TagSpec | str:
        if control.is_set("labeling"):
            return 'labeling="true"'
        one = control.attribute("maxUsages") == "1"
        kind = QuestionKind.SINGLE_CHOICE if one else QuestionKind.MULTIPLE_CHOICE
        return _asked(kind, _leaves(control.element))


def _asked(kind: QuestionKind, labels: tuple[LabelDefinition, ...] | str) -> TagSpec | str:
    if isinstance(labels, str):
        return labels
    return TagSpec(kind, labels) if len(labels) >= 2 else "fewer than two choices"


def _flat(control: Control) -> tuple[LabelDefinition, ...]:
    return tuple(
        LabelDefinition(value, str(choice.get_attr("value", value)), choice.get_attr("hint"))
        for value, choice in control.tag.labels_attrs.items()
    )


def _leaves(root: ElementTree.Element) -> tuple[LabelDefinition, ...] | str:
    """Return a tree's leaves in order: told by their own names, where these differ.

    Of equal siblings Label Studio shows the first, and so does this.
    """
    found = list(_walk(root, (), ()))
    values = Counter(PATH_SEPARATOR.join(path) for path, _, _ in found)
    doubled = [value for value, n in values.items() if n > 1]
    if doubled:
        return f'several choices are told by the same path "{doubled[0]}"'
    names = Counter(shown[-1] for _, shown, _ in found)
    return tuple(
        LabelDefinition(
            value=PATH_SEPARATOR.join(path),
            name=shown[-1] if names[shown[-1]] == 1 else PATH_SEPARATOR.join(shown),
            hint=hint,
            path=path,
        )
        for path, shown, hint in found
    )


def _walk(
    element: ElementTree.Element, path: tuple[str, ...], shown: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], str | None]]:
    """Yield each leaf's path as it is stored, as it is shown, and its hint."""
    seen: set[str] = set()
    for choice in _choices_in(element):
        attributes = {name.lower(): value.strip() for name, value in choice.attrib.items()}
        name = attributes.get("value", "")
        if not name or name in seen:
            continue
        seen.add(name)
        step, step_shown = (*path, attributes.get("alias") or name), (*shown, name)
        if next(_choices_in(choice), None) is None:
            yield step, step_shown, attributes.get("hint") or None
        else:
            yield from _walk(choice, step, step_shown)


def _choices_in(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the choices right below an element; views between them are only for looks."""
    for child in element:
        if str(child.tag).lower() == "choice":
            yield child
        elif str(child.tag).lower() == "view":
            yield from _choices_in(child)


def _lookup(by_stored: Mapping[Any, str], item: Any) -> str | None:
    if isinstance(item, list) and all(isinstance(step, str) for step in item):
        return by_stored.get(tuple(item))
    return by_stored.get(item) if isinstance(item, str) else None
