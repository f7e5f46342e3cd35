"""What every control tag of a label config can do here, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from xml.etree import ElementTree

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind

ANY_TEXT: tuple[str, ...] = ("Text", "HyperText", "Paragraphs")
MIN_PROBABILITY = 0.5
"""From here on a label of a multiple choice is chosen."""
UNKNOWN_CONFIDENCE = 0.5
"""Stands in where an annotator did not say how sure it is."""

TaskData = Mapping[str, Any] | None
"""A task's data, or None where they are not at hand."""
RegionValues = Sequence[Mapping[str, Any]]
"""The values of a person's regions for one question."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control tag: the SDK's `ControlTag`, and the element as it is written."""

    tag: Any
    element: ElementTree.Element
    ancestors: tuple[ElementTree.Element, ...] = ()

    @property
    def title(self) -> str:
        """How people recognise it: tag and name."""
        return f'{self.element.tag} "{self.element.get("name")}"'

    def attribute(self, name: str) -> str | None:
        """Return an attribute's value; Label Studio does not mind its upper and lower case."""
        value = self.tag.get_attr(name)
        return None if value is None else str(value)

    def is_set(self, name: str) -> bool:
        """Return whether an attribute says "true"."""
        return (self.attribute(name) or "").lower() == "true"


@dataclass(frozen=True, slots=True)
class TagSpec:
    """What a control tag asks: the part of a `Question` that its kind of tag decides."""

    kind: QuestionKind
    labels: tuple[LabelDefinition, ...] = ()
    bounds: tuple[float, float] | None = None
    step: float | None = None


@dataclass(frozen=True, slots=True)
class RegionValue:
    """One region's value and the confidence in it."""

    value: dict[str, Any]
    confidence: float


@dataclass(frozen=True, slots=True)
class RegionSet:
    """All regions of an answer, none for "there is none", and the confidence in the whole."""

    regions: tuple[RegionValue, ...]
    confidence: float


class QuestionTag(Protocol):
    """One way of asking: reads its control tag, writes its predictions, reads its answers.

    `data` is the task's data. Only spans look at it: some of their positions, and the text that
    they cover, depend on it.
    """

    tag: str
    over: tuple[str, ...]
    n_objects: int

    def ask(self, control: Control) -> TagSpec | str:
        """Return what a control tag asks, or why that cannot be labelled."""
        ...

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        """Return the regions for a weak label; None when it holds no answer to this question."""
        ...

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Return the answer in the values of a person's regions; None when none can be used."""
        ...


def why_not_always_asked(control: Control) -> str | None:
    """Return why a question is not asked once about every task, or None when it is."""
    for name in ("perRegion", "perItem", "visibleWhen"):
        value = control.attribute(name)
        if value is not None and value.lower() != "false":
            return f'{name}="{value}"'
    for ancestor in control.ancestors:
        attributes = {name.lower(): value for name, value in ancestor.attrib.items()}
        if "visiblewhen" in attributes:
            return f'inside a {ancestor.tag} with visibleWhen="{attributes["visiblewhen"]}"'
    if control.tag.dynamic_value:
        value = control.attribute("apiUrl") or control.attribute("value")
        return f'value="{value}": it comes with each task'
    return None


def winner(question: Question, weak_label: WeakLabel) -> tuple[LabelDefinition, float] | None:
    """Return the likeliest label with its probability, the first of equals; None without one."""
    if not question.labels or len(weak_label.probabilities) != len(question.labels):
        return None
    best = max(weak_label.probabilities)
    return question.labels[weak_label.probabilities.index(best)], float(best)


def chosen(question: Question, weak_label: WeakLabel) -> tuple[list[LabelDefinition], float] | None:
    """Return the labels at or above `MIN_PROBABILITY` with the confidence in the least sure one.

    A label that is left out counts as well: the confidence in each decision is p or 1 - p.
    """
    if not question.labels or len(weak_label.probabilities) != len(question.labels):
        return None
    pairs = list(zip(question.labels, weak_label.probabilities, strict=True))
    labels = [label for label, probability in pairs if probability >= MIN_PROBABILITY]
    return labels, float(min(max(probability, 1 - probability) for _, probability in pairs))
