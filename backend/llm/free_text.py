"""Answers that are written out: free text, and numbers with too many possible values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Demonstration, Example, WeakLabel
from backend.domain.ports import Completion, Decoding
from backend.domain.questions import Question
from backend.llm.prompt_batch import LLMCall, PromptBatch, Read
from backend.llm.prompts.templates import open_layout, prompt_version
from backend.llm.prompts.text import one_line

_N_TEXT_TOKENS = 128
_N_NUMBER_TOKENS = 12
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_SENTENCE_END = re.compile(r"(?s).*[.!?](?=\s|$)")


def ask_written(call: LLMCall, question: Question, examples: Sequence[Example]) -> list[WeakLabel]:
    """Return one weak label per example that holds a text, for numbers its canonical writing.

    `confidence` is the mean probability per token (the geometric mean over the answer) where the
    server tells it: long answers are not held against short ones. Costs one request per example.
    """
    template = call.form_of(question)
    is_number = question.kind.is_numeric
    layout = open_layout(call.schema, question, call.instruction)
    asking = PromptBatch(call, question, prompt_version(question, template))
    decoding = Decoding(
        max_tokens=_N_NUMBER_TOKENS if is_number else _N_TEXT_TOKENS,
        model=call.info.name,
        is_chat=template.is_chat,
        stop=() if template.is_chat else ("\n",),
        n_logprobs=1 if call.info.reads_token_ids or call.info.n_top_logprobs else 0,
    )
    truncator = call.truncator(decoding)
    truncated = asking.prompts(examples, [layout] * len(examples), _ending, truncator)
    return asking.ask(examples, truncated, decoding, _reader(question))


def read_number(text: str, bounds: tuple[float, float] | None) -> str | None:
    """Return the only number that an answer begins with or holds, as text; None for none.

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

    An answer that the server cut ends with its last whole sentence, if it has one.
    """
    line = one_line(text.strip().strip('"'))
    if is_cut and (whole := _SENTENCE_END.match(line)):
        return whole.group()
    return line


def _reader(question: Question) -> Read:
    def read(completion: Completion) -> Mapping[str, Any] | Abstention:
        if question.kind.is_numeric:
            text = read_number(completion.text, question.bounds)
            if text is None:
                return _unreadable("the model's answer is not one number within the bounds")
        else:
            is_cut = completion.finish_reason == "length"
            text = clean_text(completion.text, is_cut=is_cut)
            if not text:
                return _unreadable("the model wrote nothing")
        return {"text": text, "confidence": _confidence(completion)}

    return read


def _confidence(completion: Completion) -> float | None:
    if completion.mean_logprob is None or not math.isfinite(completion.mean_logprob):
        return None
    return math.exp(min(0.0, completion.mean_logprob))


def _ending(shot: Demonstration) -> str | None:
    text = shot.answer.text or next(iter(shot.answer.labels), None)
    return one_line(text) if text else None


def _unreadable(detail: str) -> Abstention:
    return Abstention(AbstentionReason.UNREADABLE, detail)
