"""Questions with a written answer: free text, and numbers with too many possible values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Demonstration, Example, WeakLabel
from backend.domain.ports import Completion, Decoding
from backend.domain.questions import Question, TaskSchema
from backend.llm.date_answers import parse_date
from backend.llm.number_answers import parse_number
from backend.llm.prompt_batch import LLMCall, PromptBatch, mean_probability
from backend.llm.prompts.layout import Layout
from backend.llm.prompts.templates import (
    display_name,
    instruction_lines,
    one_line,
    prompt_version,
    question_layout,
)

_MAX_TEXT_TOKENS = 128
_MAX_NUMBER_TOKENS = 32
_FENCE = "```"
_BOLD = re.compile(r"(?<![\w*])(\*\*|__)(?=\S)(.{1,1000}?)(?<=\S)\1(?![\w*])", re.DOTALL)
_EXCLAMATION = re.compile(r"(?:sure|certainly|of course|absolutely)!\s*", re.IGNORECASE)
_HERE_IS = (
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok)[,.!]?\s+)?"
    r"(?:here(?:['\u2019]s| is| are)|this is|below is|hier ist|voici|ecco|"
    r"aqu\u00ed (?:est\u00e1|tienes))\b"
)
_GENERIC = (
    "answer", "output", "response", "result", "text", "summary", "translation", "description",
    "explanation", "paraphrase", "rewrite", "version", "title", "sentence", "zusammenfassung",
    "antwort", "r\u00e9sum\u00e9", "resumen", "respuesta", "riassunto",
)  # fmt: skip
_CLOSING = re.compile(
    r"(?:let me know|i hope (?:this|that)|feel free|is there anything|if you (?:have|need))\b.*",
    re.IGNORECASE,
)
_DATE_PARTS = {"Y": "YYYY", "m": "MM", "d": "DD", "H": "hh", "M": "mm", "S": "ss", "y": "YY"}
_QUOTES = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u201e": "\u201c",
    "\u00ab": "\u00bb",
    "\u2018": "\u2019",
}
_SENTENCE_END = re.compile(r"(?s).*[.!?\u3002\uff01\uff1f](?=\s|$)")


def ask_free_text(
    call: LLMCall, question: Question, examples: Sequence[Example]
) -> list[WeakLabel]:
    """Return one weak label per example with the written text; numbers in canonical form.

    `confidence` is the mean probability per token, so that long answers are not at a disadvantage;
    None where the server reports none. Cost: one request per example.
    """

    def answer_text(shot: Demonstration) -> str | None:
        text = shot.answer.text or next(iter(shot.answer.labels), None)
        return one_line(text) if text else None

    template = call.template_for(question)
    layout = writing_layout(call.schema, question, call.instruction, is_chat=template.is_chat)
    batch = PromptBatch(call, question, prompt_version(question, template))
    decoding = Decoding(
        max_tokens=_MAX_TEXT_TOKENS if _is_long(question) else _MAX_NUMBER_TOKENS,
        model=call.info.name,
        stop=() if template.is_chat else ("\n",),
        n_logprobs=int(call.has_logprobs),
    )
    prompts = batch.prompts(examples, layout, answer_text, call.truncator(decoding))
    return batch.annotate(examples, prompts, decoding, lambda done: _parse(question, done))


def writing_layout(
    schema: TaskSchema, question: Question, instruction: str, *, is_chat: bool
) -> Layout:
    """Return the layout of a question with a written answer."""
    lines = instruction_lines(schema, instruction, question)
    name = display_name(question.name)
    kind = _number_range(question) if question.kind.is_numeric else ""
    form = f"{kind} in digits" if kind else f"the {name.lower()}"
    if question.kind.is_dated:
        kind = form = f"a date or time as {_shown_format(question.date_format)}"
    if is_chat:
        lines.append(
            f"Write the {name.lower()} of the {display_name(question.field.name).lower()}."
        )
        lines.append(f"Answer with {form} alone: no other words, no introduction.")
    elif kind:
        lines.append(f"{name}: {kind}")
    return replace(question_layout(question, lines, name), is_chat=is_chat)


def _is_long(question: Question) -> bool:
    return not (question.kind.is_numeric or question.kind.is_dated)


def _shown_format(date_format: str) -> str:
    """Return a `strftime` format as people write it: YYYY-MM-DD."""
    return re.sub("%([a-zA-Z])", lambda match: _DATE_PARTS.get(match[1], match[0]), date_format)


def _number_range(question: Question) -> str:
    low, high = question.bounds or (-math.inf, math.inf)
    from_low = f" from {low:g}" if math.isfinite(low) else ""
    to_high = f" to {high:g}" if math.isfinite(high) else ""
    return f"a number{from_low}{to_high}"


def clean_text(text: str, name: str = "", *, is_cut: bool = False) -> str:
    """Return a written answer on one line, without what models put around it.

    That is a code fence, an introduction that says what follows, the question's name, quotation
    marks around all of it, bold type, and an offer of more help in a line of its own. An answer
    that was cut at its maximum length ends with its last whole sentence, if it has one.
    """
    text = _BOLD.sub(r"\2", _without_fence(text.strip()).strip())
    lines = [line for line in text.splitlines() if line.strip()]
    while len(lines) > 1 and _CLOSING.fullmatch(lines[-1].strip()):
        lines.pop()
    text = _without_introduction("\n".join(lines), one_line(name).casefold())
    text = _without_quotes(one_line(text))
    if is_cut and (whole := _SENTENCE_END.match(text)):
        return whole.group()
    return text


def _without_fence(text: str) -> str:
    """Return what stands in a code fence around all of a text."""
    if len(text) <= 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    language, line_end, content = text[len(_FENCE) : -len(_FENCE)].partition("\n")
    return content if line_end and re.fullmatch(r"[\w-]*", language.strip()) else text


def _without_introduction(text: str, name: str) -> str:
    """Return a text without words before a colon that only say what comes after it."""
    text = _EXCLAMATION.sub("", text, count=1) if _EXCLAMATION.match(text) else text
    nouns = "|".join(map(re.escape, sorted({*_GENERIC, *filter(None, [name])}, key=len)))
    here_is = re.compile(
        rf"(?:{_HERE_IS}[^:\n.!?]{{0,80}}?\b(?:{nouns})\b[^:\n.!?]{{0,80}}|(?:the\s+)?"
        rf"(?:{re.escape(name) or 'answer'}|answer))\s*:\s*",
        re.IGNORECASE,
    )
    for _ in range(2):  # "Here is the summary: Summary: ..."
        text = here_is.sub("", text, count=1) if here_is.match(text) else text
    return text


def _without_quotes(line: str) -> str:
    """Return a line without the quotation marks around all of it."""
    inner = line[1:-1]
    if len(line) > 1 and _QUOTES.get(line[0]) == line[-1]:
        rest = re.sub(r"(?<=\w)['\u2019](?=\w)", "", inner)
        return line if line[0] in rest or line[-1] in rest else inner.strip()
    is_open = line[:1] in _QUOTES and line[:1] != "'" and line.count(_QUOTES[line[0]]) < 2
    return line[1:].lstrip() if is_open and _QUOTES[line[0]] not in line[1:] else line


def _parse(question: Question, completion: Completion) -> Mapping[str, Any] | Abstention:
    is_cut = completion.finish_reason == "length"
    text: str | None
    if question.kind.is_dated:
        text = parse_date(completion.text, question.date_format)
        problem = "the model's answer is not one date in the form that was asked for"
    elif question.kind.is_numeric:
        text = parse_number(completion.text, question.bounds, question.step)
        if is_cut and completion.text.rstrip()[-1:].isdigit():
            text = None  # more digits may follow
        problem = "the model's answer is not one number within the bounds"
    else:
        text = clean_text(completion.text, display_name(question.name), is_cut=is_cut)
        problem = "the model wrote nothing"
    if not text:
        return Abstention(AbstentionReason.UNREADABLE, problem)
    return {"text": text, "confidence": mean_probability(completion)}
