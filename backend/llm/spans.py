"""Questions about spans: the LLM writes the pieces out, and they are looked up in the text."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    Demonstration,
    Example,
    PromptContext,
    Span,
    WeakLabel,
)
from backend.domain.ports import Completion, Decoding, LanguageModel
from backend.domain.questions import Question, TaskSchema
from backend.llm.prompt_batch import LLMCall, PromptBatch, failure_of
from backend.llm.prompts.templates import Layout
from backend.llm.prompts.text import spoken_name, told_lines
from backend.llm.prompts.truncation import Deadline, PromptTruncator, TruncatedPrompt
from backend.llm.span_parsing import Mention, SpanCounts, SpanWords, align, mentions_of, vote

SpanForm = Literal["json", "lines"]
"""How an answer is written: held to a JSON schema, or cheaply as a line per piece."""

_VERSION = 1
"""Raised with every change of the wording; stored with every weak label."""
_MIN_CONTEXTS_PER_ANSWER = 4
"""An answer may take at most a quarter of the model's context: the texts need the rest."""
_NO_LIST = Abstention(AbstentionReason.UNREADABLE, "the model's answer is no list of pieces")


@dataclass(frozen=True, slots=True)
class SpanPlan:
    """How spans are asked for.

    `form` is the one that answers unless a prompt_context names another ("json" or "lines"). With
    `n_samples` of 1 the likeliest answer counts; with more, that many are drawn at `temperature`
    and a span needs `least_share` of their votes.
    """

    template: SpanForm = "json"
    n_samples: int = 1
    temperature: float = 0.7
    least_share: float = 0.5
    n_answer_tokens: int = 192
    seed: int = 0


class SpanAsker:
    """Asks a language model for labelled pieces of texts.

    Its answer names the pieces as strings. Those are searched in the text from the left, so that
    nothing that does not stand there can ever be labelled; "no entity" is an answer, and what
    cannot be read is an abstention. Several samples vote per span (self-consistency, Xie et al.,
    arXiv 2311.08921).
    """

    def __init__(self, model: LanguageModel, plan: SpanPlan | None = None) -> None:
        self._model = model
        self._plan = plan or SpanPlan()
        self._counts = SpanCounts()
        self._lock = threading.Lock()

    @property
    def counts(self) -> SpanCounts:
        """Return what became of all pieces that were named so far."""
        return self._counts

    def ask(
        self,
        question: Question,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Return one weak label per example, in order; raises LanguageModelError.

        A span's probability is its share of the samples; with one sample, where the server says
        how sure it is, the answer's mean probability per token. Neither is calibrated.
        """
        deadline = Deadline(deadline_s)
        info = self._model.describe(deadline_s=deadline.left_s())
        call = LLMCall(self._model, info, schema, instruction, prompt_context, deadline, {})
        writing = _Writing(
            question,
            _known_form(prompt_context.templates.get(question.name)) or self._plan.template,
        )
        asking = PromptBatch(call, question, f"spans/{writing.template}/{_VERSION}")
        n_answer_tokens = min(
            self._plan.n_answer_tokens, info.n_context_tokens // _MIN_CONTEXTS_PER_ANSWER
        )
        truncator = PromptTruncator(self._model, info, deadline, n_answer_tokens=n_answer_tokens)
        layouts = [writing.layout(schema, instruction)] * len(examples)
        truncated = asking.prompts(examples, layouts, writing.ending, truncator)
        prompts = [one.prompt for one in truncated if one.abstention is None]
        samples = iter(self._samples(call, prompts, writing, n_answer_tokens))
        return [
            self._weak_label(asking, example, one, writing)
            if one.abstention is not None
            else self._weak_label(asking, example, one, writing, next(samples))
            for example, one in zip(examples, truncated, strict=True)
        ]

    def _samples(
        self, call: LLMCall, prompts: Sequence[str], writing: _Writing, n_answer_tokens: int
    ) -> list[tuple[Completion, ...]]:
        """Return each prompt's samples. One call per sample: a call has one seed for all."""
        n = max(1, self._plan.n_samples)
        tells_logprobs = call.info.reads_token_ids or call.info.n_top_logprobs > 0
        decoding = Decoding(
            max_tokens=n_answer_tokens,
            temperature=self._plan.temperature if n > 1 else 0.0,
            model=call.info.name,
            stop=writing.stop,
            json_schema=writing.json_schema,
            n_logprobs=1 if n == 1 and tells_logprobs else 0,
        )
        seeds = [self._plan.seed + number if n > 1 else None for number in range(n)]
        drawn = [call.complete(prompts, replace(decoding, seed=seed)) for seed in seeds]
        return list(zip(*drawn, strict=True))

    def _weak_label(
        self,
        asking: PromptBatch,
        example: Example,
        truncated: TruncatedPrompt,
        writing: _Writing,
        samples: Sequence[Completion] = (),
    ) -> WeakLabel:
        """Return what the samples say together, and count what was wrong with their pieces."""
        readings, counts = [], SpanCounts(n_answers=len(samples))
        for completion in samples:
            mentions = None if completion.failure is not None else writing.read(completion)
            if mentions is None:
                counts += SpanCounts(n_unreadable=1)
                continue
            spans, of_one = align(example.texts[writing.field_name], mentions)
            counts += of_one
            readings.append(spans)
        with self._lock:
            self._counts += counts
        failures = [why for why in map(failure_of, samples) if why is not None]
        answer: Mapping[str, Any] | Abstention
        if not readings:
            answer = truncated.abstention or next(iter(failures), _NO_LIST)
        elif len(samples) == 1:
            answer = _as_sure_as(samples[0], readings[0])
        else:
            spans, confidence = vote(readings, least_share=self._plan.least_share)
            answer = {"spans": spans, "confidence": confidence}
        return replace(
            asking.label(example, answer),
            is_truncated=truncated.is_truncated,
            n_tokens_in=sum(completion.n_tokens_in for completion in samples),
            n_tokens_out=sum(completion.n_tokens_out for completion in samples),
        )


class _Writing:
    """How one question is written down in one form, and how its answers are read."""

    def __init__(self, question: Question, template: SpanForm) -> None:
        self.template = template
        self.field_name = question.field.name
        self._words = SpanWords(question)
        self._question = question
        is_json = template == "json"
        self.json_schema = self._words.schema() if is_json else None
        next_text = f"\n{spoken_name(question.field.name)}:"
        self.stop = ("\n\n",) if is_json else ("\n\n", next_text)

    def layout(self, schema: TaskSchema, instruction: str) -> Layout:
        """Return the prompt but for its texts."""
        lines = told_lines(schema, instruction) + self._words.told(self._question)
        asked = spoken_name(self._question.name)
        return Layout(
            opening="".join(f"{line}\n" for line in lines),
            fields=tuple((one.name, spoken_name(one.name)) for one in self._question.fields),
            asked=f"{asked} in JSON:" if self.template == "json" else f"{asked} found:",
        )

    def ending(self, shot: Demonstration) -> str | None:
        """Return a demonstration's answer as the model is to write it."""
        text = shot.texts.get(self.field_name)
        if text is None:
            return None
        mentions = self._words.known(mentions_of(text, shot.answer.spans))
        if self.template == "json":
            return self._words.as_json(mentions)
        return self._words.as_lines(mentions)

    def read(self, completion: Completion) -> list[Mention] | None:
        """Return what an answer names, whole pieces only; None when it cannot be read."""
        is_cut = completion.finish_reason == "length"
        if self.template == "json":
            return self._words.read_json(completion.text, is_cut=is_cut)
        mentions = self._words.read_lines(completion.text)
        if mentions and is_cut:
            return mentions[:-1] or None
        return mentions


def _known_form(name: str | None) -> SpanForm | None:
    if name == "json":
        return "json"
    return "lines" if name == "lines" else None


def _as_sure_as(completion: Completion, spans: tuple[Span, ...]) -> dict[str, Any]:
    """Return spans with the answer's mean probability per token, where the server tells it."""
    if completion.mean_logprob is None or not math.isfinite(completion.mean_logprob):
        return {"spans": spans}
    share = math.exp(min(0.0, completion.mean_logprob))
    sure = tuple(Span(s.start, s.end, s.label, share) for s in spans)
    return {"spans": sure, "confidence": share}
