"""Read object tags: which texts a config shows, and how each is read from a task's data."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
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
from backend.labelstudio.label_config.tags import VARIABLE, UnsupportedTag

_SPACED = re.compile(r"\$(\w[\w\s.\-\[\]]*)")
"""A value that may be one field with blanks in its name, or a field and a text."""
_INDEX = re.compile("[0-9]{1,9}")
_FORMATS = {
    "text": TextFormat.PLAIN,
    "markdown": TextFormat.PLAIN,
    "hypertext": TextFormat.HTML,
    "paragraphs": TextFormat.DIALOGUE,
    "chat": TextFormat.DIALOGUE,
    "table": TextFormat.TABLE,
    "list": TextFormat.LIST,
}
_WITH_TEMPLATE = (TextFormat.PLAIN, TextFormat.HTML)
_MESSAGE_KEYS = ("role", "content")

FetchText = Callable[[str, int], str | Abstention]
"""Gets the text behind a link of a task with this number, or says why it is not read."""
SpanText = PlainText | HtmlText | DialogueText


def is_text(tag: Any) -> bool:
    """Return whether an object tag of the SDK shows something that can be read as a text."""
    return tag.tag.lower() in _FORMATS


def read_field(tag: Any) -> TextField:
    """Return the text that an object tag of the SDK shows; raises UnsupportedTag."""
    text_format = _FORMATS.get(tag.tag.lower())
    if text_format is None:
        raise UnsupportedTag(f"over {tag.tag}")
    value = str(tag.value or "")
    key, template = read_value(value)
    if not VARIABLE.search(value):
        raise UnsupportedTag(f"over a {tag.tag} that says the same in every task")
    if template and text_format not in _WITH_TEMPLATE:
        raise UnsupportedTag(f'over a {tag.tag} whose value is not one "$field"')
    encoding = tag.get_attr("encoding", "none")
    if encoding != "none":
        raise UnsupportedTag(f'over a {tag.tag} with encoding="{encoding}"')
    is_url = "url" in re.split(r"\W+", _attribute(tag, "valueType"))
    if is_url and (text_format is TextFormat.DIALOGUE or template):
        raise UnsupportedTag(f'over a {tag.tag} with valueType="url"')
    keys = (str(tag.get_attr("nameKey", "author")), str(tag.get_attr("textKey", "text")))
    is_chat = tag.tag.lower() == "chat"
    keys = _MESSAGE_KEYS if is_chat else keys
    return TextField(tag.name, key, is_url, text_format, keys, template, is_chat)


def read_value(value: str) -> tuple[str, str]:
    """Return the key of a value's field, and the value itself where it is not that field alone.

    Blanks around a field do not show. "$my field" is a key with a blank in it where a task has
    such a key.
    """
    alone = VARIABLE.fullmatch(value.strip())
    if alone:
        return alone[1], ""
    whole = value.strip()
    if whole.startswith("$") and whole.count("$") == 1:
        return whole[1:], value
    return ", ".join(dict.fromkeys(VARIABLE.findall(value))), value


def check_offsets(tag: Any) -> None:
    """Raise UnsupportedTag where offsets in this object tag's text cannot be told exactly."""
    if _attribute(tag, "contextScroll") == "true":
        raise UnsupportedTag(f'over a {tag.tag} with contextScroll="true", which sorts the turns')
    value = str(tag.value or "")
    if value != value.lstrip() or not (
        VARIABLE.fullmatch(value.strip()) or _SPACED.fullmatch(value.strip())
    ):
        raise UnsupportedTag(f'over a {tag.tag} whose value is not one "$field"')
    if tag.tag.lower() == "hypertext":
        if _attribute(tag, "inline") == "true":
            raise UnsupportedTag(f'over a {tag.tag} with inline="true"')
        if _attribute(tag, "valueType") == "url":
            raise UnsupportedTag(f'over a {tag.tag} with valueType="url"')


def _attribute(tag: Any, name: str) -> str:
    return str(tag.get_attr(name, "")).lower()


def read_text(field: TextField, task: Task, fetch: FetchText) -> str | Abstention:
    """Return a task's text as an annotator reads it, or why there is none."""
    value = _value_of(field, task.data)
    text: str | Abstention
    if field.is_url and value is not None:
        text = _as_text(value, field.key)
        if isinstance(text, str):
            text = fetch(text.strip(), task.id)
        if isinstance(text, Abstention):
            return text
        value = text
    if field.format is TextFormat.DIALOGUE:
        return _dialogue_text(field, value)
    if field.format in (TextFormat.TABLE, TextFormat.LIST) and value is not None:
        rows = _table_lines(value) if field.format is TextFormat.TABLE else _list_lines(value)
        return _as_text("\n".join(rows), field.key) if rows else _no_text(field.key, value)
    text = _as_text(value, field.key)
    if field.format is TextFormat.HTML and isinstance(text, str):
        return _as_text(read_html(text).text, field.key)
    return text


def _dialogue_text(field: TextField, value: Any) -> str | Abstention:
    dialogue = read_dialogue(value, field.turn_keys)
    if dialogue is not None:
        return dialogue.text
    keys = " and ".join(repr(key) for key in field.turn_keys)
    why = f"{field.key!r} holds no list of turns, each with {keys}, in which something is said"
    if value is None:
        why = f"the task has nothing under {field.key!r}"
    return Abstention(AbstentionReason.NO_TEXT, why)


def _value_of(field: TextField, data: Mapping[str, Any]) -> Any:
    """Return the value under a field's key, or its template with the task's values filled in."""
    if field.template and not _is_one_field(field, data):
        return fill(field.template, data)
    return look_up(data, field.key)


def _is_one_field(field: TextField, data: Mapping[str, Any]) -> bool:
    """Return whether what follows the "$" is as a whole the key of a task's value."""
    return field.template.strip() == f"${field.key}" and field.key in data


def fill(template: str, data: Mapping[str, Any]) -> str | None:
    """Return a text with the task's values for its `$field`s; None where the task has none."""
    found = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal found
        text = _as_text(look_up(data, match[1]), match[1])
        found |= isinstance(text, str)
        return text if isinstance(text, str) else ""

    text = VARIABLE.sub(replaced, template)
    return text if found else None


def items_of(value: Any) -> list[tuple[str, str]]:
    """Return the id and the text of each item of a List."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    items = []
    for item in value:
        if isinstance(item, Mapping) and item.get("id") is not None:
            parts = [_cell(item.get(name)) for name in ("title", "body")]
            html = item.get("html")
            if isinstance(html, str):
                parts.append(" ".join(read_html(html).text.split()))
            items.append((str(item["id"]), ": ".join(part for part in parts if part)))
    return items


def _list_lines(value: Any) -> list[str]:
    return [text for _, text in items_of(value) if text]


def _table_lines(value: Any) -> list[str]:
    """Return a table as lines: a line per row, or "name: value" for one object's fields."""
    if isinstance(value, str):
        value = _parsed_table(value)
    if isinstance(value, Mapping):
        ordered = sorted(value, key=lambda name: str(name).lower())
        return [f"{name}: {_cell(value[name])}" for name in ordered]
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    if all(isinstance(row, Mapping) for row in value):
        columns = dict.fromkeys(str(name) for row in value for name in row)
        return [
            "; ".join(f"{name}: {_cell(row[name])}" for name in columns if name in row)
            for row in value
        ]
    return [_cell(row) for row in value]


def _parsed_table(text: str) -> Any:
    """Return what a table's text holds: JSON, or else lines of values with names above them."""
    try:
        return json.loads(text)
    except ValueError:
        return list(csv.DictReader(io.StringIO(text))) if "\n" in text.strip() else None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


def read_span_text(field: TextField, data: Mapping[str, Any]) -> SpanText | None:
    """Return a text with the offsets of its characters; None where these cannot be told.

    A plain text that the data do not hold is one without its characters: its spans count alike.
    """
    value = None if field.is_url else look_up(data, field.key)
    if field.template and not _is_one_field(field, data):
        return None
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
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _as_text(value: Any, key: str) -> str | Abstention:
    """Return a value as text that can be stored and sent, or why there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Abstention(AbstentionReason.NO_TEXT, f"the task has nothing under {key!r}")
    if not isinstance(value, str | int | float):
        return _no_text(key, value)
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    if not text.strip():
        return Abstention(AbstentionReason.NO_TEXT, f"the text under {key!r} is empty")
    return text


def _no_text(key: str, value: Any) -> Abstention:
    kind = type(value).__name__
    return Abstention(AbstentionReason.UNSUITABLE, f"{key!r} holds a {kind}, not a text")
