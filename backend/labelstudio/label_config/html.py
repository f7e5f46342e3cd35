"""The visible text of an HTML document, and where Label Studio counts each of its characters."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from html.parser import HTMLParser

# fmt: off
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "hr", "html", "legend", "li", "main", "nav", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
))
_UNREAD = frozenset((
    "script", "style", "iframe", "noscript", "textarea", "option", "select", "title", "head",
    "template", "svg", "math", "object", "noembed", "noframes", "xmp", "plaintext",
))
"""Their text is not read. All but scripts are counted by Label Studio in ways of their own."""
# fmt: on
_CELLS = frozenset(("td", "th"))
_TABLES = frozenset(("table", "tbody", "thead", "tfoot", "tr", "colgroup"))
_SPACE = " \t\n\f\r"


@dataclass(frozen=True, slots=True)
class VisibleText:
    """What a person reads of an HTML document.

    `positions` holds, for each character of `text`, its place in what Label Studio counts: the
    characters of all text nodes, with one for each <br>. A separator that stands for a line's end
    or for several spaces has the place of the character before it. `is_exact` is False where a
    browser's document may differ from this one.
    """

    text: str
    positions: tuple[int, ...]
    is_exact: bool

    def to_global(self, start: int, end: int) -> tuple[int, int] | None:
        """Return a span of the text as global offsets; None when nothing visible is in it."""
        while start < end and self._is_separator(start):
            start += 1
        if not 0 <= start < end <= len(self.text):
            return None
        return self.positions[start], self.positions[end - 1] + 1

    def from_global(self, start: int, end: int) -> tuple[int, int] | None:
        """Return global offsets as a span of the text; None when nothing visible is in it."""
        first = bisect_left(self.positions, start)
        last = bisect_right(self.positions, end - 1)
        while last > first and self._is_separator(last - 1):
            last -= 1
        return (first, last) if first < last else None

    def _is_separator(self, index: int) -> bool:
        return index > 0 and self.positions[index] == self.positions[index - 1]


def read_html(html: str) -> VisibleText:
    """Return a document's visible text: one line per block, spaces collapsed."""
    parser = _Parser()
    try:
        parser.feed(html.replace("\r\n", "\n").replace("\r", "\n"))
        parser.close()
    except AssertionError:  # the standard library's way with a broken "<![": the rest is not read
        parser.is_exact = False
    is_exact = parser.is_exact and "\0" not in html
    return VisibleText("".join(parser.chars), tuple(parser.positions), is_exact)


class _Parser(HTMLParser):
    """Collects visible characters with their global offsets.

    A browser drops spaces before a document's body, so these are not counted.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._begin(is_in_body=False)

    def _begin(self, *, is_in_body: bool) -> None:
        """Begin with the document's body, or before it."""
        self.chars: list[str] = []
        self.positions: list[int] = []
        self.is_exact = True
        self._offset = 0
        self._gap = ""
        self._unread: list[str] = []
        self._parent = ""
        self._is_in_body = is_in_body

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNREAD:
            self._unread.append(tag)
            self.is_exact = self.is_exact and tag == "script"
        elif tag == "body":
            if not self._is_in_body:
                self._begin(is_in_body=True)
        elif tag == "br":
            self._is_in_body = True
            self._offset += 1
            self._gap = "\n"
        else:
            self._is_in_body = self._is_in_body or tag != "html"
            if self._parent in _TABLES and tag not in _TABLES | _CELLS:
                self.is_exact = False  # a browser moves such an element before the table
            self._separate(tag)
            self._parent = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unread:
            while self._unread.pop() != tag:
                pass
        else:
            self._is_in_body = self._is_in_body or tag in ("body", "html", "br")
            self._separate(tag)
            self._parent = {"td": "tr", "th": "tr"}.get(tag, "table" if tag in _TABLES else "")
            if tag == "table":
                self._parent = ""

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
                self._add(char)
            self._offset += 1

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._gap = "\n"
        elif tag in _CELLS:
            self._gap = self._gap or " "

    def _add(self, char: str) -> None:
        if self._gap and self.chars:
            self.chars.append(self._gap)
            self.positions.append(self.positions[-1])
        self._gap = ""
        self.chars.append(char)
        self.positions.append(self._offset)
