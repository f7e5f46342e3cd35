"""The `ConfigReader` port for Label Studio; parsing and validation are label-studio-sdk's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from label_studio_sdk._legacy.exceptions import (
    LabelStudioValidationErrorSentryIgnored,
    LabelStudioXMLSyntaxErrorSentryIgnored,
    LSConfigParseException,
)
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.domain.labels import Abstention, Answer, Example, Region, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import Question, TaskSchema
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config.controls import SUPPORTED, read_fields, read_question
from backend.labelstudio.label_config.results import (
    read_answers,
    with_flat_choices,
    write_prediction,
)
from backend.labelstudio.label_config.tags import Control
from backend.labelstudio.label_config.texts import VARIABLE, FetchText, read_text

_PARSE_ERRORS = (
    LabelStudioValidationErrorSentryIgnored,
    LabelStudioXMLSyntaxErrorSentryIgnored,
    LSConfigParseException,
    ElementTree.ParseError,
    RecursionError,
    # What the SDK's parser lets through when a config is not what it expects.
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
)


class LabelConfigReader:
    """The `ConfigReader` port for Label Studio. Safe to share between threads.

    `fetch_text` is called for texts that a config declares as URLs, and for nothing else.
    """

    def __init__(self, fetch_text: FetchText) -> None:
        self._fetch_text = fetch_text

    def read_schema(self, label_config: str) -> TaskSchema:
        """Return what the config asks; raises UnsupportedLabelConfig."""
        return _parse(label_config).schema

    def read_example(self, schema: TaskSchema, task: Task) -> Example:
        """Return the texts of a task; fields without a usable text are explained in `missing`."""
        texts: dict[str, str] = {}
        missing: dict[str, Abstention] = {}
        for field in dict.fromkeys(
            field for question in schema.questions for field in question.fields
        ):
            text = read_text(field, task.data, self._fetch_text)
            if isinstance(text, Abstention):
                missing[field.name] = text
            else:
                texts[field.name] = text
        return Example(task.id, texts, missing)

    def write_prediction(
        self,
        schema: TaskSchema,
        weak_labels: Sequence[WeakLabel],
        model_version: str,
        task: Task | None = None,
    ) -> Prediction | None:
        """Turn one example's weak labels into a prediction; None when there is no answer in them.

        Answers that the schema does not ask for (any more) are left out. The score is the
        confidence in the least sure answer. Without the task, spans do not say which text they
        cover, and those of a HyperText or of Paragraphs raise InvalidRequest.
        """
        return write_prediction(schema, weak_labels, model_version, task)

    def read_answers(
        self, schema: TaskSchema, result: Sequence[Region], data: Mapping[str, Any]
    ) -> dict[str, Answer]:
        """Return what a person answered, by question name; see `results.read_answers`."""
        return read_answers(schema, result, data)

    def errors(self, label_config: str, prediction: Prediction) -> list[str]:
        """Return what is wrong with a prediction under this config; empty when it fits.

        Label Studio drops predictions silently for just these reasons when they are imported.
        """
        try:
            config = _parse(label_config)
        except UnsupportedLabelConfig as exc:
            return [str(exc)]
        result = [with_flat_choices(config.schema, region) for region in prediction.result]
        content = {"result": result, "score": prediction.score}
        return list(config.interface.validate_prediction(content, return_errors=True))


@dataclass(frozen=True, slots=True)
class _Config:
    """A parsed label config. The interface is only read from: threads may share it."""

    interface: Any
    schema: TaskSchema


def _parse(label_config: str) -> _Config:
    if not isinstance(label_config, str):
        raise _unreadable(f"it is a {type(label_config).__name__}, not a text")
    return _parse_text(label_config)


@lru_cache(maxsize=64)
def _parse_text(label_config: str) -> _Config:
    """Parse and validate a config.

    A document type declaration is refused before any parser sees it: without one, XML has no
    entities that could expand ("billion laughs") or be fetched. Comments never reach the SDK.
    """
    if "<!DOCTYPE" in label_config:
        raise _unreadable("it has a document type declaration, which is not allowed")
    try:
        root = ElementTree.fromstring(label_config)  # noqa: S314
        interface: Any = LabelInterface(ElementTree.tostring(root, encoding="unicode"))
        interface.validate()
    except _PARSE_ERRORS as exc:
        raise _unreadable(str(exc)) from exc
    schema = _read_schema(root, interface)
    if not schema.questions:
        found = ", ".join(schema.unsupported[:10]) or "no control tag"
        raise UnsupportedLabelConfig(
            f"the label config asks nothing that this backend can label (found: {found}); "
            f"it labels {SUPPORTED}: add one, or see docs/label-configs.md"
        )
    return _Config(interface, schema)


def _unreadable(why: str) -> UnsupportedLabelConfig:
    detail = " ".join(why.split())[:300] or "it is empty"
    return UnsupportedLabelConfig(
        f"the label config cannot be read: {detail}; correct it in the project's labeling "
        "interface settings, or see docs/label-configs.md"
    )


def _read_schema(root: ElementTree.Element, interface: Any) -> TaskSchema:
    elements = {element.get("name"): element for element in root.iter() if element.get("toName")}
    parents = {child: parent for parent in root.iter() for child in parent}
    fields = read_fields(list(interface.objects))
    questions: list[Question] = []
    unsupported: list[str] = []
    for tag in interface.controls:
        if tag.name not in elements:  # a tag that is object and control in one, such as Chat
            unsupported.append(f'{tag.tag} "{tag.name}"')
            continue
        element = elements[tag.name]
        question = read_question(Control(tag, element, _ancestors(element, parents)), fields)
        if isinstance(question, Question):
            questions.append(question)
        else:
            unsupported.append(question)
    return TaskSchema(tuple(questions), tuple(_headers(root)), tuple(unsupported))


def _ancestors(
    element: ElementTree.Element, parents: Mapping[ElementTree.Element, ElementTree.Element]
) -> tuple[ElementTree.Element, ...]:
    """Return the elements around an element, the innermost first."""
    found = []
    while (parent := parents.get(element)) is not None:
        found.append(parent)
        element = parent
    return tuple(found)


def _headers(root: ElementTree.Element) -> Iterable[str]:
    """Yield the texts of the Header tags in order; one with a task's data in it says nothing."""
    for element in root.iter():
        if str(element.tag).lower() == "header":
            text = " ".join((element.get("value") or element.text or "").split())
            if text and not VARIABLE.search(text):
                yield text
