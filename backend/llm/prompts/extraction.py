"""Word the prompt that asks for the pieces of a text, for chats and for plain completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.domain.ports import Conversation, Prompt
from backend.domain.questions import Question, TaskSchema
from backend.llm.prompts.templates import display_name, instruction_lines, one_line
from backend.llm.span_answers import SpanFormat

_VERSION = 2
EXTRACTION_TEMPLATES: Mapping[str, int] = dict.fromkeys(("plain-json", "chat-json"), _VERSION)
"""Versions of the templates by name, raised with every new wording."""
_ROLE = "You find pieces of texts. You answer with JSON alone, on one line."

Shot = tuple[Mapping[str, str], str]
"""A demonstration's texts by field, from `slot_text`, and its answer as the model writes it."""


@dataclass(frozen=True, slots=True)
class ExtractionPrompt:
    """A span question's prompt without its texts.

    Its rules come first and a text last, so that prompts share a cached prefix.
    """

    rules: str
    fields: tuple[tuple[str, str], ...]
    asked: str
    is_chat: bool

    def version(self, *, is_checked: bool) -> str:
        """Return the version that is stored with every label."""
        check = "-check" if is_checked else ""
        return f"spans/{'chat' if self.is_chat else 'plain'}-json{check}/{_VERSION}"

    def fill(self, texts: Mapping[str, str], shots: Sequence[Shot] = ()) -> Prompt:
        """Return the prompt for texts by field, from `slot_text`."""
        if not self.is_chat:
            blocks = [f"{self._shown(shown)}\n{self.asked}: {answer}" for shown, answer in shots]
            return "\n\n".join([self.rules, *blocks, f"{self._shown(texts)}\n{self.asked}:"])
        turns = [turn for shown, answer in shots for turn in (self._shown(shown), answer)]
        turns.append(self._shown(texts))
        turns[0] = f"{self.rules}\n\n{turns[0]}"
        return Conversation(_ROLE, tuple(turns))

    def _shown(self, texts: Mapping[str, str]) -> str:
        named = [(shown, texts[name]) for name, shown in self.fields if name in texts]
        return "\n".join(f'{shown}: "{text}"' for shown, text in named)


def extraction_prompt(
    schema: TaskSchema, question: Question, instruction: str, spans: SpanFormat, *, is_chat: bool
) -> ExtractionPrompt:
    """Return the prompt that asks for a question's spans.

    It says the form of the answer also where the server holds answers to a schema, and that a text
    may have none: small models name something in every text otherwise.
    """
    name = display_name(question.name)
    lines = [*instruction_lines(schema, instruction, question), "Types:"]
    for label, label_name in zip(question.labels, spans.names, strict=True):
        hint = one_line(label.hint or "")
        lines.append(f"- {label_name}: {hint}" if hint else f"- {label_name}")
    fields = tuple((field.name, display_name(field.name)) for field in question.fields)
    first = fields[0][1].lower()
    if spans.lists_all:
        none = f"A type that is not in the {first} has an empty list."
        form = f"with the lists filled: {spans.form()}"
    else:
        none = f"Leave out types that are not in the {first}; without any the answer is {{}}."
        form = f'such as: {{"{spans.names[0]}":["..."]}}'
    lines += [
        "",
        f"List every {name.lower()} of each type in the {first}, copied word for word. {none} "
        f"Answer as JSON, {form}",
    ]
    return ExtractionPrompt("\n".join(lines), fields, f"{name} in JSON", is_chat)
