"""Prompt templates with name and version, and the cleaning of texts that fill them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import unescape

from backend.domain.ports import LanguageModelInfo
from backend.domain.questions import Question, TaskSchema, TextFormat
from backend.llm.prompts.layout import Layout
from backend.llm.prompts.verbalizer import Verbalizer, answer_names

_MAX_LINE_CHARS = 300
_MAX_LONG_LINE = 1000
_MAX_INSTRUCTION = 4000
SPECIAL_TOKEN = re.compile(
    r"<(?=\||/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)
"""Beginning of a chat template's control token, which tokenizers recognize in any text."""
_WORD_START = re.compile(r"[_\-.\s]+|(?<=[a-z0-9])(?=[A-Z])")
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1[^<>]*>|\Z)|</?([a-z][a-z0-9]*)[^<>]*>",
    re.DOTALL | re.IGNORECASE,
)
_INLINE_TAGS = frozenset({"a", "b", "code", "em", "i", "mark", "span", "strong", "u"})
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]"
)
"""Control characters that are no white space, lone surrogates, and changes of text direction."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One way to word a question.

    Args:
        version: raised with every change of the wording.
        lists_options: whether a line lists the answers; None: only where a meaning is missing.
        is_chat: whether the prompt is a conversation in the model's chat template, for instruct
            models, rather than a text to complete, for base models.
        chooses: whether a conversation tells the task in the system's turn and asks below the text,
            rather than above it.
    """

    name: str
    version: int = 1
    lists_options: bool | None = None
    is_chat: bool = False
    chooses: bool = False


TEMPLATES: Mapping[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("plain-options", lists_options=True),
        PromptTemplate("plain-hints", version=2),
        PromptTemplate("chat-options", version=2, is_chat=True),
        PromptTemplate("chat-choose", is_chat=True, chooses=True),
    )
}
"""All templates by name; `selection` finds the one that suits a project and its model."""

DEFAULT_TEMPLATE = "plain-options"
DEFAULT_CHAT_TEMPLATE = "chat-options"
"""For servers with the chat route alone."""


def prompt_version(question: Question, template: PromptTemplate, *, suffix: str = "") -> str:
    """Return the version stored with a weak label, such as "choice/plain-options/2"."""
    return f"{question.kind.prompt_prefix}/{template.name}{suffix}/{template.version}"


def available_templates(info: LanguageModelInfo, question: Question) -> tuple[str, ...]:
    """Return the names of the templates that word a question differently for a server."""
    names = [
        name
        for name, template in TEMPLATES.items()
        if (info.has_chat if template.is_chat else info.has_plain)
    ]
    if not question.kind.is_exclusive:  # yes or no has one wording a route
        return tuple(name for name in names if name in (DEFAULT_TEMPLATE, DEFAULT_CHAT_TEMPLATE))
    if not any(label.hint for label in question.labels):  # both would list the options alone
        names = [name for name in names if name != "plain-hints"]
    return tuple(names)


def choice_layout(
    schema: TaskSchema,
    question: Question,
    instruction: str,
    template: PromptTemplate,
    words: Verbalizer,
) -> Layout:
    """Return the layout of a question with one answer out of a few.

    What all prompts share, the instruction and each answer's meaning, comes first: a server
    computes it once. A conversation names the answers again below the text, where instruct models
    look for them.
    """
    lines = instruction_lines(schema, instruction, question)
    if template.is_chat:
        return _choice_conversation(question, lines, template, words)
    lines += _plain_lines(question, template, words)
    return replace(question_layout(question, lines, display_name(question.name)), lead=words.lead)


def _plain_lines(question: Question, template: PromptTemplate, words: Verbalizer) -> list[str]:
    """Return the lines above a text to complete.

    Where the config does not define every answer, a line lists the answers: without either a small
    model does not answer at all.
    """
    name = display_name(question.name)
    meanings = _meanings(question, words)
    lists_options = template.lists_options
    if lists_options is None:
        lists_options = len(meanings) < len(question.labels)
    return [*([f"{name}: {_one_of(words.words)}"] if lists_options else []), *meanings]


def _choice_conversation(
    question: Question, lines: Sequence[str], template: PromptTemplate, words: Verbalizer
) -> Layout:
    """Return the layout of a conversation about one answer out of a few."""
    options = [
        f"- {word}: {meaning}"[:_MAX_LINE_CHARS] if meaning else f"- {word}"
        for word, meaning in _meanings_by_word(question, words)
    ]
    answer = "the letter of one option" if words.are_letters else _one_of(words.words)
    asked = f"What is the {_subject(question)}?"
    if template.chooses:
        task = f"Choose the {_subject(question, 'each')}:"
        opening = [*lines, task, *options, f"Answer with {answer}, and nothing else."]
        return _chat_layout(question, opening, asked=f"\n{asked} Answer with {answer}.")
    role = _role(answer if words.are_letters else "one label")
    named = answer if words.are_letters else f"one of the labels: {answer}"
    opening = [role, *lines, "Labels:", *options]
    return _chat_layout(question, opening, before=f"{asked}\n", asked=f"\nAnswer with {named}.")


def _chat_layout(
    question: Question, lines: Sequence[str], *, asked: str, before: str = ""
) -> Layout:
    layout = question_layout(question, lines, "")
    return replace(layout, before=before, asked=asked, is_chat=True)


def _role(answer: str) -> str:
    """Return the first line of a system's turn."""
    return f"You label texts. You answer with {answer} and nothing else."


def _subject(question: Question, which: str = "this") -> str:
    """Return what is asked about, such as "sentiment of this review"."""
    fields = " and ".join(display_name(text.name).lower() for text in question.fields)
    name = display_name(question.name).lower() or "answer"
    return f"{name} of {which} {fields or 'text'}"


def yes_no_layouts(
    schema: TaskSchema, question: Question, instruction: str, template: PromptTemplate
) -> list[Layout]:
    """Return by label the layout that asks whether it holds, of a multilabel question."""
    lines = instruction_lines(schema, instruction, question)
    names = answer_names(question.labels)
    return [
        _yes_no_layout(question, lines, template, name, one_line(label.hint or ""))
        for label, name in zip(question.labels, names, strict=True)
    ]


def _yes_no_layout(
    question: Question, lines: Sequence[str], template: PromptTemplate, name: str, meaning: str
) -> Layout:
    meaning = meaning[:_MAX_LINE_CHARS]
    if template.is_chat:
        is_meant = f" ({meaning})" if meaning else ""
        return _chat_layout(
            question,
            [_role("yes or no"), *lines],
            before=f"Is {name}{is_meant} a right {_subject(question)}?\n",
            asked="\nAnswer with yes or no.",
        )
    asked = f"{display_name(question.name)} {name}"
    meanings = [f"yes: {meaning}"] if meaning else []
    return question_layout(question, [*lines, f"{asked}: yes or no", *meanings], asked)


def _one_of(words: Sequence[str]) -> str:
    """Return the words as a sentence lists them: "a, b or c"."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def question_layout(question: Question, lines: Sequence[str], asked: str, lead: str = "") -> Layout:
    """Return the layout that opens with these lines and asks in the line `asked`."""
    return Layout(
        opening="".join(f"{line}\n" for line in lines),
        fields=tuple((text.name, display_name(text.name)) for text in question.fields),
        asked=f"{asked}:",
        lead=lead,
    )


def _meanings(question: Question, words: Verbalizer) -> list[str]:
    """Return a line per label that has a meaning to show: answer word and meaning."""
    found = _meanings_by_word(question, words)
    return [f"{word}: {meaning}"[:_MAX_LINE_CHARS] for word, meaning in found if meaning]


def _meanings_by_word(question: Question, words: Verbalizer) -> list[tuple[str, str]]:
    """Return each answer word with its meaning, "" where the config has none.

    The meaning of an option letter begins with the label's name.
    """
    found = []
    names = answer_names(question.labels)
    for label, name, word in zip(question.labels, names, words.words, strict=True):
        meaning = one_line(label.hint or "")
        if words.are_letters:
            meaning = f"{name} ({meaning})" if meaning else name
        found.append((word, meaning))
    return found


def instruction_lines(
    schema: TaskSchema, instruction: str, question: Question | None = None
) -> list[str]:
    """Return the instruction and the headers, a line each, of limited length.

    With a question its own headers come last; those that do not fit are dropped from the middle.
    """
    own = () if question is None else question.headers
    lines = [clean_instruction(instruction), *map(one_line, (*schema.headers, *own))]
    lines = [line[:_MAX_LONG_LINE] for line in lines if line]
    while len(lines) > 2 and sum(map(len, lines)) > _MAX_INSTRUCTION:
        del lines[len(lines) // 2]
    return lines


def describe_task(schema: TaskSchema, instruction: str) -> str:
    """Return on one line the project's instruction and each question with its labels."""
    parts = instruction_lines(schema, instruction)
    for question in schema.questions:
        names = ", ".join(one_line(label.name) for label in question.labels)[:_MAX_LONG_LINE]
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
    """Return a project's instruction without its HTML, as one line; linear in its length."""

    def shown(markup: re.Match[str]) -> str:
        return "" if (markup[2] or "").lower() in _INLINE_TAGS else " "

    return one_line(unescape(_MARKUP.sub(shown, instruction)))
