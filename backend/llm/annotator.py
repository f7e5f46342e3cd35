"""The LLM as an annotator: one weak label, or an abstention with a reason, per example."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    Demonstration,
    Example,
    PromptContext,
    WeakLabel,
)
from backend.domain.ports import Completion, Decoding, LanguageModel
from backend.domain.questions import Question, TaskSchema
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.llm.classification import (
    MAX_LABELS_AT_ONCE,
    N_SHORTLISTED,
    Shortlist,
    ask_multilabel,
    ask_shortlist,
    ask_single_label,
)
from backend.llm.prompt_batch import (
    LLMCall,
    PromptBatch,
    mean_probability,
)
from backend.llm.prompts.templates import (
    available_templates,
    one_line,
    open_layout,
    prompt_version,
)
from backend.llm.prompts.truncation import Deadline
from backend.llm.spans import ask_spans

_MAX_CACHED_TEXTS = 4096
_MAX_TEXT_TOKENS = 128
_MAX_NUMBER_TOKENS = 12
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")
_SENTENCE_END = re.compile(r"(?s).*[.!?](?=\s|$)")


class LLMAnnotator:
    """The `Annotator` port over any language model.

    One `complete` call per question holds all examples, so that batches are full.

    Args:
        shortlist: picks the labels to show where a question has more than `MAX_LABELS_AT_ONCE`;
            without it such a question is abstained from.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        shortlist: Shortlist | None = None,
    ) -> None:
        self._model = model
        self._shortlist = shortlist
        self._tokens: dict[tuple[str, str], tuple[int, ...]] = {}

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Answer every question about every example, example by example in the given order.

        Raises:
            LanguageModelUnavailable: the model cannot be reached for any question.
            LanguageModelRejected: it refuses the key or the model's name.
        """
        if not examples or not schema.questions:
            return []
        deadline = Deadline(deadline_s)
        call = LLMCall(
            model=self._model,
            info=self._model.describe(deadline_s=deadline.left_s()),
            schema=schema,
            instruction=instruction,
            prompt_context=prompt_context or PromptContext(),
            deadline=deadline,
            tokens=self._tokens,
        )
        answers, errors = [], []
        for question in schema.questions:
            try:
                answers.append(self._ask(call, question, examples))
            except (UnsupportedLabelConfig, LanguageModelError) as exc:
                reason = AbstentionReason.REJECTED
                if isinstance(exc, LanguageModelError):
                    reason = AbstentionReason.UNREACHABLE
                    errors.append(exc)
                version = prompt_version(question, call.template_for(question))
                batch = PromptBatch(call, question, version)
                answers.append(batch.abstain(Abstention(reason, str(exc)), examples))
        if len(self._tokens) > _MAX_CACHED_TEXTS:
            self._tokens.clear()
        if len(errors) == len(schema.questions):
            raise errors[0]
        return [label for of_example in zip(*answers, strict=True) for label in of_example]

    def templates(self, *, deadline_s: float | None = None) -> tuple[str, ...]:
        """Return the names of the prompt templates that the model's server can take."""
        return available_templates(self._model.describe(deadline_s=deadline_s))

    def _ask(
        self, call: LLMCall, question: Question, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        if question.kind.has_spans:
            return ask_spans(call, question, examples)
        if question.kind.is_free_text or not question.labels:
            return ask_free_text(call, question, examples)
        is_long = len(question.labels) > MAX_LABELS_AT_ONCE and not question.kind.is_ordinal
        shortlist = self._shortlist if is_long else None
        if question.kind.is_multilabel:
            chosen = shortlist and shortlist(question, examples, N_SHORTLISTED)
            return ask_multilabel(call, question, examples, chosen)
        if shortlist is not None:
            return ask_shortlist(call, question, examples, shortlist)
        return ask_single_label(call, question, examples)


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
    layout = open_layout(call.schema, question, call.instruction)
    layout = replace(layout, is_chat=template.is_chat)
    batch = PromptBatch(call, question, prompt_version(question, template))
    decoding = Decoding(
        max_tokens=_MAX_NUMBER_TOKENS if question.kind.is_numeric else _MAX_TEXT_TOKENS,
        model=call.info.name,
        stop=() if template.is_chat else ("\n",),
        n_logprobs=int(call.has_logprobs),
    )
    prompts = batch.prompts(examples, layout, answer_text, call.truncator(decoding))
    return batch.annotate(examples, prompts, decoding, lambda done: _parse_text(question, done))


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


def _parse_text(question: Question, completion: Completion) -> Mapping[str, Any] | Abstention:
    if question.kind.is_numeric:
        text = parse_number(completion.text, question.bounds)
        problem = "the model's answer is not one number within the bounds"
    else:
        text = clean_text(completion.text, is_cut=completion.finish_reason == "length")
        problem = "the model wrote nothing"
    if not text:
        return Abstention(AbstentionReason.UNREADABLE, problem)
    return {"text": text, "confidence": mean_probability(completion)}
