"""Separate a reasoning model's thoughts from its answer, in each form that servers give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

THINKING = "thinking"
"""The finish reason of an answer whose thoughts reached the limit before it began."""

_TAG = r"(?:think|thinking|thoughts?|reasoning|reflection)"
_OPENING = re.compile(
    rf"\s*(?:<{_TAG}>|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)|analysis(?=[A-Z]))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>|assistantfinal(?=\S)",
    re.IGNORECASE,
)
_ALOUD = re.compile(
    r"\s*(?:okay|ok|alright|hmm|well|so|first|let'?s|let me|we|i|the user|the question)\b",
    re.IGNORECASE,
)
"""How thoughts begin where the prompt had their opening tag, and the limit cut the closing one."""
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "output_text")
_MAX_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A choice's text without thoughts.

    `has_thoughts`: it came with thoughts. `is_unfinished`: it consists of thoughts alone.
    """

    text: str
    has_thoughts: bool = False
    is_unfinished: bool = False


def read_answer(choice: Mapping[str, Any]) -> Answer | None:
    """Return a choice's answer, from either route; an empty message is an empty text.

    Thoughts stand in a field or parts of their own, or in the text: between tags, or before a
    closing tag whose opening one was part of the prompt. Of a longer answer the first
    `_MAX_CHARS` characters are read.
    """
    message = choice.get("message")
    text = choice.get("text")
    has_thoughts = False
    if isinstance(message, dict):
        text = _joined(message.get("content"))
        has_thoughts = any(_is_filled(message.get(name)) for name in _THOUGHT_FIELDS)
    if not isinstance(text, str):
        return None
    *_, end = (0, *(match.end() for match in _CLOSING.finditer(text)))
    if end:
        return Answer(text[end:].lstrip()[:_MAX_CHARS], has_thoughts=True)
    if _OPENING.match(text):
        return Answer("", has_thoughts=True, is_unfinished=True)
    text = text[:_MAX_CHARS]
    return Answer(text, has_thoughts, is_unfinished=has_thoughts and not text.strip())


def shows_thinking(payload: Mapping[str, Any]) -> bool:
    """Return whether a response to a yes-or-no question shows that the model thought first."""
    first = first_choice(payload)
    answer = read_answer(first)
    usage = payload.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    n_hidden = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if answer is None or n_hidden or answer.has_thoughts:
        return answer is not None
    is_eaten = first.get("finish_reason") == "length"
    return is_eaten and (not answer.text or _ALOUD.match(answer.text) is not None)


def first_choice(payload: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the first choice of a response, an empty one if there is none."""
    choices = (payload or {}).get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _joined(content: object) -> object:
    """Return a message's content as one text; it may come as a list of parts, or be null."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    texts = [
        part.get("text")
        for part in parts
        if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _is_filled(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, Sequence | Mapping) and len(value) > 0
