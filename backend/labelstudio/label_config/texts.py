"""Object tags: which texts a config shows, and how each is read from a task's data."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.questions import TextField, TextFormat
from backend.labelstudio.label_config.dialogue import Dialogue, read_dialogue
from backend.labelstudio.label_config.html import VisibleText, read_html

VARIABLE = re.compile(r"\$(\w[\w.\[\]]*)")
_FORMATS = {
    "text": TextFormat.PLAIN,
    "hypertext": TextFormat.HTML,
    "paragraphs": TextFormat.DIALOGUE,
}

FetchText = Callable[[str], str | Abstention]
"""Gets the text behind a URL, or says why it is not read."""


def read_field(tag: Any) -> TextField | str:
    """Return the text that an object tag of the SDK shows, or why it is none that can be read."""
    kind = _FORMATS.get(tag.tag.lower())
    if kind is None:
        return f"over {tag.tag}"
    variable = VARIABLE.fullmatch(tag.value or "")
    if variable is None:
        return f'over a {tag.tag} whose value is not one "$field"'
    encoding = tag.get_attr("encoding", "none")
    if encoding != "none":
        return f'over a {tag.tag} with encoding="{encoding}"'
    is_url = str(tag.get_attr("valueType", "text")).lower() == "url"
    if is_url and kind is TextFormat.DIALOGUE:
        return f'over a {tag.tag} with valueType="url"'
    keys = (str(tag.get_attr("nameKey", "author")), str(tag.get_attr("textKey", "text")))
    return TextField(tag.name, variable.group(1), is_url=is_url, format=kind, turn_keys=keys)


def why_no_spans(tag: Any) -> str | None:
    """Return why places in this object tag's text cannot be told exactly; None when they can."""
    if str(tag.get_attr("contextScroll", "false")).lower() == "true":
        return f'over a {tag.tag} with contextScroll="true", which sorts the turns'
    if tag.tag.lower() == "hypertext":
        if str(tag.get_attr("inline", "false")).lower() == "true":
            return f'over a {tag.tag} with inline="true"'
        if str(tag.get_attr("valueType", "text")).lower() == "url":
            return f'over a {tag.tag} with valueType="url"'
    return None


def read_text(field: TextField, data: Mapping[str, Any], fetch: FetchText) -> str | Abstention:
    """Return a task's text as an annotator reads it, or why there is none."""
    value = look_up(data, field.key)
    if field.format is TextFormat.DIALOGUE:
        dialogue = read_dialogue(value, field.turn_keys)
        return dialogue.text if dialogue else _no_dialogue(value, field)
    text = _as_text(value, field.key)
    if field.is_url and isinstance(text, str):
        fetched = fetch(text.strip())
        text = fetched if isinstance(fetched, Abstention) else _as_text(fetched, field.key)
    if field.format is TextFormat.HTML and isinstance(text, str):
        return _as_text(read_html(text).text, field.key)
    return text


def read_layout(field: TextField, data: Mapping[str, Any]) -> str | VisibleText | Dialogue | None:
    """Return a text with the places of its characters; None when the data do not hold it.

    Of a plain text that is the text itself: Label Studio counts its characters one by one.
    """
    if field.is_url:
        return None
    value = look_up(data, field.key)
    if field.format is TextFormat.DIALOGUE:
        return read_dialogue(value, field.turn_keys)
    text = _as_text(value, field.key)
    if isinstance(text, Abstention):
        return None
    return read_html(text) if field.format is TextFormat.HTML else text


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


def _no_dialogue(value: Any, field: TextField) -> Abstention:
    if value is None:
        return Abstention(AbstentionReason.NO_TEXT, f"the task has nothing under {field.key!r}")
    keys = " and ".join(repr(key) for key in field.turn_keys)
    why = f"{field.key!r} holds no list of turns, each with {keys}, in which something is said"
    return Abstention(AbstentionReason.NO_TEXT, why)
