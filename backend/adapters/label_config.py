"""Between Label Studio's label config and result JSON, and what the domain asks and answers.

A new kind of question is one more class in `_QUESTION_TAGS`; a new kind of text is one more line in
`_TEXT_TAGS`. Parsing and validation are label-studio-sdk's own.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from xml.etree import ElementTree

from label_studio_sdk._legacy.exceptions import (
    LabelStudioValidationErrorSentryIgnored,
    LabelStudioXMLSyntaxErrorSentryIgnored,
    LSConfigParseException,
)
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.core.types import (
    Abstention,
    AbstentionReason,
    Example,
    LabelDefinition,
    Prediction,
    Question,
    QuestionKind,
    Region,
    Task,
    TaskSchema,
    TextField,
    WeakLabel,
)
from backend.errors import UnsupportedLabelConfig

_SUPPORTED = 'Choices with choice="single" over one Text tag'
_VARIABLE = re.compile(r"\$(\w[\w.\[\]]*)")
_SCORE_DIGITS = 4
_CUT_NOTE = "The text was longer than the model's context; only its beginning was read."
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

FetchText = Callable[[str], str | Abstention]
"""Gets the text behind a URL, or says why it is not read."""


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
        for field in dict.fromkeys(question.field for question in schema.questions):
            text = self._read_text(field, task.data)
            if isinstance(text, Abstention):
                missing[field.name] = text
            else:
                texts[field.name] = text
        return Example(task.id, texts, missing)

    def _read_text(self, field: TextField, data: Mapping[str, Any]) -> str | Abstention:
        text = _as_text(_look_up(data, field.key), field.key)
        if not field.is_url or isinstance(text, Abstention):
            return text
        fetched = self._fetch_text(text.strip())
        return fetched if isinstance(fetched, Abstention) else _as_text(fetched, field.key)

    def write_prediction(
        self, schema: TaskSchema, weak_labels: Sequence[WeakLabel], model_version: str
    ) -> Prediction | None:
        """Turn one example's weak labels into a prediction; None when there is no label in them.

        Answers that the schema does not ask for (any more) are left out. The score is the lowest
        confidence among the regions.
        """
        questions = {question.name: question for question in schema.questions}
        regions = []
        for weak_label in weak_labels:
            question = questions.get(weak_label.question)
            if question is None or len(weak_label.probabilities) != len(question.labels):
                continue
            regions.append(_region(question, weak_label))
        if not regions:
            return None
        return Prediction(
            task_id=weak_labels[0].example_id,
            model_version=model_version,
            result=tuple(regions),
            score=min(region["score"] for region in regions),
        )

    def errors(self, label_config: str, prediction: Prediction) -> list[str]:
        """Return what is wrong with a prediction under this config; empty when it fits.

        Label Studio drops predictions silently for just these reasons when they are imported.
        """
        try:
            interface = _parse(label_config).interface
        except UnsupportedLabelConfig as exc:
            return [str(exc)]
        content = {"result": list(prediction.result), "score": prediction.score}
        return list(interface.validate_prediction(content, return_errors=True))


def read_answers(schema: TaskSchema, result: Iterable[Region]) -> dict[str, str]:
    """Return what a person answered, as label values by question name.

    Regions of other tags, and labels that the config does not have (any more), are left out.
    """
    questions = {question.name: question for question in schema.questions}
    answers: dict[str, str] = {}
    for region in result:
        question = questions.get(str(region.get("from_name")))
        if question is not None:
            answer = _TAG_BY_KIND[question.kind].answer(question, region)
            if answer is not None:
                answers.setdefault(question.name, answer)
    return answers


@dataclass(frozen=True, slots=True)
class _Control:
    """A control tag: the SDK's `ControlTag`, and the element as it is written."""

    tag: Any
    element: ElementTree.Element

    @property
    def title(self) -> str:
        """How people recognise it: tag and name."""
        return f'{self.element.tag} "{self.element.get("name")}"'

    def attribute(self, name: str) -> str | None:
        """Return an attribute's value; Label Studio does not mind its upper and lower case."""
        value = self.tag.get_attr(name)
        return None if value is None else str(value)


class _QuestionTag(Protocol):
    """One way of asking: reads its control tag, writes its predictions, reads its answers."""

    tag: str
    kind: QuestionKind

    def why_not(self, control: _Control) -> str | None:
        """Return why this control tag cannot be labelled, or None when it can."""
        ...

    def labels(self, control: _Control) -> tuple[LabelDefinition, ...]:
        """Return the label space in the config's order."""
        ...

    def value(self, question: Question, weak_label: WeakLabel) -> tuple[dict[str, Any], float]:
        """Return a region's value and the confidence in it."""
        ...

    def answer(self, question: Question, region: Region) -> str | None:
        """Return the label value that a person gave, or None when there is none to use."""
        ...


class _SingleChoice:
    """`<Choices>` of which one is chosen. Results hold a choice's alias where it has one."""

    tag = "Choices"
    kind = QuestionKind.SINGLE_CHOICE

    def why_not(self, control: _Control) -> str | None:
        if control.tag.dynamic_value:
            return f'value="{control.attribute("value")}": choices that come with each task'
        choice = control.attribute("choice") or "single"
        if choice not in ("single", "single-radio"):
            return f'choice="{choice}"'
        for name in ("perRegion", "perItem", "visibleWhen"):
            value = control.attribute(name)
            if value is not None and value.lower() != "false":
                return f'{name}="{value}"'
        if control.element.find(".//Choice//Choice") is not None:
            return "nested choices"
        return "fewer than two choices" if len(control.tag.labels) < 2 else None

    def labels(self, control: _Control) -> tuple[LabelDefinition, ...]:
        return tuple(
            LabelDefinition(
                value=value,
                name=str(choice.get_attr("value", value)),
                hint=choice.get_attr("hint"),
            )
            for value, choice in control.tag.labels_attrs.items()
        )

    def value(self, question: Question, weak_label: WeakLabel) -> tuple[dict[str, Any], float]:
        confidence = max(weak_label.probabilities)
        winner = question.labels[weak_label.probabilities.index(confidence)]
        return {"choices": [winner.value]}, round(float(confidence), _SCORE_DIGITS)

    def answer(self, question: Question, region: Region) -> str | None:
        value = region.get("value")
        chosen = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(chosen, list) or len(chosen) != 1:
            return None
        known = (label.value for label in question.labels)
        return chosen[0] if chosen[0] in known else None


_QUESTION_TAGS: tuple[_QuestionTag, ...] = (_SingleChoice(),)
_TAG_BY_KIND = {tag.kind: tag for tag in _QUESTION_TAGS}
_TEXT_TAGS = ("Text",)


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
            f"it labels {_SUPPORTED}: add one, or see docs/label-configs.md"
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
    questions: list[Question] = []
    unsupported: list[str] = []
    for tag in interface.controls:
        if tag.name not in elements:  # a tag that is object and control in one, such as Chat
            unsupported.append(f'{tag.tag} "{tag.name}"')
            continue
        question = _read_question(_Control(tag, elements[tag.name]))
        if isinstance(question, Question):
            questions.append(question)
        else:
            unsupported.append(question)
    return TaskSchema(tuple(questions), tuple(_headers(root)), tuple(unsupported))


def _read_question(control: _Control) -> Question | str:
    """Return the question that a control tag asks, or how to name it among the unsupported."""
    why = None
    for question_tag in _QUESTION_TAGS:
        if question_tag.tag.lower() != control.tag.tag.lower():
            continue
        why = question_tag.why_not(control)
        if why is None:
            field = _read_field(control)
            if isinstance(field, TextField):
                labels = question_tag.labels(control)
                return Question(control.tag.name, field, question_tag.kind, labels)
            why = field
    return f"{control.title} ({why})" if why else control.title


def _read_field(control: _Control) -> TextField | str:
    """Return the text that a control tag is about, or why it is none that we can read."""
    if len(control.tag.objects) != 1 or len(control.tag.to_name) != 1:
        return "over several tags"
    tag = control.tag.objects[0]
    if tag.tag.lower() not in (name.lower() for name in _TEXT_TAGS):
        return f"over {tag.tag}"
    variable = _VARIABLE.fullmatch(tag.value or "")
    if variable is None:
        return f'over a {tag.tag} whose value is not one "$field"'
    encoding = tag.get_attr("encoding", "none")
    if encoding != "none":
        return f'over a {tag.tag} with encoding="{encoding}"'
    is_url = str(tag.get_attr("valueType", "text")).lower() == "url"
    return TextField(tag.name, variable.group(1), is_url=is_url)


def _headers(root: ElementTree.Element) -> Iterable[str]:
    """Yield the texts of the Header tags in order; one with a task's data in it says nothing."""
    for element in root.iter():
        if str(element.tag).lower() == "header":
            text = " ".join((element.get("value") or element.text or "").split())
            if text and not _VARIABLE.search(text):
                yield text


def _look_up(data: Mapping[str, Any], key: str) -> Any:
    """Return what `$key` means to Label Studio: a key as it stands, else a path into the data."""
    if key in data:
        return data[key]
    value: Any = data
    for part in filter(None, re.split(r"[.\[\]]+", key)):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _as_text(value: Any, key: str) -> str | Abstention:
    """Return a value as text that can be stored and sent, or why there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Abstention(AbstentionReason.NO_TEXT, f"the task has nothing under {key!r}")
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        return Abstention(AbstentionReason.NO_TEXT, f"{key!r} holds a {kind}, not a text")
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    if not text.strip():
        return Abstention(AbstentionReason.NO_TEXT, f"the text under {key!r} is empty")
    return text


def _region(question: Question, weak_label: WeakLabel) -> Region:
    tag = _TAG_BY_KIND[question.kind]
    value, confidence = tag.value(question, weak_label)
    name = f"{weak_label.example_id}:{question.name}"
    region: Region = {
        "id": hashlib.sha256(name.encode()).hexdigest()[:10],
        "from_name": question.name,
        "to_name": question.field.name,
        "type": tag.tag.lower(),
        "value": value,
        "score": confidence,
    }
    if weak_label.is_truncated:
        region["meta"] = {"text": [_CUT_NOTE]}
    return region
