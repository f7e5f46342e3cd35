"""`Choices` and `Taxonomy`: one label or several, in a list or as the leaves of a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from backend.domain.decisions import decide
from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
    check_fixed,
    listed_labels,
)
from backend.labelstudio.label_config.task_labels import (
    comes_with_task,
    read_task_choice,
    task_choice,
    write_task_choice,
)

PATH_SEPARATOR = " / "
_KIND_BY_CHOICE = {
    "single": QuestionKind.SINGLE_CHOICE,
    "single-radio": QuestionKind.SINGLE_CHOICE,
    "multiple": QuestionKind.MULTIPLE_CHOICE,
}


class _ChoiceTag(ControlTag):
    """What both tags share; a result's key is the tag's name."""

    kinds = (
        QuestionKind.SINGLE_CHOICE,
        QuestionKind.MULTIPLE_CHOICE,
        QuestionKind.TASK_CHOICE,
        QuestionKind.TASK_CHOICES,
    )

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        if question.kind.is_from_task:
            return write_task_choice(question, weak_label, data)
        decision = decide(question, weak_label)
        if decision is None:
            return None
        labels, confidence = decision
        if not labels:
            return RegionSet((), confidence)
        values = [list(label.path) if label.path else label.value for label in labels]
        return RegionSet((({self.name.lower(): values}, confidence),), confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Read labels in the config's order; what is no leaf, or unknown, is left out."""
        chosen: set[str | tuple[str, ...]] = set()
        for value in values:
            items = value.get(self.name.lower())
            for item in items if isinstance(items, list) else ():
                if isinstance(item, list) and all(isinstance(step, str) for step in item):
                    chosen.add(tuple(item))
                elif isinstance(item, str):
                    chosen.add(item)
        if question.kind.is_from_task:
            return read_task_choice(question, chosen)
        labels = [label.value for label in question.labels if (label.path or label.value) in chosen]
        if not labels or (question.kind.is_exclusive and len(labels) != 1):
            return None
        return Answer(tuple(labels))


class Choices(_ChoiceTag):
    """`<Choices>`. Results hold a choice's alias where it has one, and paths for a tree."""

    name = "Choices"

    def question(self, element: ControlElement) -> Question:
        choice = element.attribute("choice") or "single"
        kind = _KIND_BY_CHOICE.get(choice)
        if kind is None:
            raise UnsupportedTag(f'choice="{choice}"')
        if comes_with_task(element):
            return task_choice(element, takes_several=kind.is_multilabel)
        if element.element.find(".//Choice//Choice") is None:
            return _question(element, kind, listed_labels(element))
        if not element.is_set("allowNested"):
            raise UnsupportedTag(
                'nested choices without allowNested="true", which Label Studio does not show'
            )
        return _question(element, kind, _leaves(element.element))


class Taxonomy(_ChoiceTag):
    """`<Taxonomy>`: several leaves of a tree, or one with maxUsages="1"."""

    name = "Taxonomy"

    def question(self, element: ControlElement) -> Question:
        check_fixed(element)
        if element.is_set("labeling"):
            raise UnsupportedTag('labeling="true"')
        is_single = element.attribute("maxUsages") == "1"
        kind = QuestionKind.SINGLE_CHOICE if is_single else QuestionKind.MULTIPLE_CHOICE
        return _question(element, kind, _leaves(element.element))


TAGS = (Choices(), Taxonomy())


def _question(
    element: ControlElement, kind: QuestionKind, labels: tuple[LabelDefinition, ...]
) -> Question:
    if len(labels) < 2:
        raise UnsupportedTag("fewer than two choices")
    return Question(element.parsed.name, (), kind, labels)


def _leaves(root: ElementTree.Element) -> tuple[LabelDefinition, ...]:
    """Return a tree's leaves in order, named by themselves where these names differ.

    Of equal siblings Label Studio shows the first, and so does this.
    """
    leaves = list(_walk(root, (), ()))
    values = Counter(PATH_SEPARATOR.join(path) for path, _, _ in leaves)
    for value, n in values.items():
        if n > 1:
            raise UnsupportedTag(f'several choices are told by the same path "{value}"')
    names = Counter(shown[-1] for _, shown, _ in leaves)
    return tuple(
        LabelDefinition(
            value=PATH_SEPARATOR.join(path),
            name=shown[-1] if names[shown[-1]] == 1 else PATH_SEPARATOR.join(shown),
            hint=hint,
            path=path,
        )
        for path, shown, hint in leaves
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
