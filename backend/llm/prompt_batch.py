"""One question about many examples: texts to prompts, completions to weak labels, in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    Demonstration,
    Example,
    PromptContext,
    WeakLabel,
)
from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo
from backend.domain.questions import Question, TaskSchema
from backend.llm.client.thoughts import THINKING
from backend.llm.injection_flag import injection_flag
from backend.llm.prompts.layout import Layout, Shot
from backend.llm.prompts.templates import (
    DEFAULT_CHAT_TEMPLATE,
    DEFAULT_TEMPLATE,
    TEMPLATES,
    PromptTemplate,
    slot_text,
)
from backend.llm.prompts.truncation import Deadline, PromptTruncator, TruncatedPrompt

_ONLY_THOUGHTS = (
    "the model was still thinking when its answer reached the limit; serve it with thinking off"
)
_NO_ANSWER = Abstention(AbstentionReason.UNREADABLE, "the model was not asked")

_MAX_MASKED = 80

ParseAnswer = Callable[[Completion], Mapping[str, Any] | Abstention]
"""Returns the fields of a weak label that a completion gives."""
FormatAnswer = Callable[[Demonstration], str | None]
"""Returns a demonstration's answer as the model is to write it; None: it does not fit."""


@dataclass(frozen=True, slots=True)
class LLMCall:
    """One call of an annotator: the model, the project's task, the prompt context, the deadline.

    `tokens` caches the tokens of answer words by model and text; `unreadable` collects the
    completions that hold no answer.
    """

    model: LanguageModel
    info: LanguageModelInfo
    schema: TaskSchema
    instruction: str
    prompt_context: PromptContext
    deadline: Deadline
    tokens: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    unreadable: list[Completion] = field(default_factory=list)

    def read(self, completion: Completion, parse: ParseAnswer) -> Mapping[str, Any] | Abstention:
        """Return the fields of a weak label, or why there are none.

        The detail of an unreadable answer shows its form with all words masked.
        """
        answer = failure_of(completion) or parse(completion)
        if not isinstance(answer, Abstention) or answer.reason is not AbstentionReason.UNREADABLE:
            return answer
        return self.unread(completion, answer)

    def unread(self, completion: Completion, why: Abstention) -> Abstention:
        """Note a completion that cannot be read; return why, with the answer's form."""
        self.unreadable.append(completion)
        shown = masked(completion.text)
        return replace(why, detail=f"{why.detail}: {shown}") if shown else why

    @property
    def has_logprobs(self) -> bool:
        """Whether the server reports any log-probabilities."""
        return self.info.reads_token_ids or self.info.n_top_logprobs > 0

    def template_for(self, question: Question) -> PromptTemplate:
        """Return a question's template in the prompt context, if the server can take it."""
        name = self.prompt_context.templates.get(question.name, "")
        template = TEMPLATES.get(name, TEMPLATES[DEFAULT_TEMPLATE])
        if self.info.has_chat if template.is_chat else self.info.has_plain:
            return template
        return TEMPLATES[DEFAULT_TEMPLATE if self.info.has_plain else DEFAULT_CHAT_TEMPLATE]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a short text, requested once per model."""
        key = (self.info.name, text)
        if key not in self.tokens:
            self.tokens[key] = self.model.tokenize(text, deadline_s=self.deadline.left_s())
        return self.tokens[key]

    def truncator(self, decoding: Decoding) -> PromptTruncator:
        """Return the truncator that leaves room for an answer made with this decoding."""
        return PromptTruncator(
            self.model, self.info, self.deadline, n_answer_tokens=decoding.max_tokens
        )


class PromptBatch:
    """The prompts of one question; `version` is stored with every weak label."""

    def __init__(self, call: LLMCall, question: Question, version: str) -> None:
        self._call = call
        self._question = question
        self._version = version
        self._demonstrations = call.prompt_context.demonstrations.get(question.name, ())
        self._shots = call.prompt_context.shots.get(question.name, {})

    def prompts(
        self,
        examples: Sequence[Example],
        layout: Layout,
        format_answer: FormatAnswer,
        truncator: PromptTruncator,
    ) -> list[TruncatedPrompt]:
        """Return each example's prompt, with its shots in the given order."""
        prompts = []
        for example in examples:
            texts = self.texts(example)
            if isinstance(texts, Abstention):
                prompts.append(TruncatedPrompt(abstention=texts))
                continue
            shots = tuple(
                Shot(layout.query(shown), answer)
                for shown, answer in self.shots(example, format_answer)
            )
            prompt = truncator.fit(replace(layout, shots=shots), texts)
            is_cut = not example.truncated.isdisjoint(texts)
            prompts.append(replace(prompt, is_truncated=prompt.is_truncated or is_cut))
        return prompts

    def complete(
        self, prompts: Sequence[TruncatedPrompt], decoding: Decoding
    ) -> list[Completion | None]:
        """Return the completions of those prompts that are no abstentions, None for the others."""
        asked = [at for at, prompt in enumerate(prompts) if prompt.abstention is None]
        if not asked:
            return [None] * len(prompts)
        call = self._call
        completions = call.model.complete(
            [prompts[at].prompt for at in asked], decoding, deadline_s=call.deadline.left_s()
        )
        by_position = dict(zip(asked, completions, strict=True))
        return [by_position.get(at) for at in range(len(prompts))]

    def annotate(
        self,
        examples: Sequence[Example],
        prompts: Sequence[TruncatedPrompt],
        decoding: Decoding,
        parse: ParseAnswer,
    ) -> list[WeakLabel]:
        """Return one weak label per example; abstained prompts cost no request."""
        completions = self.complete(prompts, decoding)
        return [
            self.weak_label(example, prompt, completion, parse)
            for example, prompt, completion in zip(examples, prompts, completions, strict=True)
        ]

    def weak_label(
        self,
        example: Example,
        prompt: TruncatedPrompt,
        completion: Completion | None,
        parse: ParseAnswer,
    ) -> WeakLabel:
        """Return the weak label of one completion, or an abstention with its reason."""
        if completion is None:
            return self.label(example, prompt.abstention or _NO_ANSWER)
        return replace(
            self.label(example, self._call.read(completion, parse)),
            is_truncated=prompt.is_truncated,
            n_tokens_in=completion.n_tokens_in,
            n_tokens_out=completion.n_tokens_out,
        )

    def abstain(self, abstention: Abstention, examples: Sequence[Example]) -> list[WeakLabel]:
        """Return the same abstention for every example, except for those without a text."""
        labels = []
        for example in examples:
            own = self.texts(example)
            labels.append(self.label(example, own if isinstance(own, Abstention) else abstention))
        return labels

    def shots(
        self, example: Example, format_answer: FormatAnswer
    ) -> list[tuple[dict[str, str], str]]:
        """Return an example's demonstrations: their texts as a prompt shows them, their answers.

        A text is never shown with its own answer.
        """
        shots = []
        for shot in self._shots.get(example.id, self._demonstrations):
            if shot.example_id == example.id:
                continue
            answer, shown = format_answer(shot), self._slots(shot.texts)
            if answer is not None and shown:
                shots.append((shown, answer))
        return shots

    def texts(self, example: Example) -> dict[str, str] | Abstention:
        """Return the texts by field as they may stand in a prompt, or why there are none."""
        texts = self._slots(example.texts)
        return replace(example, texts=texts).why_not_asked(self._question) or texts

    def _slots(self, texts: Mapping[str, str]) -> dict[str, str]:
        slots = {
            one.name: slot_text(texts[one.name], one.format)
            for one in self._question.fields
            if one.name in texts
        }
        return {name: text for name, text in slots.items() if text}

    def label(self, example: Example, answer: Mapping[str, Any] | Abstention) -> WeakLabel:
        """Return a weak label with the given fields, or an abstention."""
        fields = {"abstention": answer} if isinstance(answer, Abstention) else dict(answer)
        flags = (
            injection_flag(example.texts[one.name], self._question)
            for one in self._question.fields
            if one.name in example.texts
        )
        return WeakLabel(
            example_id=example.id,
            question=self._question.name,
            annotator=annotator_name(self._call.info),
            prompt_version=self._version,
            injection_flag=next((flag for flag in flags if flag is not None), None),
            **fields,
        )


def failure_of(completion: Completion) -> Abstention | None:
    """Return why a completion holds no answer; None when it holds one."""
    reasons = AbstentionReason
    if completion.finish_reason == THINKING:
        return Abstention(reasons.UNREADABLE, _ONLY_THOUGHTS)
    reason = reasons.REJECTED if completion.was_refused else reasons.UNREACHABLE
    return None if completion.failure is None else Abstention(reason, completion.failure)


def annotator_name(info: LanguageModelInfo) -> str:
    """Return the name under which a model's labels are stored."""
    return f"llm:{info.name}"


def masked(text: str) -> str:
    """Return the form of a text in at most 80 characters: letters are x, digits are 0."""
    form = "".join("x" if c.isalpha() else "0" if c.isdigit() else c for c in text[:400])
    form = " ".join(form.split())
    return f"{form[:_MAX_MASKED]}\u2026" if len(form) > _MAX_MASKED else form


def mean_probability(completion: Completion) -> float | None:
    """Return the geometric mean of an answer's token probabilities, None if not reported."""
    if completion.mean_logprob is None or not math.isfinite(completion.mean_logprob):
        return None
    return math.exp(min(0.0, completion.mean_logprob))
