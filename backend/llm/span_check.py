"""Ask the LLM about each piece that it named: does it carry its label, yes or no?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.domain.labels import Abstention, Span
from backend.domain.ports import Conversation
from backend.domain.questions import Question
from backend.llm.classification import yes_probabilities
from backend.llm.prompt_batch import LLMCall
from backend.llm.prompts.templates import display_name, instruction_lines, one_line, slot_text
from backend.llm.span_answers import SpanFormat

MIN_PROBABILITY = 0.7
"""A piece is kept from here on. Chosen on training sentences of two data sets."""
_MAX_CONTEXT_CHARS = 300
_ROLE = "You check labels. Answer with yes or no, and nothing else."


@dataclass(frozen=True, slots=True)
class NamedSpan:
    """A span that was named in a text, with the number of the text."""

    at: int
    span: Span


def can_check(call: LLMCall) -> bool:
    """Return whether pieces are checked: in chats where the server reports probabilities."""
    return call.info.has_chat and call.has_logprobs


def check_spans(
    call: LLMCall, question: Question, texts: Sequence[str], named: Sequence[NamedSpan]
) -> list[float | Abstention | None]:
    """Return the probability that each span carries its label.

    None where it cannot be told; an abstention where no answer came in time.
    Small models name something in nearly every text when they are asked for a list, and tell right
    pieces from wrong ones when they are asked about each. Cost: one request of one token per span,
    all in one list; those about one text share a prefix.
    """
    system = "\n".join([*instruction_lines(call.schema, call.instruction, question), _ROLE])
    meanings = _meanings(question)
    prompts = []
    for each in named:
        span = each.span
        shown = slot_text(_excerpt(texts[each.at], span), question.field.format)
        words = slot_text(texts[each.at][span.start : span.end])
        field = display_name(question.field.name)
        prompts.append(
            Conversation(
                system,
                (
                    f'{field}: "{shown}"\n\nIs "{words}" in this {field.lower()} '
                    f"{meanings[span.label]}? Answer yes or no.",
                ),
            )
        )
    return yes_probabilities(call, prompts)


def _meanings(question: Question) -> Mapping[str, str]:
    """Return what each label says of a piece, such as "a Person (the name of a person)"."""
    found = {}
    for label, name in zip(question.labels, SpanFormat(question).names, strict=True):
        hint = one_line(label.hint or "")
        found[label.value] = f"a {name} ({hint})" if hint else f"a {name}"
    return found


def _excerpt(text: str, span: Span) -> str:
    """Return a span with what stands around it, in whole words."""
    start, end = max(0, span.start - _MAX_CONTEXT_CHARS), span.end + _MAX_CONTEXT_CHARS
    while start > 0 and not text[start - 1].isspace() and start < span.start:
        start += 1
    while end < len(text) and not text[end].isspace() and end > span.end:
        end -= 1
    return text[start:end]
