"""Read label configs into questions; parsing and validation are label-studio-sdk's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from backend.domain.labels import Abstention, Example
from backend.domain.projects import Prediction, Task
from backend.domain.questions import Question, TaskSchema, TextField
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config.results import (
    read_answers,
    with_flat_choices,
    write_prediction,
)
from backend.labelstudio.label_config.tags import ControlElement, UnsupportedTag, control_tags
from backend.labelstudio.label_config.texts import VARIABLE, FetchText, read_field, read_text


class LabelConfigReader:
    """The `ConfigReader` port for Label Studio. Safe to share between threads.

    `fetch_text` is called for texts that a config declares as URLs, and for nothing else.
    """

    def __init__(self, fetch_text: FetchText) -> None:
        self._fetch_text = fetch_text

    def read_schema(self, label_config: str) -> TaskSchema:
        """Return what the config asks; raises UnsupportedLabelConfig."""
        return _parse(label_config)[0]

    def read_example(self, schema: TaskSchema, task: Task) -> Example:
        """Return the texts of a task; fields without a usable text are explained in `missing`."""
        texts: dict[str, str] = {}
        missing: dict[str, Abstention] = {}
        for field in dict.fromkeys(f for question in schema.questions for f in question.fields):
            text = read_text(field, task, self._fetch_text)
            if isinstance(text, Abstention):
                missing[field.name] = text
            else:
                texts[field.name] = text
        return Example(task.id, texts, missing)

    write_prediction = staticmethod(write_prediction)
    read_answers = staticmethod(read_answers)

    def errors(self, label_config: str, prediction: Prediction) -> list[str]:
        """Return what is wrong with a prediction under this config; empty when it fits.

        Label Studio drops predictions silently for just these reasons when they are imported.
        """
        try:
            schema, interface = _parse(label_config)
        except UnsupportedLabelConfig as exc:
            return [str(exc)]
        result = [with_flat_choices(schema, region) for region in prediction.result]
        content = {"result": result, "score": prediction.score}
        return list(interface.validate_prediction(content, return_errors=True))


def _parse(label_config: str) -> tuple[TaskSchema, Any]:
    if not isinstance(label_config, str):
        raise _unreadable(f"it is a {type(label_config).__name__}, not a text")
    return _parse_text(label_config)


@lru_cache(maxsize=64)
def _parse_text(label_config: str) -> tuple[TaskSchema, Any]:
    """Return what a valid config asks, and the SDK's view of it, only read from: threads share it.

    A document type declaration is refused before any parser sees it: without one, XML has no
    entities that could expand ("billion laughs") or be fetched. Comments never reach the SDK.
    """
    if "<!DOCTYPE" in label_config:
        raise _unreadable("it has a document type declaration, which is not allowed")
    try:
        root = ElementTree.fromstring(label_config)  # noqa: S314
    except (ElementTree.ParseError, RecursionError, ValueError) as exc:
        raise _unreadable(str(exc)) from exc
    interface = _validated(root)
    schema = _read_schema(root, interface)
    if not schema.questions:
        found = ", ".join(schema.unsupported[:10]) or "no control tag"
        supported = ", ".join(tag.name for tag in control_tags().values())
        raise UnsupportedLabelConfig(
            f"the label config asks nothing that this backend can label (found: {found}); it "
            f"labels {supported} over Text, HyperText or Paragraphs: add one, or see "
            "docs/label-configs.md"
        )
    return schema, interface


def _validated(root: ElementTree.Element) -> Any:
    """Return the SDK's view of a config; loaded at the first one (0.3 s, 30 MB)."""
    from label_studio_sdk._legacy import exceptions as sdk
    from label_studio_sdk.label_interface.interface import LabelInterface

    try:
        interface: Any = LabelInterface(ElementTree.tostring(root, encoding="unicode"))
        interface.validate()
    except (
        sdk.LabelStudioValidationErrorSentryIgnored,
        sdk.LabelStudioXMLSyntaxErrorSentryIgnored,
        sdk.LSConfigParseException,
        # what the SDK's parser lets through when a config is not what it expects
        RecursionError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ) as exc:
        raise _unreadable(str(exc)) from exc
    return interface


def _unreadable(why: str) -> UnsupportedLabelConfig:
    detail = " ".join(why.split())[:300] or "it is empty"
    return UnsupportedLabelConfig(
        f"the label config cannot be read: {detail}; correct it in the project's labeling "
        "interface settings, or see docs/label-configs.md"
    )


def _read_schema(root: ElementTree.Element, interface: Any) -> TaskSchema:
    elements = {element.get("name"): element for element in root.iter() if element.get("toName")}
    conditions = _conditions(root)
    objects = {tag.name: tag for tag in interface.objects}
    questions: list[Question] = []
    unsupported: list[str] = []
    for parsed in interface.controls:
        if parsed.name not in elements:  # a tag that is object and control in one, such as Chat
            unsupported.append(f'{parsed.tag} "{parsed.name}"')
            continue
        element = elements[parsed.name]
        control = ControlElement(parsed, element, conditions.get(element))
        try:
            questions.append(_read_question(control, objects))
        except UnsupportedTag as exc:
            unsupported.append(f"{control.title} ({exc})" if str(exc) else control.title)
    headers = []
    for element in root.iter():
        if str(element.tag).lower() == "header":
            text = " ".join((element.get("value") or element.text or "").split())
            if text and not VARIABLE.search(text):  # with a task's data in it, it says nothing
                headers.append(text)
    return TaskSchema(tuple(questions), tuple(headers), tuple(unsupported))


def _read_question(control: ControlElement, objects: Mapping[str, Any]) -> Question:
    """Return the question that a control tag asks; raises UnsupportedTag.

    Its texts are those of the object tags that it is about, then all others of the config.
    """
    tag = control_tags().get(control.parsed.tag.lower())
    if tag is None:
        raise UnsupportedTag
    _check_unconditional(control)
    targets: list[Any] = control.parsed.objects
    if len({target.name for target in targets}) != len(control.parsed.to_name):
        raise UnsupportedTag("over something that is not there")
    if len(targets) != tag.n_objects:
        raise UnsupportedTag("over several tags" if tag.n_objects == 1 else "not over two tags")
    fields: dict[str, TextField] = {}
    for target in targets:
        if target.tag.lower() not in map(str.lower, tag.over):
            raise UnsupportedTag(f"over {target.tag}")
        fields[target.name] = read_field(target)
    for name, other in objects.items():
        if name not in fields:
            try:
                fields[name] = read_field(other)
            except UnsupportedTag:
                continue
    return replace(tag.question(control), fields=tuple(fields.values()), tag=tag.name.lower())


def _check_unconditional(control: ControlElement) -> None:
    """Raise UnsupportedTag where a question is not asked once about every task."""
    for name in ("perRegion", "perItem", "visibleWhen"):
        value = control.attribute(name)
        if value is not None and value.lower() != "false":
            raise UnsupportedTag(f'{name}="{value}"')
    if control.condition is not None:
        raise UnsupportedTag(control.condition)
    if control.parsed.dynamic_value:
        value = control.attribute("apiUrl") or control.attribute("value")
        raise UnsupportedTag(f'value="{value}": it comes with each task')


def _conditions(root: ElementTree.Element) -> dict[ElementTree.Element, str]:
    """Return the innermost condition around each element that is within a conditional one."""
    conditions: dict[ElementTree.Element, str] = {}
    for outer in root.iter():
        for name, value in outer.attrib.items():
            if name.lower() == "visiblewhen":
                condition = f'inside a {outer.tag} with visibleWhen="{value}"'
                conditions |= {inner: condition for inner in outer.iter() if inner is not outer}
    return conditions
