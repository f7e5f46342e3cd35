"""Questions about spans: the LLM lists the pieces as JSON, and they are searched in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    Demonstration,
    Example,
    Span,
    WeakLabel,
)
from backend.domain.ports import Completion, Decoding
from backend.domain.questions import Question
from backend.llm.client.connection import json_or_none
from backend.llm.prompt_batch import LLMCall, PromptBatch, mean_probability
from backend.llm.prompts.templates import (
    display_name,
    instruction_lines,
    one_line,
    question_layout,
)

_PROMPT_VERSION = "spans/json/1"
"""Its number is raised with every change of the wording; stored with every weak label."""
_MAX_ANSWER_TOKENS = 192
_MIN_CONTEXTS_PER_ANSWER = 4
"""An answer may take at most a quarter of the model's context: the texts need the rest."""
_MAX_ENTITIES = 16
_MAX_ENTITY_CHARS = 120
_NO_LIST = Abstention(AbstentionReason.UNREADABLE, "the model's answer is no list of pieces")

Mention = tuple[str, str]
"""A label's value and the words that are to carry it."""


def ask_spans(call: LLMCall, question: Question, examples: Sequence[Example]) -> list[WeakLabel]:
    """Return one weak label per example, with the spans that the model's answer names.

    The answer names pieces as strings. These are searched in the text from the left, so that
    nothing that is not in the text is ever labeled. No entity is an answer; what cannot be parsed
    is an abstention. A span's probability is the answer's mean probability per token where the
    server reports it; it is not calibrated. Cost: one request per example.
    """
    spans = SpanFormat(question)
    batch = PromptBatch(call, question, _PROMPT_VERSION)
    decoding = Decoding(
        max_tokens=min(_MAX_ANSWER_TOKENS, call.info.n_context_tokens // _MIN_CONTEXTS_PER_ANSWER),
        model=call.info.name,
        stop=("\n\n",),
        json_schema=spans.json_schema(),
        n_logprobs=int(call.has_logprobs),
    )
    lines = [*instruction_lines(call.schema, call.instruction), *spans.instructions()]
    layout = question_layout(question, lines, f"{display_name(question.name)} in JSON")
    prompts = batch.prompts(examples, layout, spans.demonstration, call.truncator(decoding))
    completions = batch.complete(prompts, decoding)

    texts = [example.texts.get(question.field.name, "") for example in examples]
    return [
        batch.weak_label(example, prompt, completion, partial(spans.read, text))
        for example, text, prompt, completion in zip(
            examples, texts, prompts, completions, strict=True
        )
    ]


class SpanFormat:
    """How a question's labels are named in a prompt, and how answers are written and read."""

    def __init__(self, question: Question) -> None:
        names = [one_line(label.name) for label in question.labels]
        if len({name.casefold() for name in names}) < len(names):
            names = [one_line(label.value) for label in question.labels]
        self.names = tuple(names)
        self._question = question
        self._name_of = {label.value: n for label, n in zip(question.labels, names, strict=True)}
        self._value_of = {n.casefold(): v for v, n in self._name_of.items()}

    def instructions(self) -> list[str]:
        """Return the lines that say what to look for."""
        name = display_name(self._question.name)
        lines = [f"{name}: every piece of the text that is one of these, word for word."]
        for label, name in zip(self._question.labels, self.names, strict=True):
            hint = one_line(label.hint or "")
            lines.append(f"{name}: {hint}" if hint else name)
        return lines

    def json_schema(self) -> str:
        """Return the JSON schema of an answer, as text."""
        entity = {
            "type": "object",
            "properties": {
                "type": {"enum": list(self.names)},
                "text": {"type": "string", "maxLength": _MAX_ENTITY_CHARS},
            },
            "required": ["type", "text"],
            "additionalProperties": False,
        }
        entities = {"type": "array", "items": entity, "maxItems": _MAX_ENTITIES}
        return json.dumps(
            {
                "type": "object",
                "properties": {"entities": entities},
                "required": ["entities"],
                "additionalProperties": False,
            }
        )

    def demonstration(self, shot: Demonstration) -> str | None:
        """Return a demonstration's spans as JSON on one line; None without its text."""
        text = shot.texts.get(self._question.field.name)
        if text is None:
            return None
        spans = sorted(shot.answer.spans, key=lambda span: (span.start, span.end, span.label))
        entities = [
            {"type": self._name_of[span.label], "text": one_line(text[span.start : span.end])}
            for span in spans
            if span.label in self._name_of
        ]
        return json.dumps({"entities": entities}, ensure_ascii=False)

    def read(self, text: str, completion: Completion) -> Mapping[str, Any] | Abstention:
        """Return the spans of an answer and its mean probability per token, or an abstention."""
        mentions = self.parse(completion.text, is_cut=completion.finish_reason == "length")
        if mentions is None:
            return _NO_LIST
        spans = align(text, mentions)
        probability = mean_probability(completion)
        if probability is None:
            return {"spans": spans}
        scored = tuple(Span(s.start, s.end, s.label, probability) for s in spans)
        return {"spans": scored, "confidence": probability}

    def parse(self, text: str, *, is_cut: bool = False) -> list[Mention] | None:
        """Return the mentions of a JSON answer; None unless all of it follows the schema.

        Of an answer that was cut at its maximum length, the whole pieces before the cut count.
        """
        answer = json_or_none(text)
        if answer is None and is_cut:
            ends = [at + 1 for at, char in enumerate(text) if char == "}"][-_MAX_ENTITIES:]
            whole = (json_or_none(text[:end] + "]}") for end in reversed(ends))
            answer = next((one for one in whole if one is not None), None)
        entities = answer.get("entities") if isinstance(answer, dict) else None
        if not isinstance(entities, list):
            return None
        mentions = []
        for entity in entities:
            name = entity.get("type") if isinstance(entity, dict) else None
            value = self._value_of.get(name.casefold()) if isinstance(name, str) else None
            if value is None or not isinstance(entity.get("text"), str):
                return None
            mentions.append((value, entity["text"]))
        return mentions


def align(text: str, mentions: Sequence[Mention]) -> tuple[Span, ...]:
    """Return the spans of the mentions that stand in the text, from left to right.

    The k-th mention of the same words with the same label is their k-th occurrence from the left,
    whole words before parts of words; spans may overlap. White space of any kind is alike, and
    so are the quotes that prompts show as apostrophes; case counts.
    """
    spans: set[Span] = set()
    places: dict[Mention, list[tuple[int, int]]] = {}
    for mention in mentions:
        label, words = mention
        if mention not in places:
            places[mention] = _occurrences(text, words)
        if places[mention]:
            start, end = places[mention].pop(0)
            spans.add(Span(start, end, label))
    return tuple(sorted(spans, key=lambda span: (span.start, span.end, span.label)))


def _occurrences(text: str, words: str) -> list[tuple[int, int]]:
    """Return where some words stand in a text as whole words, else as parts of words."""
    pieces = words.split()
    if not pieces:
        return []
    pattern = r"\s+".join(re.escape(piece).replace("'", "['\"]") for piece in pieces)
    found = [match.span() for match in re.finditer(pattern, text)]
    whole = []
    for start, end in found:
        cuts_before = text[max(0, start - 1) : start].isalnum() and text[start].isalnum()
        cuts_after = text[end : end + 1].isalnum() and text[end - 1].isalnum()
        if not cuts_before and not cuts_after:
            whole.append((start, end))
    return whole or found
