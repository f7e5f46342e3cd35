"""The LLM as an annotator: examples in, an answer or a reasoned abstention for each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.domain.labels import Abstention, AbstentionReason, Example, PromptContext, WeakLabel
from backend.domain.ports import LanguageModel
from backend.domain.questions import Question, TaskSchema
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.llm.free_text import ask_written
from backend.llm.label_shortlist import (
    MAX_LABELS_AT_ONCE,
    N_SHORTLISTED,
    Shortlist,
    ask_shortlist,
)
from backend.llm.multilabel import ask_each_label
from backend.llm.prompt_batch import LLMCall, PromptBatch, flag_of
from backend.llm.prompts.templates import available_templates, prompt_version
from backend.llm.prompts.truncation import Deadline
from backend.llm.single_label import ask_exclusive
from backend.llm.spans import SpanAsker

_MAX_TEXTS_REMEMBERED = 4096


class LLMAnnotator:
    """The `Annotator` port over any language model.

    One `complete` call per question holds all examples, so that lists are full. `shortlist` picks
    the labels to read where a question has more than can be read at once: without it such a
    question is abstained from. `span_asker` answers questions about spans.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        shortlist: Shortlist | None = None,
        span_asker: SpanAsker | None = None,
    ) -> None:
        self._model = model
        self._shortlist = shortlist
        self._span_asker = span_asker or SpanAsker(model)
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

        Raises LanguageModelUnavailable when the model cannot be reached for any question, and
        LanguageModelRejected when it refuses the key or the model's name.
        """
        if not examples or not schema.questions:
            return []
        deadline = Deadline(deadline_s)
        info = self._model.describe(deadline_s=deadline.left_s())
        call = LLMCall(
            self._model,
            info,
            schema,
            instruction,
            prompt_context or PromptContext(),
            deadline,
            self._tokens,
        )
        answers, errors = [], []
        for question in schema.questions:
            try:
                answers.append(self._ask(call, question, examples))
            except UnsupportedLabelConfig as exc:
                reason = Abstention(AbstentionReason.REJECTED, str(exc))
                answers.append(_abstain(call, question, examples, reason))
            except LanguageModelError as exc:
                errors.append(exc)
                reason = Abstention(AbstentionReason.UNREACHABLE, str(exc))
                answers.append(_abstain(call, question, examples, reason))
        self._forget_some()
        if len(errors) == len(schema.questions):
            raise errors[0]
        return [weak for of_example in zip(*answers, strict=True) for weak in of_example]

    def templates(self, *, deadline_s: float | None = None) -> tuple[str, ...]:
        """Return the names of the prompt forms that the model's server can take."""
        return available_templates(self._model.describe(deadline_s=deadline_s))

    def _ask(
        self, call: LLMCall, question: Question, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        if question.kind.has_spans:
            return self._ask_spans(call, question, examples)
        if question.kind.is_free_text or not question.labels:
            return ask_written(call, question, examples)
        is_long = len(question.labels) > MAX_LABELS_AT_ONCE and not question.kind.is_ordinal
        shortlist = self._shortlist if is_long else None
        if question.kind.is_multilabel:
            chosen = shortlist and shortlist(question, examples, N_SHORTLISTED)
            return ask_each_label(call, question, examples, chosen)
        if shortlist is not None:
            return ask_shortlist(call, question, examples, shortlist)
        return ask_exclusive(call, question, examples)

    def _ask_spans(
        self, call: LLMCall, question: Question, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        labels = self._span_asker.ask(
            question,
            call.schema,
            call.instruction,
            examples,
            prompt_context=call.prompt_context,
            deadline_s=call.deadline.left_s(),
        )
        return [
            replace(label, injection_flag=flag_of(example, question))
            for example, label in zip(examples, labels, strict=True)
        ]

    def _forget_some(self) -> None:
        if len(self._tokens) > _MAX_TEXTS_REMEMBERED:
            self._tokens.clear()


def _abstain(
    call: LLMCall, question: Question, examples: Sequence[Example], reason: Abstention
) -> list[WeakLabel]:
    version = prompt_version(question, call.form_of(question))
    return PromptBatch(call, question, version).abstain(reason, examples)
