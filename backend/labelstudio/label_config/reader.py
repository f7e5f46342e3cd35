"""Read label configs into questions; parsing and validation are label-studio-sdk's own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from backend.domain.labels import Abstention, Example
from backend.domain.projects import Prediction, Task
from backend.domain.questions import TaskSchema
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config.markup import parse_markup, unreadable
from backend.labelstudio.label_config.results import as_validated, read_answers, write_prediction
from backend.labelstudio.label_config.schema import SchemaReader
from backend.labelstudio.label_config.tags import control_tags
from backend.labelstudio.label_config.task_labels import task_labels
from backend.labelstudio.label_config.texts import FetchText, read_text


class LabelConfigReader:
    """The `ConfigReader` port for Label Studio. Safe to share between threads.

    `fetch_text` is called for texts that a config declares as URLs, and for nothing else. `skip`
    names controls that are left to people in every project.
    """

    def __init__(self, fetch_text: FetchText, *, skip: Iterable[str] = ()) -> None:
        self._fetch_text = fetch_text
        self._skip = frozenset(skip)

    def read_schema(self, label_config: str) -> TaskSchema:
        """Return what the config asks; raises UnsupportedLabelConfig."""
        return _parse(label_config, self._skip)[0]

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
        options = {
            question.name: task_labels(question, task.data)
            for question in schema.questions
            if question.kind.is_from_task
        }
        return Example(task.id, texts, missing, options=options)

    write_prediction = staticmethod(write_prediction)
    read_answers = staticmethod(read_answers)

    def errors(self, label_config: str, prediction: Prediction) -> list[str]:
        """Return what is wrong with a prediction under this config; empty when it fits.

        Label Studio drops predictions silently for just these reasons when they are imported.
        """
        try:
            schema, interface = _parse(label_config, self._skip)
        except UnsupportedLabelConfig as exc:
            return [str(exc)]
        result = [as_validated(schema, region) for region in prediction.result]
        content = {"result": result, "score": prediction.score}
        return [str(error) for error in interface.validate_prediction(content, return_errors=True)]


def _parse(label_config: str, skip: frozenset[str]) -> tuple[TaskSchema, Any]:
    if not isinstance(label_config, str):
        raise unreadable(f"it is a {type(label_config).__name__}, not a text")
    return _parse_text(label_config, skip)


@lru_cache(maxsize=16)
def _parse_text(label_config: str, skip: frozenset[str]) -> tuple[TaskSchema, Any]:
    """Return what a valid config asks, and the SDK's view of it, only read from: threads share it.

    Comments never reach the SDK.
    """
    markup = parse_markup(label_config, skip)
    interface = _validated(markup.root)
    schema = SchemaReader(markup, interface).read()
    if not schema.questions:
        found = ", ".join(schema.unsupported[:10]) or "no control tag"
        supported = ", ".join(tag.name for tag in control_tags().values())
        raise UnsupportedLabelConfig(
            f"the label config asks nothing that this backend can label (found: {found}); it "
            f"labels {supported} over texts: add one, or see docs/label-configs.md"
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
        raise unreadable(str(exc)) from exc
    return interface
