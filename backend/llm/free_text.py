"""Questions with a written answer: free text, and numbers with too many possible values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Demonstration, Example, WeakLabel
from backend.domain.ports import Completion, Decoding
from backend.domain.questions import Question
from backend.llm.prompt_batch import LLMCall, PromptBatch, mean_probability
from backend.llm.prompts.templates import one_line, open_layout, prompt_version

_MAX_TEXT_TOKENS = 128
_MAX_NUMBER_TOKENS = 12
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_SENTENCE_END = re.compile(r"(?s).*[.!?](?=\s|$)")


def ask_free_text(
    call: LLMCall, question: Question, examples: Sequence[Example]
) -> list[WeakLabel]:
    """Return one weak label per example with the written text; numbers in canonical form.

    `confidence` is the mean probability per token, so that long answers are not at a disadvantage;
    None where the server reports none. Cost: one request per example.
    """
    template = call.template_for(question)
    layout = open_layout(call.schema, question, call.instruction)
    batch = PromptBatch(call, question, prompt_version(question, template))
    decoding = Decoding(
        max_tokens=_MAX_NUMBER_TOKENS if question.kind.is_numeric else _MAX_TEXT_TOKENS,
        model=call.info.name,
        is_chat=template.is_chat,
        stop=() if template.is_chat else ("\n",),
        n_logprobs=int(call.has_logprobs),
    )
    truncator = call.truncator(decoding)
    prompts = batch.prompts(examples, layout, _answer_text, truncator)
    return batch.annotate(examples, prompts, decoding, lambda done: _parse(question, done))


def parse_number(text: str, bounds: tuple[float, float] | None) -> str | None:
    """Return the only number that an answer holds, as text; None for none.

    A number outside the bounds is no answer, nor are two different numbers.
    """
    found = {float(number.replace(",", ".")) for number in _NUMBER.findall(text)}
    if len(found) != 1:
        return None
    (value,) = found
    if not math.isfinite(value) or (bounds and not bounds[0] <= value <= bounds[1]):
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def clean_text(text: str, *, is_cut: bool) -> str:
    """Return a written answer on one line without quotation marks around it.

    An answer that was cut at its maximum length ends with its last whole sentence, if it has one.
    """
    line = one_line(text.strip().strip('"'))
    if is_cut and (whole := _SENTENCE_END.match(line)):
        return whole.group()
    return line


def _parse(question: Question, completion: Completion) -> Mapping[str, Any] | Abstention:
    if question.kind.is_numeric:
        text = parse_number(completion.text, question.bounds)
        problem = "the model's answer is not one number within the bounds"
    else:
        text = clean_text(completion.text, is_cut=completion.finish_reason == "length")
        problem = "the model wrote nothing"
    if not text:
        return Abstention(AbstentionReason.UNREADABLE, problem)
    return {"text": text, "confidence": mean_probability(completion)}


def _answer_text(shot: Demonstration) -> str | None:
    text = shot.answer.text or next(iter(shot.answer.labels), None)
    return one_line(text) if text else None
