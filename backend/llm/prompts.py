"""Versioned prompts: everything in them is read from the project, nothing is about its subject."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser

from backend.core.types import Question, TaskSchema
from backend.llm.reading import AnswerWords, answer_word

PROMPT_VERSION = "single-choice-1"
"""Stored with every weak label; raised with every change of a prompt's wording."""

_MOST_TOLD_CHARS = 1000
_MOST_TOLD_LINES = 5
_MOST_LINE_CHARS = 300
_SPECIAL_TOKEN = re.compile(
    r"<(?=\||/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)
"""Where the text of a chat template's control token begins; tokenizers obey it in any text."""
_WORD_START = re.compile(r"[_\-.\s]+|(?<=[a-z0-9])(?=[A-Z])")
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Controls that are no white space, lone surrogates, and what turns the writing direction."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with one slot for the text of an example."""

    before: str
    after: str

    def fill(self, text: str) -> str:
        """Return the prompt for one text, which has to come from `slot_text`."""
        return f"{self.before}{text}{self.after}"


def build_prompt(
    schema: TaskSchema, question: Question, instruction: str, words: AnswerWords
) -> Prompt:
    """Return the prompt of a single-choice question over one text, in plain completion form.

    What annotators are told, what each answer means, then the text in quotes on a line of its own
    and the control's name as the line to complete. Where the config does not say what every answer
    means, a line lists the answers: without either a small model does not answer at all. With
    meanings that line helps the ranking of texts but costs a small model raw accuracy.
    """
    told = [clean_instruction(instruction), *(one_line(header) for header in schema.headers)]
    lines = [line[:_MOST_TOLD_CHARS] for line in told if line][:_MOST_TOLD_LINES]
    asked = f"{spoken_name(question.name)}:"
    meanings = _meanings(question, words)
    if len(meanings) < len(question.labels):
        lines.append(f"{asked} {_one_of(words.words)}")
    lines += meanings
    opening = "".join(f"{line}\n" for line in lines)
    return Prompt(before=f'{opening}\n{spoken_name(question.field.name)}: "', after=f'"\n{asked}')


def spoken_name(name: str) -> str:
    """Return a tag's name as a person would write it: "answerType" becomes "Answer type"."""
    words = " ".join(part for part in _WORD_START.split(one_line(name)) if part).lower()
    return words[:1].upper() + words[1:]


def slot_text(text: str) -> str:
    """Return an example's text as it may stand in a prompt.

    On one line and without double quotes, so that nothing in it can end the quotation or pass for
    a line of the prompt.
    """
    return one_line(text).replace('"', "'")


def one_line(text: str) -> str:
    """Return a text as one line of printable characters that no tokenizer takes for a command.

    White space of any kind becomes one space; control characters and lone surrogates go; control
    tokens of chat templates are broken by a space.
    """
    line = " ".join(_UNPRINTABLE.sub("", text).split())
    return _SPECIAL_TOKEN.sub(lambda match: f"{match.group()} ", line)


def clean_instruction(instruction: str) -> str:
    """Return a project's instruction without its HTML, as one line."""
    reader = _HtmlText()
    reader.feed(instruction)
    reader.close()
    return one_line("".join(reader.parts))


def _one_of(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _meanings(question: Question, words: AnswerWords) -> list[str]:
    """Return a line per label that has something to say: the word to answer with and its meaning.

    A mark always has: the label's name.
    """
    lines = []
    for label, word in zip(question.labels, words.words, strict=True):
        meaning = one_line(label.hint or "")
        if words.are_marks:
            name = answer_word(label)
            meaning = f"{name} ({meaning})" if meaning else name
        if meaning:
            lines.append(f"{word}: {meaning}"[:_MOST_LINE_CHARS])
    return lines


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
