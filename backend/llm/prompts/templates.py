"""Prompt templates: the same question worded in several ways, each with a name and a version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backend.domain.ports import LanguageModelInfo
from backend.domain.questions import Question, TaskSchema
from backend.llm.prompts.text import display_name, instruction_lines, one_line
from backend.llm.prompts.verbalizer import Verbalizer, answer_names

_MAX_LINE_CHARS = 300
_ANSWER = "Answer"


class Options(StrEnum):
    """Whether a line of the prompt lists the answers."""

    WHERE_NEEDED = "where_needed"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One way to word a question.

    Args:
        version: raised with every change of the wording.
        options: whether a line lists the answers.
        shows_hints: whether each answer's meaning is shown, a line each.
        uses_letters: whether the options are called "A", "B", ....
        asks_answer: whether the line to complete is "Answer:" under a sentence that asks; else it
            is the question's name.
        is_chat: whether the prompt goes into the model's chat template.
    """

    name: str
    version: int = 1
    options: Options = Options.WHERE_NEEDED
    shows_hints: bool = True
    uses_letters: bool = False
    asks_answer: bool = False
    is_chat: bool = False


TEMPLATES: Mapping[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("plain-options", options=Options.ALWAYS),
        PromptTemplate("plain-hints", version=2),
        PromptTemplate("plain-bare", shows_hints=False, options=Options.NEVER),
        PromptTemplate("plain-answer", options=Options.ALWAYS, asks_answer=True),
        PromptTemplate("plain-marks", uses_letters=True, asks_answer=True),
        PromptTemplate("chat-options", options=Options.ALWAYS, asks_answer=True, is_chat=True),
        PromptTemplate("chat-marks", uses_letters=True, asks_answer=True, is_chat=True),
    )
}
"""All templates by name. The first is used until one has been selected, see `selection`."""

DEFAULT_TEMPLATE = "plain-options"
DEFAULT_CHAT_TEMPLATE = "chat-options"
"""For servers with the chat route alone."""


def prompt_version(question: Question, template: PromptTemplate, *, suffix: str = "") -> str:
    """Return the version stored with a weak label, such as "choice/plain-options/2"."""
    return f"{question.kind.prompt_prefix}/{template.name}{suffix}/{template.version}"


def available_templates(info: LanguageModelInfo) -> tuple[str, ...]:
    """Return the names of the templates that a server can take."""
    return tuple(
        name
        for name, template in TEMPLATES.items()
        if (info.has_chat if template.is_chat else info.has_plain)
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt without its texts: an opening, one block per shot, then the query's block.

    The opening and the shots come first, so that prompts that share them share a cached prefix.

    Args:
        fields: each field's name and what it is called in the prompt.
        asked: the line that the answer completes.
        lead: text between that line and the answer.
    """

    opening: str
    fields: tuple[tuple[str, str], ...]
    asked: str
    lead: str = ""
    shots: tuple[str, ...] = field(default=())

    def block(self, texts: Mapping[str, str], answer: str | None = None) -> str:
        """Return the texts (from `slot_text`), quoted and named, and the line to complete."""
        quoted = [f'{shown}: "{texts[name]}"' for name, shown in self.fields if name in texts]
        ending = self.lead if answer is None else f" {answer}\n"
        return "\n" + "\n".join([*quoted, self.asked]) + ending

    def fill(self, texts: Mapping[str, str]) -> str:
        """Return the prompt for one example's texts (from `slot_text`)."""
        return f"{self.opening}{''.join(self.shots)}{self.block(texts)}"


def choice_layout(
    schema: TaskSchema,
    question: Question,
    instruction: str,
    template: PromptTemplate,
    words: Verbalizer,
) -> Layout:
    """Return the layout of a question with one answer out of a few.

    The instruction, each answer's meaning, then the texts in quotes on lines of their own and the
    line to complete. Where the config does not define every answer, a line lists the answers:
    without either a small model does not answer at all.
    """
    lines = instruction_lines(schema, instruction)
    name = display_name(question.name)
    meanings = _meanings(question, words) if template.shows_hints or words.are_letters else []
    lists_options = template.options is Options.ALWAYS or (
        template.options is Options.WHERE_NEEDED and len(meanings) < len(question.labels)
    )
    if template.asks_answer and not words.are_letters:
        lines += [*meanings, f"{name}: answer with {_one_of(words.words)}."]
    elif template.asks_answer:
        lines += [f"{name}: answer with the letter of one option.", *meanings]
    else:
        lines += [f"{name}: {_one_of(words.words)}"] if lists_options else []
        lines += meanings
    return _layout(question, lines, _ANSWER if template.asks_answer else name, words.lead)


def yes_no_layout(
    schema: TaskSchema, question: Question, instruction: str, *, label_index: int
) -> Layout:
    """Return the layout that asks whether one label of a multilabel question holds."""
    label = question.labels[label_index]
    name = answer_names(question.labels)[label_index]
    meaning = one_line(label.hint or "")
    lines = instruction_lines(schema, instruction)
    lines.append(f"{display_name(question.name)} {name}: yes or no")
    if meaning:
        lines.append(f"yes: {meaning}"[:_MAX_LINE_CHARS])
    return _layout(question, lines, f"{display_name(question.name)} {name}")


def open_layout(schema: TaskSchema, question: Question, instruction: str) -> Layout:
    """Return the layout of a question with a written answer: free text, or a wide number."""
    lines = instruction_lines(schema, instruction)
    name = display_name(question.name)
    if question.kind.is_numeric:
        low, high = question.bounds or (-math.inf, math.inf)
        from_low = f" from {low:g}" if math.isfinite(low) else ""
        to_high = f" to {high:g}" if math.isfinite(high) else ""
        lines.append(f"{name}: a number{from_low}{to_high}")
    return _layout(question, lines, name)


def _one_of(words: Sequence[str]) -> str:
    """Return the words as a sentence lists them: "a, b or c"."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _layout(question: Question, lines: Sequence[str], asked: str, lead: str = "") -> Layout:
    return Layout(
        opening="".join(f"{line}\n" for line in lines),
        fields=tuple((text.name, display_name(text.name)) for text in question.fields),
        asked=f"{asked}:",
        lead=lead,
    )


def _meanings(question: Question, words: Verbalizer) -> list[str]:
    """Return a line per label that has a meaning to show: answer word and meaning.

    The meaning of an option letter begins with the label's name.
    """
    lines = []
    names = answer_names(question.labels)
    for label, name, word in zip(question.labels, names, words.words, strict=True):
        meaning = one_line(label.hint or "")
        if words.are_letters:
            meaning = f"{name} ({meaning})" if meaning else name
        if meaning:
            lines.append(f"{word}: {meaning}"[:_MAX_LINE_CHARS])
    return lines
