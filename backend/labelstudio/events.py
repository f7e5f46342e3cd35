"""Read the JSON of Label Studio's webhooks and listings into this project's values."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from html import unescape
from typing import Any, TypeVar

from backend.domain.labels import HumanLabel
from backend.domain.projects import (
    MAX_NESTING,
    Event,
    ProjectInfo,
    Task,
    is_nested_deeper,
    is_row_id,
    parse_project_id,
)
from backend.errors import InvalidRequest

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_MAX_INSTRUCTION = 20_000  # characters; far more than a prompt has room for
_FIRST_YEAR = 1970
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_BLOCK_END = re.compile(r"(?i)<\s*(br|/p|/div|/li|/ul|/ol|/tr|/h[1-6])\b[^<>]*>")
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-zA-Z][^<>]*>", re.DOTALL)


_ANNOTATED = {"tasks": "task", "annotations": "annotation"}
# The payload's key of what each action is about.
_ACTIONS: dict[str, dict[str, str]] = {
    "PROJECT_UPDATED": {},
    "START_TRAINING": {},
    "TASKS_CREATED": {"tasks": "tasks"},
    "TASKS_DELETED": {"deleted tasks": "tasks"},
    "ANNOTATION_CREATED": _ANNOTATED,
    "ANNOTATION_UPDATED": _ANNOTATED,
    "ANNOTATIONS_CREATED": _ANNOTATED,  # from predictions: the same keys with lists under them
    "ANNOTATIONS_DELETED": {"deleted annotations": "annotations"},
}


def read_event(payload: object) -> Event:
    """Return the event in a webhook's body; raises InvalidRequest where it has another shape.

    A webhook can be set to send no payload, and an unknown action has no known one: then the event
    is empty but for its action.
    """
    body = _object(payload, "the webhook's body")
    action = body.get("action")
    if not isinstance(action, str) or not action:
        raise InvalidRequest("the webhook has no 'action'; Label Studio always sends one")
    keys = _ACTIONS.get(action)
    if keys is None:
        return Event(action)
    project = body.get("project")
    tasks = {task.id: task for task in _each(body, keys.get("tasks"), read_task)}
    return Event(
        action,
        project=None if project is None else read_project(_object(project, "'project'")),
        tasks=tuple(tasks.values()),
        annotations=_each(body, keys.get("annotations"), read_annotation),
        deleted_annotation_ids=_each(body, keys.get("deleted annotations"), _id),
        deleted_task_ids=_each(body, keys.get("deleted tasks"), _id),
    )


def read_project(project: Mapping[str, Any]) -> ProjectInfo:
    """Return a project as the API and the webhooks describe it.

    `n_annotations` is the number in a full listing: `total_annotations_number` (not cancelled, with
    ground truth) plus `skipped_annotations_number` (cancelled).
    """
    created_at = _time(project.get("created_at"), "the project's 'created_at'")
    kept, skipped = _count(project, "total_annotations"), _count(project, "skipped_annotations")
    return ProjectInfo(
        id=parse_project_id(f"{_id(project)}.{int(created_at.timestamp())}"),
        label_config=_text(project, "label_config"),
        title=_text(project, "title"),
        instruction=plain_text(_text(project, "expert_instruction")),
        model_version=_text(project, "model_version") or None,
        sampling=_text(project, "sampling") or None,
        n_tasks=_count(project, "task"),
        n_annotations=None if kept is None or skipped is None else kept + skipped,
        n_predictions=_count(project, "total_predictions"),
    )


def read_task(task: object) -> Task:
    """Return a task without annotations and predictions, which webhooks leave out."""
    read = _object(task, "a task")
    return Task(id=_id(read), data=_flat(_object(read.get("data"), "a task's 'data'")))


def read_annotation(value: object) -> HumanLabel:
    """Return an annotation as the API and the webhooks describe it.

    "Create annotations from predictions" names the prediction and leaves the lead time empty. A
    person who accepts or corrects a prediction in the editor sends a lead time with it.
    """
    annotation = _object(value, "an annotation")
    result = annotation.get("result") or []
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        raise InvalidRequest("an annotation's 'result' is not a list of regions")
    annotator = annotation.get("completed_by")
    annotator = annotator.get("id") if isinstance(annotator, dict) else annotator
    changed_at = annotation.get("updated_at") or annotation.get("created_at")
    return HumanLabel(
        annotation_id=_id(annotation),
        task_id=_id(annotation, "task"),
        annotator_id=annotator if is_row_id(annotator) else None,
        result=tuple(_flat(result)),
        was_cancelled=bool(annotation.get("was_cancelled")),
        is_ground_truth=bool(annotation.get("ground_truth")),
        updated_at=_time(changed_at, "an annotation's 'updated_at'"),
        is_copied=annotation.get("parent_prediction") is not None
        and annotation.get("lead_time") is None,
    )


def _each(
    body: Mapping[str, Any], key: str | None, read: Callable[[Mapping[str, Any]], _T]
) -> tuple[_T, ...]:
    """Read the object under a key, or each of a list of them.

    One that cannot be read is left out; raises InvalidRequest where none can.
    """
    items = body.get(key) if key else None
    if items is None:
        return ()
    listed: list[Any] = items if isinstance(items, list) else [items]
    read_items: list[_T] = []
    for item in listed:
        try:
            read_items.append(read(_object(item, f"an element of {key!r}")))
        except InvalidRequest as exc:
            if len(listed) == 1:
                raise
            _LOG.warning("one of %d %s is left out: %s", len(listed), key, exc)
    return tuple(read_items)


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{what} is {type(value).__name__}, expected a JSON object")
    return value


def _id(item: Mapping[str, Any], key: str = "id") -> int:
    value = item.get(key)
    if not isinstance(value, int) or not is_row_id(value):
        raise InvalidRequest(f"{key!r} is {type(value).__name__}, expected a positive number")
    return value


def _flat(value: _T) -> _T:
    """Return a value that is not nested too deep to be written down again."""
    if is_nested_deeper(value):
        raise InvalidRequest(f"data are nested deeper than {MAX_NESTING} lists and objects")
    return value


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"the project's {key!r} is {type(value).__name__}, expected a text")
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


def _count(project: Mapping[str, Any], name: str) -> int | None:
    value = project.get(f"{name}_number")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: object, what: str) -> datetime:
    """Return a time in UTC, as Label Studio's own times are."""
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise InvalidRequest(f"{what} is not a time as ISO 8601 writes it") from exc
    if time.year < _FIRST_YEAR:
        raise InvalidRequest(f"{what} is before {_FIRST_YEAR}, and Label Studio is younger")
    return time


def plain_text(html: str) -> str:
    """Return the text of an instruction, which Label Studio keeps as HTML; one line a block."""
    text = unescape(_MARKUP.sub("", _BLOCK_END.sub("\n", html[:_MAX_INSTRUCTION])))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
