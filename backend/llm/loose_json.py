"""Read JSON out of what an LLM wrote around it, and out of JSON that is not quite right."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

_MAX_BLOCKS = 400
_MAX_REPAIRS = 60
_MAX_PASSES = 16
_MAX_DEPTH = 200
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
    block that breaks off, what is whole within it is kept. Cost: linear; after as much reading as
    the text is long `_MAX_PASSES` times, the rest is left.
    """
    at, n_left = 0, _MAX_PASSES * len(text)
    for _ in range(_MAX_BLOCKS):
        starts = [start for start in (text.find("{", at), text.find("[", at)) if start >= 0]
        if not starts:
            return
        at = min(starts)
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, at, is_whole, n_read = _repaired(text, at)
            n_left -= n_read
        else:
            is_whole = True
        if value is not None:
            yield value, is_whole
        if n_left < 0:
            return


def _repaired(text: str, start: int) -> tuple[Any, int, bool, int]:
    """Return a block's value or None, where to read on, whether it is whole, and what was read."""
    tokens: list[str] = []
    closers: list[str] = []
    points: deque[int] = deque(maxlen=_MAX_REPAIRS)
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
            if len(closers) > _MAX_DEPTH:
                return None, start + 1, False, at - start
        elif kind == "single":
            token = json.dumps(token[1:-1].replace("\\'", "'"), ensure_ascii=False)
        elif kind == "double":
            token = _WRONG_ESCAPE.sub(_escaped, token)
        if kind is None:
            continue
        tokens.append(token)
        if kind in ("single", "double") or token in ("]", "}"):
            points.append(len(tokens))
        if not closers:
            value = _value("".join(tokens))
            is_whole = value is not None
            return value, at if is_whole else start + 1, is_whole, at - start
    for n_tokens in reversed(points):
        value = _value("".join(tokens[:n_tokens]) + _ending(tokens[:n_tokens]))
        if value is not None:
            return value, len(text), False, at - start
    return None, start + 1, False, at - start


def _ending(tokens: Sequence[str]) -> str:
    """Return what closes the objects and lists that are open after the tokens."""
    closers: list[str] = []
    for token in tokens:
        if token in _CLOSING:
            closers.append(_CLOSING[token])
        elif token in ("]", "}"):
            closers.pop()
    return "".join(reversed(closers))


def _escaped(match: re.Match[str]) -> str:
    return match.group() if match.group("wrong") is None else f"\\\\{match.group('wrong')}"


def _value(block: str) -> Any:
    try:
        return _DECODER.decode(block)
    except (ValueError, RecursionError):
        return None
