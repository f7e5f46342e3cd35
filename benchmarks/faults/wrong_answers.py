"""Spoil answers that come with status 200: empty, cut off, a page, or about something else."""

from __future__ import annotations

import json
from typing import Any, Literal

WrongAnswer = Literal["empty", "truncated", "html", "foreign"]
_PAGE = b"<!doctype html><html><body><h1>Sign in</h1></body></html>"


def spoiled(kind: WrongAnswer, content: bytes) -> bytes:
    """Return what a broken proxy or another server would answer in place of this content."""
    if kind == "empty":
        return b"{}"
    if kind == "html":
        return _PAGE
    if kind == "truncated":
        return content[: len(content) // 2]
    return json.dumps(_foreign(json.loads(content or b"null"))).encode()


def _foreign(value: Any) -> Any:
    """Return JSON of another project with the next number, or of a list with one more prompt."""
    if isinstance(value, list):
        return [_foreign(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _foreign(item) for key, item in value.items()}
    if isinstance(value.get("choices"), list):
        found["choices"] = [*value["choices"], *value["choices"][:1]]
    if isinstance(value.get("project"), int):
        found["project"] = value["project"] + 1
    if "label_config" in value and isinstance(value.get("id"), int):
        found["id"] = value["id"] + 1
    return found
