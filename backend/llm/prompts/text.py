"""Clean what a project says for a prompt: instructions, names and the texts of its examples."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from backend.domain.questions import TaskSchema, TextFormat

_MAX_LINE_CHARS = 1000
_MAX_LINES = 5
SPECIAL_TOKEN = re.compile(
    r"<(?=\||/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)
"""Beginning of a chat template's control token, which tokenizers recognize in any text."""
_WORD_START = re.compile(r"[_\-.\s]+|(?<=[a-z0-9])(?=[A-Z])")
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Control characters that are no white space, lone surrogates, and changes of text direction."""


def instruction_lines(schema: TaskSchema, instruction: str) -> list[str]:
    """Return the instruction and the headers, a line each, of limited length and number."""
    lines = [clean_instruction(instruction), *(one_line(header) for header in schema.headers)]
    return [line[:_MAX_LINE_CHARS] for line in lines if line][:_MAX_LINES]


def describe_task(schema: TaskSchema, instruction: str) -> str:
    """Return on one line the project's instruction and each question with its labels."""
    parts = instruction_lines(schema, instruction)
    for question in schema.questions:
        names = ", ".join(one_line(label.name) for label in question.labels)[:_MAX_LINE_CHARS]
        parts.append(display_name(question.name) + (f" ({names})" if names else ""))
    return " ".join(line if line.endswith((".", "?", "!")) else f"{line}." for line in parts)


def display_name(name: str) -> str:
    """Return a tag's name in words: "answerType" becomes "Answer type"."""
    words = " ".join(part for part in _WORD_START.split(one_line(name)) if part).lower()
    return words[:1].upper() + words[1:]


def slot_text(text: str, text_format: TextFormat = TextFormat.PLAIN) -> str:
    """Return an example's text on one line and without double quotes, for a prompt.

    Nothing in it can end the quotation or pass for a line of the prompt. The turns of a dialogue
    are separated by a slash.
    """
    if text_format is TextFormat.DIALOGUE:
        turns = (one_line(turn) for turn in text.splitlines())
        return " / ".join(turn for turn in turns if turn).replace('"', "'")
    return one_line(text).replace('"', "'")


def one_line(text: str) -> str:
    """Return a text as one line of printable characters without control tokens.

    White space of any kind becomes one space; control characters and lone surrogates are dropped;
    a chat template's control tokens are broken by a space.
    """
    line = " ".join(_UNPRINTABLE.sub("", text).split())
    return SPECIAL_TOKEN.sub(lambda match: f"{match.group()} ", line)


def clean_instruction(instruction: str) -> str:
    """Return a project's instruction without its HTML, as one line."""
    reader = _HtmlText()
    reader.feed(instruction)
    reader.close()
    return one_line("".join(reader.parts))


class _HtmlText(HTMLParser):
    """Collects the text that a browser would show."""

    _HIDDEN_TAGS = frozenset({"script", "style"})
    _INLINE_TAGS = frozenset({"a", "b", "code", "em", "i", "mark", "span", "strong", "u"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._n_hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._n_hidden += tag in self._HIDDEN_TAGS
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self._n_hidden -= tag in self._HIDDEN_TAGS and self._n_hidden > 0
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self._n_hidden:
            self.parts.append(data)

    def _separate(self, tag: str) -> None:
        if tag not in self._INLINE_TAGS:
            self.parts.append(" ")
