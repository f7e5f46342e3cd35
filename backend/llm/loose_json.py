"""Read JSON out of what an LLM wrote around it, and out of JSON that is not quite right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_MAX_BLOCKS = 400
_MAX_REPAIRS = 60
_CLOSING = {"{": "}", "[": "]"}
_TOKEN = re.compile(
    r"""(?P<double>"(?:[^"\\]|\\.)*")
    | (?P<single>'(?:[^'\\]|\\.|'(?!\s*[,:\]}]))*')  # an apostrophe ends no word
    | (?P<mark>[\[\]{}:,])
    | (?P<rest>[^\s\[\]{}:,"']+)
    | \s+""",
    re.DOTALL | re.VERBOSE,
)
_WRONG_ESCAPE = re.compile(r"""\\(?:\\|(?P<wrong>[^"/bfnrtu]))""", re.DOTALL)
_DECODER = json.JSONDecoder(strict=False)


def json_blocks(text: str) -> Iterator[tuple[Any, bool]]:
    """Yield the outermost objects and lists in a text, and whether each of them is whole.

    Forgiven are single quotes, commas too many, line ends and unknown escapes in strings. Of a
    block that breaks off, what is whole within it is kept. Cost: linear for what is well-formed.
    """
    at = 0
    for _ in range(_MAX_BLOCKS):
        starts = [start for start in (text.find("{", at), text.find("[", at)) if start >= 0]
        if not starts:
            return
        at = min(starts)
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, at, is_whole = _repaired(text, at)
        else:
            is_whole = True
        if value is not None:
            yield value, is_whole


def _repaired(text: str, start: int) -> tuple[Any, int, bool]:
    """Return a block's value (None if it has none), where to read on, and whether it is whole."""
    tokens: list[str] = []
    closers: list[str] = []
    points: list[tuple[int, str]] = []
    at = start
    while match := _TOKEN.match(text, at):
        at = match.end()
        token, kind = match.group(), match.lastgroup
        if token in ("]", "}"):
            if token != closers.pop():
                break
            if tokens[-1] == ",":
                tokens.pop()
        elif token in _CLOSING:
            closers.append(_CLOSING[token])
        elif kind == "single":
            token = json.dumps(token[1:-1].replace("\\'", "'"), ensure_ascii=False)
        elif kind == "double":
            token = _WRONG_ESCAPE.sub(_escaped, token)
        if kind is None:
            continue
        tokens.append(token)
        if kind in ("single", "double") or token in ("]", "}"):
            points.append((len(tokens), "".join(reversed(closers))))
        if not closers:
            value = _value("".join(tokens))
            return (value, start + 1, False) if value is None else (value, at, True)
    for n_tokens, ending in points[: -_MAX_REPAIRS - 1 : -1]:
        value = _value("".join(tokens[:n_tokens]) + ending)
        if value is not None:
            return value, len(text), False
    return None, start + 1, False


def _escaped(match: re.Match[str]) -> str:
    return match.group() if match.group("wrong") is None else f"\\\\{match.group('wrong')}"


def _value(block: str) -> Any:
    try:
        return _DECODER.decode(block)
    except (ValueError, RecursionError):
        return None
