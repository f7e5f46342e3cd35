"""Split a long text into overlapping windows, and merge the spans that were found in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.domain.labels import Span
from backend.llm.text_search import cuts_character

_MIN_SHARE = 0.7
"""A window ends at the best break in the rest of what fits."""
_OVERLAP = (0.2, 0.1)
"""How much of a window the next one repeats at most, and at least."""
_BREAKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n\s*\n\s*|[\x0b\x0c\u2029]\s*",
        r"\n\s*",
        r"[.!?\u2026][\"'\u2019\u201d\u00bb)\]]*\s+|[\u3002\uff01\uff1f\u0964]\s*",
        r"\s+",
    )
)
"""Where a text may be cut, the best places first: paragraphs, lines, sentences, blanks."""

LongestPrefix = Callable[[str], int]
"""Returns how many characters of a text fit into one prompt."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text: characters `start` to `end` (exclusive)."""

    start: int
    end: int


def split_text(text: str, longest_prefix: LongestPrefix) -> list[Window]:
    """Return windows that cover a text, each with the end of the one before it.

    Cost: one call of `longest_prefix` per window.
    """
    windows: list[Window] = []
    start = 0
    while True:
        n_fit = max(1, longest_prefix(text[start:]))
        if start + n_fit >= len(text):
            return [*windows, Window(start, len(text))]
        end = _last_break(text, start + math.ceil(_MIN_SHARE * n_fit), start + n_fit)
        if n_shown := len(text[start:end].rstrip()):
            windows.append(Window(start, start + n_shown))
        most, least = (math.ceil(share * (end - start)) for share in _OVERLAP)
        start = max(start + 1, _first_break(text, end - most, end - least))


def halve(text: str, window: Window) -> list[Window]:
    """Return two overlapping windows in the place of one."""
    piece = text[window.start : window.end]
    n_fit = math.ceil(len(piece) * 0.65)
    halves = split_text(piece, lambda rest: min(len(rest), n_fit))
    return [Window(window.start + half.start, window.start + half.end) for half in halves]


def merge_spans(text: str, found: Sequence[tuple[Window, Sequence[Span]]]) -> tuple[Span, ...]:
    """Return the spans of all windows once each, from left to right.

    Where windows disagree about a piece, the one that shows more of what is around it is right:
    a span that its window's edge may have cut loses to the whole one from the next.

    Args:
        found: spans with their places in the whole text, by window.
    """
    depths: dict[tuple[int, int, str], float] = {}
    spans: dict[tuple[int, int, str], Span] = {}
    windows: dict[tuple[int, int, str], set[Window]] = {}
    for window, in_window in found:
        for span in in_window:
            key = (span.start, span.end, span.label)
            before = span.start - window.start if window.start > 0 else math.inf
            after = window.end - span.end if window.end < len(text) else math.inf
            if min(before, after) >= depths.get(key, -1):
                depths[key], spans[key] = min(before, after), span
            windows.setdefault(key, set()).add(window)
    keys = sorted(spans)
    dropped = set()
    for at, key in enumerate(keys):
        for other in keys[at + 1 :]:
            if other[0] >= key[1]:
                break
            worse, better = sorted((key, other), key=lambda each: (depths[each], each[1] - each[0]))
            are_alike = key[2] == other[2] or depths[worse] == 0
            if are_alike and windows[key].isdisjoint(windows[other]):
                dropped.add(worse)
    return tuple(spans[key] for key in keys if key not in dropped)


def _last_break(text: str, low: int, high: int) -> int:
    """Return the last of the best places between two positions where a text may be cut."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    while cuts_character(text, high) and high > low + 1:
        high -= 1
    return high


def _first_break(text: str, low: int, high: int) -> int:
    for pattern in _BREAKS:
        match = pattern.search(text, low, high)
        if match:
            return match.end()
    while cuts_character(text, low) and low < high - 1:
        low += 1
    return low
