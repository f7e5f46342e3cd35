"""Define what a control tag of a label config does here; each tag family has a file of its own."""

from __future__ import annotations

import pkgutil
import re
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

UNKNOWN_CONFIDENCE = 0.5  # stands in where an annotator gave no confidence

VARIABLE = re.compile(r"\$(\w+(?:(?:\.|\[)\w+\]?)*)")
"""A task's field in an attribute, as Label Studio's editor fills it in."""
TaskData = Mapping[str, Any] | None  # None where a task's data are not at hand
RegionValues = Sequence[Mapping[str, Any]]  # of a person's regions for one question


class UnsupportedTag(Exception):
    """A control tag cannot be labelled; the message says why, or is empty for an unknown tag."""


@dataclass(frozen=True, slots=True)
class ControlElement:
    """A control tag in a config: as the SDK parsed it, and as it is written."""

    parsed: Any
    element: ElementTree.Element

    @property
    def title(self) -> str:
        """How people recognise it: tag and name."""
        name = self.element.get("name")
        return f'{self.element.tag} "{name}"' if name else str(self.element.tag)

    def attribute(self, name: str) -> str | None:
        """Return an attribute's value; None where it is not there or blank."""
        return (self.element.get(name) or "").strip() or None

    def is_set(self, name: str) -> bool:
        """Return whether an attribute says "true"."""
        return (self.attribute(name) or "").lower() == "true"


@dataclass(frozen=True, slots=True)
class RegionSet:
    """Each region's value and confidence, none for "there is none"; the confidence in the whole.

    `places` are the first and last characters of regions that are pieces of a text.
    """

    regions: tuple[tuple[dict[str, Any], float], ...]
    confidence: float
    places: tuple[tuple[int, int], ...] = ()


class ControlTag(ABC):
    """A control tag: reads its element, writes its predictions, reads people's answers.

    A module of this package lists its tags in `TAGS`; nothing else has to name them. `data` is the
    task's data: the positions of some spans, and the text that they cover, depend on it.
    """

    name: str
    kinds: tuple[QuestionKind, ...]
    over: tuple[str, ...] = ("Text", "HyperText", "Paragraphs", "Chat", "Table", "List")
    n_objects: int = 1
    needs_no_target: bool = False  # it is about the regions of other questions

    @abstractmethod
    def question(self, element: ControlElement) -> Question:
        """Return what an element asks, yet without texts; raises UnsupportedTag."""

    def question_about(self, element: ControlElement, questions: Sequence[Question]) -> Question:
        """Return what an element asks beside these questions, with texts; raises UnsupportedTag."""
        raise UnsupportedTag

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


def check_fixed(element: ControlElement) -> None:
    """Raise UnsupportedTag where a control's labels or text come with each task."""
    value = element.attribute("apiUrl") or element.attribute("value") or ""
    if element.attribute("apiUrl") or VARIABLE.search(value):
        raise UnsupportedTag(f'value="{value}": it comes with each task')


def listed_labels(element: ControlElement) -> tuple[LabelDefinition, ...]:
    """Return the labels right below a control tag: alias or value, value as its name, and hint.

    A hint that each task brings is shown beside its text instead.
    """
    return tuple(
        LabelDefinition(value, str(label.get_attr("value", value)), _hint(label.get_attr("hint")))
        for value, label in element.parsed.labels_attrs.items()
    )


def _hint(text: str | None) -> str | None:
    return None if text is None or VARIABLE.search(text) else text
