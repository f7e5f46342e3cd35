"""Convert spans of a displayed text to the offsets that Label Studio stores, and back.

Label Studio counts a Text's characters from its beginning, those of a HyperText over all text nodes
(`globalOffsets`; it derives its XPaths from them), and those of Paragraphs within a turn.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

# Stands for an XPath: Label Studio then goes by the global offsets and finds the path itself.
_NO_PATH = ""
# fmt: off
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "hr", "html", "legend", "li", "main", "nav", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
))
_UNREAD = frozenset((
    "script", "style", "iframe", "noscript", "textarea", "option", "select", "title", "template",
    "svg", "math", "object", "noembed", "noframes", "xmp", "plaintext",
))
"""Their text is not read. In a body, all but scripts are counted in ways of Label Studio's own."""
_HEAD_TAGS = frozenset((
    "base", "basefont", "bgsound", "link", "meta", "noframes", "noscript", "script", "style",
    "template", "title",
))
"""Before a body they belong to the head, of which nothing is counted; others begin the body."""
# fmt: on
_CELLS = frozenset(("td", "th"))
_TABLES = frozenset(("table", "tbody", "thead", "tfoot", "tr", "colgroup"))
_SPACE = " \t\n\f\r"
_MAX_HTML = 1_000_000  # characters; what comes after them is not read
_MAX_UNFINISHED = (
    50  # tags that never end; the parser looks for the end of each in all that follows
)


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text whose characters are counted one by one; None where it is not at hand."""

    text: str | None

    def write_span(self, start: int, end: int) -> dict[str, Any] | None:
        """Return a span as a region's value; None when it does not lie in the text."""
        if self.text is None:
            return {"start": start, "end": end}
        if end > len(self.text):
            return None
        return {"start": start, "end": end, "text": self.text[start:end]}

    def read_span(self, value: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return a region's span; None when it does not lie in the text."""
        numbers = _integers(value, "start", "end")
        limit = math.inf if self.text is None else len(self.text)
        if numbers is None or not 0 <= numbers[0] < numbers[1] <= limit:
            return None
        return numbers[0], numbers[1]


@dataclass(frozen=True, slots=True)
class HtmlText:
    """A HyperText's visible text.

    `positions` holds, for each character of `text`, its place in what Label Studio counts: the
    characters of all text nodes, with one for each <br>. A separator that stands for a line's end
    or for several spaces has the place of the character before it. `is_exact` is False where a
    browser's document may differ from this one.
    """

    text: str
    positions: tuple[int, ...]
    is_exact: bool

    def write_span(self, start: int, end: int) -> dict[str, Any] | None:
        """Return a span as a region's value; None when nothing visible is in it."""
        text = self.text[start:end]
        while start < end and self._is_separator(start):
            start += 1
        if not 0 <= start < end <= len(self.text):
            return None
        first, last = self.positions[start], self.positions[end - 1] + 1
        return {
            "start": _NO_PATH,
            "end": _NO_PATH,
            "startOffset": first,
            "endOffset": last,
            "globalOffsets": {"start": first, "end": last},
            "text": text,
        }

    def read_span(self, value: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return a region's span; None without global offsets or when nothing visible is in it."""
        offsets = value.get("globalOffsets")
        numbers = _integers(offsets, "start", "end") if isinstance(offsets, Mapping) else None
        if numbers is None:
            return None
        first = bisect_left(self.positions, numbers[0])
        last = bisect_right(self.positions, numbers[1] - 1)
        while last > first and self._is_separator(last - 1):
            last -= 1
        return (first, last) if first < last else None

    def _is_separator(self, index: int) -> bool:
        return 0 < index < len(self.text) and self.positions[index] == self.positions[index - 1]


def read_html(html: str) -> HtmlText:
    """Return an HTML document's visible text: one line per block, spaces collapsed."""
    parser = _Parser()
    try:
        parser.feed(html[:_MAX_HTML].replace("\r\n", "\n").replace("\r", "\n"))
        parser.close()
    except (AssertionError, _TooBroken):
        # the first is the standard library's way with a broken "<![": the rest is not read
        parser.is_exact = False
    is_exact = parser.is_exact and "\0" not in html
    return HtmlText("".join(parser.chars), tuple(parser.positions), is_exact)


class _TooBroken(Exception):
    """A text has so many tags that never end that it is no HTML."""


class _Parser(HTMLParser):
    """Collects visible characters with their global offsets.

    A browser drops spaces before a document's body, so these are not counted.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._is_page = False
        self._n_unfinished = 0
        self._begin(is_in_body=False)

    def _begin(self, *, is_in_body: bool) -> None:
        """Begin with the document's body, or before it."""
        self.chars: list[str] = []
        self.positions: list[int] = []
        self.is_exact = True
        self._offset = 0
        self._gap = ""
        self._unread: list[str] = []
        self._n_unread: Counter[str] = Counter()
        self._parent = ""
        self._is_in_body = is_in_body

    def parse_starttag(self, i: int) -> int:
        """Return where a start tag ends, as `_bounded` says."""
        return self._bounded(super().parse_starttag(i))

    def parse_endtag(self, i: int) -> int:
        """Return where an end tag ends, as `_bounded` says."""
        return self._bounded(super().parse_endtag(i))

    def parse_comment(self, i: int, report: bool = True) -> int:
        """Return where a comment ends, as `_bounded` says."""
        return self._bounded(super().parse_comment(i, report))

    def parse_html_declaration(self, i: int) -> int:
        """Return where a declaration ends, as `_bounded` says."""
        return self._bounded(super().parse_html_declaration(i))

    def parse_pi(self, i: int) -> int:
        """Return where a processing instruction ends, as `_bounded` says."""
        return self._bounded(super().parse_pi(i))

    def _bounded(self, end: int) -> int:
        """Return the end of a piece of markup; raises _TooBroken at the sixth that has none."""
        self._n_unfinished += end < 0
        if self._n_unfinished > _MAX_UNFINISHED:
            raise _TooBroken
        return end

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            if not self._is_in_body:
                self._begin(is_in_body=True)
        elif tag in ("html", "head"):
            self._is_page = True
        elif tag in _UNREAD:
            is_in_head = self._is_page and not self._is_in_body and tag in _HEAD_TAGS
            self._is_in_body = self._is_in_body or tag not in _HEAD_TAGS
            self._unread.append(tag)
            self._n_unread[tag] += 1
            self.is_exact = self.is_exact and (is_in_head or tag == "script")
        elif self._unread or (not self._is_in_body and tag in _HEAD_TAGS):
            pass
        elif tag == "br":
            self._is_in_body = True
            self._offset += 1
            self._gap = "\n"
        else:
            self._is_in_body = True
            if self._parent in _TABLES and tag not in _TABLES | _CELLS:
                self.is_exact = False  # a browser moves such an element before the table
            self._separate(tag)
            self._parent = tag

    def handle_endtag(self, tag: str) -> None:
        if self._n_unread[tag]:
            closed = ""
            while closed != tag:
                closed = self._unread.pop()
                self._n_unread[closed] -= 1
        else:
            self._is_in_body = self._is_in_body or tag in ("body", "html", "br")
            self._separate(tag)
            is_inside = tag in _TABLES and tag != "table"
            self._parent = "tr" if tag in _CELLS else "table" if is_inside else ""

    def handle_data(self, data: str) -> None:
        if self._unread:
            return
        if not self._is_in_body:
            data = data.lstrip(_SPACE)
            self._is_in_body = bool(data)
        if self._parent in _TABLES and data.strip(_SPACE):
            self.is_exact = False  # a browser moves such text before the table
        if self._parent == "pre" and data.startswith("\n"):
            self.is_exact = False  # a browser drops a line's end right after <pre>
        for char in data:
            if char in _SPACE:
                self._gap = self._gap or " "
            else:
                if self._gap and self.chars:
                    self.chars.append(self._gap)
                    self.positions.append(self.positions[-1])
                self._gap = ""
                self.chars.append(char)
                self.positions.append(self._offset)
            self._offset += 1

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._gap = "\n"
        elif tag in _CELLS:
            self._gap = self._gap or " "


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn's text without its speaker; `start` is where it begins in the dialogue's text."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class DialogueText:
    """All turns as one text, "speaker: text" a line; a line's end within a turn is a space.

    Label Studio stores a turn's index, and offsets within the turn's text in UTF-16 units.
    """

    text: str
    turns: tuple[_Turn, ...]

    def write_span(self, start: int, end: int) -> dict[str, Any] | None:
        """Return a span as a region's value; None when it covers no turn's text."""
        pieces = [
            (index, max(start, turn.start) - turn.start, min(end, turn.end) - turn.start)
            for index, turn in enumerate(self.turns)
            if max(start, turn.start) < min(end, turn.end)
        ]
        if not pieces:
            return None
        (first, start_offset, _), (last, _, end_offset) = pieces[0], pieces[-1]
        return {
            "start": str(first),
            "end": str(last),
            "startOffset": _n_units(self.turns[first].text[:start_offset]),
            "endOffset": _n_units(self.turns[last].text[:end_offset]),
            "text": "\n".join(self.turns[index].text[begin:stop] for index, begin, stop in pieces),
        }

    def read_span(self, value: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return a region's span; None when it does not lie in this dialogue."""
        numbers = _integers(value, "start", "startOffset", "end", "endOffset")
        if numbers is None or not 0 <= numbers[0] <= numbers[2] < len(self.turns):
            return None
        first, last = self.turns[numbers[0]], self.turns[numbers[2]]
        start = first.start + _n_characters(first.text, numbers[1])
        end = last.start + _n_characters(last.text, numbers[3])
        return (start, end) if start < end else None


def read_dialogue(value: Any, keys: tuple[str, str]) -> DialogueText | None:
    """Return the dialogue in a list of turns; None when it is none or no turn has a text.

    `keys` are a turn's keys of the speaker and of the text.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    lines: list[str] = []
    turns: list[_Turn] = []
    position = 0
    for item in value:
        turn = item if isinstance(item, Mapping) else {}  # it keeps its number all the same
        speaker, text = (_as_line(turn.get(key)) for key in keys)
        prefix = f"{speaker}: " if speaker else ""
        turns.append(_Turn(position + len(prefix), text))
        lines.append(prefix + text)
        position += len(lines[-1]) + 1
    if not any(turn.text.strip() for turn in turns):
        return None
    return DialogueText("\n".join(lines), tuple(turns))


def _as_line(value: Any) -> str:
    """Return a value as one line of the same length, in characters that can be stored."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value != value:
        return ""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\n", " ").replace("\r", " ")


def _n_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _n_characters(text: str, n_units: int) -> int:
    return len(text.encode("utf-16-le")[: 2 * max(n_units, 0)].decode("utf-16-le", "ignore"))


def _integers(value: Mapping[str, Any], *keys: str) -> list[int] | None:
    """Return whole numbers, which can come as texts; None when one is missing."""
    try:
        return [int(value[key]) for key in keys]
    except (KeyError, TypeError, ValueError):
        return None
