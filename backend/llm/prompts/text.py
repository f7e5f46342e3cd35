"""What a project says, cleaned for a prompt: instructions, names and the texts of its examples."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from backend.domain.questions import TaskSchema, TextFormat

_MAX_TOLD_CHARS = 1000
_MAX_TOLD_LINES = 5
SPECIAL_TOKEN = re.compile(
    r"<(?=\||/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)
"""Where the text of a chat template's control token begins; tokenizers obey it in any text."""
_WORD_START = re.compile(r"[_\-.\s]+|(?<=[a-z0-9])(?=[A-Z])")
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Controls that are no white space, lone surrogates, and what turns the writing direction."""


def told_lines(schema: TaskSchema, instruction: str) -> list[str]:
    """Return what the project tells its annotators, a line each: instruction first, then headers.

    Lines and their number are limited, so that an endless instruction leaves room for the text.
    """
    told = [clean_instruction(instruction), *(one_line(header) for header in schema.headers)]
    return [line[:_MAX_TOLD_CHARS] for line in told if line][:_MAX_TOLD_LINES]


def describe_task(schema: TaskSchema, instruction: str) -> str:
    """Return on one line what a project asks: what it tells people, then each question's labels."""
    told = told_lines(schema, instruction)
    for question in schema.questions:
        names = ", ".join(one_line(label.name) for label in question.labels)[:_MAX_TOLD_CHARS]
        told.append(spoken_name(question.name) + (f" ({names})" if names else ""))
    return " ".join(line if line.endswith((".", "?", "!")) else f"{line}." for line in told)


def spoken_name(name: str) -> str:
    """Return a tag's name as a person would write it: "answerType" becomes "Answer type"."""
    words = " ".join(part for part in _WORD_START.split(one_line(name)) if part).lower()
    return words[:1].upper() + words[1:]


def slot_text(text: str, text_format: TextFormat = TextFormat.PLAIN) -> str:
    """Return an example's text as it may stand in a prompt.

    On one line and without double quotes, so that nothing in it can end the quotation or pass for
    a line of the prompt. The turns of a dialogue are parted by a slash.
    """
    if text_format is TextFormat.DIALOGUE:
        turns = (one_line(turn) for turn in text.splitlines())
        return " / ".join(turn for turn in turns if turn).replace('"', "'")
    return one_line(text).replace('"', "'")


def one_line(text: str) -> str:
    """Return a text as one line of printable characters that no tokenizer takes for a command.

    White space of any kind becomes one space; control characters and lone surrogates go; control
    tokens of chat templates are broken by a space.
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
    """Collects what a browser would show."""

    _UNSEEN = frozenset({"script", "style"})
    _WITHIN_WORDS = frozenset({"a", "b", "code", "em", "i", "mark", "span", "strong", "u"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._n_unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._n_unseen += tag in self._UNSEEN
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        self._n_unseen -= tag in self._UNSEEN and self._n_unseen > 0
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self._n_unseen:
            self.parts.append(data)

    def _part(self, tag: str) -> None:
        if tag not in self._WITHIN_WORDS:
            self.parts.append(" ")
