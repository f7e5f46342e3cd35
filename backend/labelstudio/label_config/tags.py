"""Define what a control tag of a label config does here; each tag family has a file of its own."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind

_MIN_PROBABILITY = 0.5  # from here on a label of a multiple choice is selected
UNKNOWN_CONFIDENCE = 0.5  # stands in where an annotator gave no confidence

TaskData = Mapping[str, Any] | None  # None where a task's data are not at hand
RegionValues = Sequence[Mapping[str, Any]]  # of a person's regions for one question


class UnsupportedTag(Exception):
    """A control tag cannot be labelled; the message says why, or is empty for an unknown tag."""


@dataclass(frozen=True, slots=True)
class ControlElement:
    """A control tag in a config: as the SDK parsed it, and as it is written.

    `condition` is that of an element around it, under which alone it is shown.
    """

    parsed: Any
    element: ElementTree.Element
    condition: str | None = None

    @property
    def title(self) -> str:
        """How people recognise it: tag and name."""
        return f'{self.element.tag} "{self.element.get("name")}"'

    def attribute(self, name: str) -> str | None:
        """Return an attribute's value; Label Studio does not mind its upper and lower case."""
        value = self.parsed.get_attr(name)
        return None if value is None else str(value)

    def is_set(self, name: str) -> bool:
        """Return whether an attribute says "true"."""
        return (self.attribute(name) or "").lower() == "true"


@dataclass(frozen=True, slots=True)
class RegionSet:
    """Each region's value and confidence, none for "there is none"; the confidence in the whole."""

    regions: tuple[tuple[dict[str, Any], float], ...]
    confidence: float


class ControlTag(ABC):
    """A control tag: reads its element, writes its predictions, reads people's answers.

    A module of this package lists its tags in `TAGS`; nothing else has to name them. `data` is the
    task's data: the positions of some spans, and the text that they cover, depend on it.
    """

    name: str
    kinds: tuple[QuestionKind, ...]
    over: tuple[str, ...] = ("Text", "HyperText", "Paragraphs")
    n_objects: int = 1

    @abstractmethod
    def question(self, element: ControlElement) -> Question:
        """Return what an element asks, yet without texts; raises UnsupportedTag."""

    @abstractmethod
    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        """Return the regions for a weak label; None when it holds no answer to this question."""

    @abstractmethod
    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Return the answer in the values of a person's regions; None when none can be used."""


@cache
def control_tags() -> dict[str, ControlTag]:
    """Return all supported control tags by their names in lower case."""
    package = __name__.rpartition(".")[0]
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [import_module(f"{package}.{name}") for name in names]
    return {tag.name.lower(): tag for module in modules for tag in getattr(module, "TAGS", ())}


def tag_of(question: Question) -> ControlTag:
    """Return the tag that writes and reads a question's results: its own, else one of its kind."""
    tags = control_tags()
    if question.tag:
        return tags[question.tag]
    return next(tag for tag in tags.values() if question.kind in tag.kinds)


def decide(question: Question, weak_label: WeakLabel) -> tuple[list[LabelDefinition], float] | None:
    """Return the labels that a posterior selects, and the confidence in the least sure decision.

    That is the likeliest label of an exclusive question, the first of equals, with its probability;
    else every label of at least one half, where leaving a label out is a decision of
    confidence 1 - p. None without one probability per label.
    """
    probabilities = weak_label.probabilities
    if not question.labels or len(probabilities) != len(question.labels):
        return None
    if question.kind.is_exclusive:
        best = max(probabilities)
        return [question.labels[probabilities.index(best)]], float(best)
    pairs = zip(question.labels, probabilities, strict=True)
    selected = [label for label, probability in pairs if probability >= _MIN_PROBABILITY]
    return selected, float(min(max(p, 1 - p) for p in probabilities))


def listed_labels(element: ControlElement) -> tuple[LabelDefinition, ...]:
    """Return the labels right below a control tag: alias or value, value as its name, and hint."""
    return tuple(
        LabelDefinition(value, str(label.get_attr("value", value)), label.get_attr("hint"))
        for value, label in element.parsed.labels_attrs.items()
    )
