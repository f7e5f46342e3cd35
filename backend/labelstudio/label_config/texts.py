"""Read object tags: which texts a config shows, and how each is read from a task's data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.projects import Task
from backend.domain.questions import TextField, TextFormat
from backend.labelstudio.label_config.offsets import (
    DialogueText,
    HtmlText,
    PlainText,
    read_dialogue,
    read_html,
)
from backend.labelstudio.label_config.tags import UnsupportedTag

VARIABLE = re.compile(r"\$(\w[\w.\[\]]*)")
_FORMATS = {
    "text": TextFormat.PLAIN,
    "hypertext": TextFormat.HTML,
    "paragraphs": TextFormat.DIALOGUE,
}

FetchText = Callable[[str, int], str | Abstention]
"""Gets the text behind a link of a task with this number, or says why it is not read."""
SpanText = PlainText | HtmlText | DialogueText


def read_field(tag: Any) -> TextField:
    """Return the text that an object tag of the SDK shows; raises UnsupportedTag."""
    text_format = _FORMATS.get(tag.tag.lower())
    if text_format is None:
        raise UnsupportedTag(f"over {tag.tag}")
    variable = VARIABLE.fullmatch(tag.value or "")
    if variable is None:
        raise UnsupportedTag(f'over a {tag.tag} whose value is not one "$field"')
    encoding = tag.get_attr("encoding", "none")
    if encoding != "none":
        raise UnsupportedTag(f'over a {tag.tag} with encoding="{encoding}"')
    is_url = _attribute(tag, "valueType") == "url"
    if is_url and text_format is TextFormat.DIALOGUE:
        raise UnsupportedTag(f'over a {tag.tag} with valueType="url"')
    keys = (str(tag.get_attr("nameKey", "author")), str(tag.get_attr("textKey", "text")))
    return TextField(tag.name, variable.group(1), is_url=is_url, format=text_format, turn_keys=keys)


def check_offsets(tag: Any) -> None:
    """Raise UnsupportedTag where offsets in this object tag's text cannot be told exactly."""
    if _attribute(tag, "contextScroll") == "true":
        raise UnsupportedTag(f'over a {tag.tag} with contextScroll="true", which sorts the turns')
    if tag.tag.lower() == "hypertext":
        if _attribute(tag, "inline") == "true":
            raise UnsupportedTag(f'over a {tag.tag} with inline="true"')
        if _attribute(tag, "valueType") == "url":
            raise UnsupportedTag(f'over a {tag.tag} with valueType="url"')


def _attribute(tag: Any, name: str) -> str:
    return str(tag.get_attr(name, "")).lower()


def read_text(field: TextField, task: Task, fetch: FetchText) -> str | Abstention:
    """Return a task's text as an annotator reads it, or why there is none."""
    value = look_up(task.data, field.key)
    if field.format is TextFormat.DIALOGUE:
        dialogue = read_dialogue(value, field.turn_keys)
        if dialogue is not None:
            return dialogue.text
        keys = " and ".join(repr(key) for key in field.turn_keys)
        why = f"{field.key!r} holds no list of turns, each with {keys}, in which something is said"
        if value is None:
            why = f"the task has nothing under {field.key!r}"
        return Abstention(AbstentionReason.NO_TEXT, why)
    text = _as_text(value, field.key)
    if field.is_url and isinstance(text, str):
        fetched = fetch(text.strip(), task.id)
        text = fetched if isinstance(fetched, Abstention) else _as_text(fetched, field.key)
    if field.format is TextFormat.HTML and isinstance(text, str):
        return _as_text(read_html(text).text, field.key)
    return text


def read_span_text(field: TextField, data: Mapping[str, Any]) -> SpanText | None:
    """Return a text with the offsets of its characters; None where these cannot be told.

    A plain text that the data do not hold is one without its characters: its spans count alike.
    """
    value = None if field.is_url else look_up(data, field.key)
    if field.format is TextFormat.DIALOGUE:
        return read_dialogue(value, field.turn_keys)
    shown = _as_text(value, field.key)
    text = None if isinstance(shown, Abstention) else shown
    if field.format is TextFormat.PLAIN:
        return PlainText(text)
    html = None if text is None else read_html(text)
    return html if html is not None and html.is_exact else None


def look_up(data: Mapping[str, Any], key: str) -> Any:
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
