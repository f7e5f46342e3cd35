"""What asking has in common whatever is asked: texts in, prompts out, answers back in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from backend.llm.injection_flag import injection_flag
from backend.llm.prompts.templates import (
    DEFAULT_CHAT_TEMPLATE,
    DEFAULT_TEMPLATE,
    TEMPLATES,
    Layout,
    PromptTemplate,
    available_templates,
)
from backend.llm.prompts.text import slot_text
from backend.llm.prompts.truncation import Deadline, PromptTruncator, TruncatedPrompt

_NO_TEXT = Abstention(AbstentionReason.NO_TEXT, "the text is blank")
_NO_ANSWER = Abstention(AbstentionReason.UNREADABLE, "the model was not asked")

Read = Callable[[Completion], Mapping[str, Any] | Abstention]
"""Turns an answer into the fields of a weak label."""
Ending = Callable[[Demonstration], str | None]
"""Writes a demonstration's answer as the model is to write it; None: it does not fit."""


@dataclass(frozen=True, slots=True)
class LLMCall:
    """One call of an annotator: who is asked, about which project, until when.

    `tokens` remembers the tokens of answer words by model and text.
    """

    model: LanguageModel
    info: LanguageModelInfo
    schema: TaskSchema
    instruction: str
    prompt_context: PromptContext
    deadline: Deadline
    tokens: dict[tuple[str, str], tuple[int, ...]]

    def form_of(self, question: Question) -> PromptTemplate:
        """Return a question's template in the prompt context, if the server can take it."""
        template = TEMPLATES.get(
            self.prompt_context.templates.get(question.name, ""), TEMPLATES[DEFAULT_TEMPLATE]
        )
        if template.name in available_templates(self.info):
            return template
        return TEMPLATES[DEFAULT_TEMPLATE if self.info.has_plain else DEFAULT_CHAT_TEMPLATE]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of a short text, asked for once per model."""
        key = (self.info.name, text)
        if key not in self.tokens:
            self.tokens[key] = self.model.tokenize(text, deadline_s=self.deadline.left_s())
        return self.tokens[key]

    def truncator(self, decoding: Decoding) -> PromptTruncator:
        """Return what cuts texts so that an answer made like this still has room."""
        return PromptTruncator(
            self.model,
            self.info,
            self.deadline,
            n_answer_tokens=decoding.max_tokens,
            is_chat=decoding.is_chat,
        )

    def complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        """Complete the prompts; none costs nothing."""
        if not prompts:
            return []
        return self.model.complete(prompts, decoding, deadline_s=self.deadline.left_s())


class PromptBatch:
    """One question put about many examples; `version` is stored with every weak label."""

    def __init__(self, call: LLMCall, question: Question, version: str) -> None:
        self._call = call
        self._question = question
        self._version = version
        self._shots = call.prompt_context.shots.get(question.name, {})

    def prompts(
        self,
        examples: Sequence[Example],
        layouts: Sequence[Layout],
        ending: Ending,
        truncator: PromptTruncator,
    ) -> list[TruncatedPrompt]:
        """Return each example's prompt in its own layout, with its shots in the given order."""
        truncated = []
        for example, layout in zip(examples, layouts, strict=True):
            texts = self.texts(example)
            if isinstance(texts, Abstention):
                truncated.append(TruncatedPrompt(abstention=texts))
            else:
                shots = self._blocks(self._shots.get(example.id, ()), layout, ending)
                truncated.append(truncator.fit(replace(layout, shots=shots), texts))
        return truncated

    def texts(self, example: Example) -> dict[str, str] | Abstention:
        """Return the texts to read as they may stand in a prompt, or why there are none.

        The text that the answer is attached to is needed, and so are both sides of a comparison.
        Any other may be blank, but not lost on its way.
        """
        texts = self._slots(example.texts)
        for position, field in enumerate(self._question.fields):
            if field.name in texts:
                continue
            is_needed = position == 0 or self._question.kind.compares_texts
            why = example.missing.get(field.name, _NO_TEXT)
            if is_needed or why.reason is not AbstentionReason.NO_TEXT:
                return why
        return texts

    def ask(
        self,
        examples: Sequence[Example],
        truncated: Sequence[TruncatedPrompt],
        decoding: Decoding,
        read: Read,
    ) -> list[WeakLabel]:
        """Return one weak label per example; only those with a prompt cost anything."""
        positions = [at for at, one in enumerate(truncated) if one.abstention is None]
        completions = self._call.complete([truncated[at].prompt for at in positions], decoding)
        by_position = dict(zip(positions, completions, strict=True))
        return [
            self.answered(example, one, by_position.get(at), read)
            for at, (example, one) in enumerate(zip(examples, truncated, strict=True))
        ]

    def answered(
        self,
        example: Example,
        truncated: TruncatedPrompt,
        completion: Completion | None,
        read: Read,
    ) -> WeakLabel:
        """Return what one completion says, or why it says nothing."""
        if completion is None:
            return self.label(example, truncated.abstention or _NO_ANSWER)
        answer = failure_of(completion) or read(completion)
        return replace(
            self.label(example, answer),
            is_truncated=truncated.is_truncated,
            n_tokens_in=completion.n_tokens_in,
            n_tokens_out=completion.n_tokens_out,
        )

    def abstain(self, abstention: Abstention, examples: Sequence[Example]) -> list[WeakLabel]:
        """Return the same abstention for every example, except for those without a text."""
        found = [self.texts(example) for example in examples]
        return [
            self.label(example, own if isinstance(own, Abstention) else abstention)
            for example, own in zip(examples, found, strict=True)
        ]

    def label(self, example: Example, answer: Mapping[str, Any] | Abstention) -> WeakLabel:
        """Return a weak label with these fields, or the abstention."""
        fields = {"abstention": answer} if isinstance(answer, Abstention) else dict(answer)
        return WeakLabel(
            example_id=example.id,
            question=self._question.name,
            annotator=f"llm:{self._call.info.name}",
            prompt_version=self._version,
            injection_flag=flag_of(example, self._question),
            **fields,
        )

    def _slots(self, texts: Mapping[str, str]) -> dict[str, str]:
        slots = {
            field.name: slot_text(texts[field.name], field.format)
            for field in self._question.fields
            if field.name in texts
        }
        return {name: text for name, text in slots.items() if text}

    def _blocks(
        self, shots: Sequence[Demonstration], layout: Layout, ending: Ending
    ) -> tuple[str, ...]:
        blocks = []
        for shot in shots:
            answer, texts = ending(shot), self._slots(shot.texts)
            if answer is not None and texts:
                blocks.append(layout.block(texts, answer))
        return tuple(blocks)


def flag_of(example: Example, question: Question) -> str | None:
    """Return what in the texts that a question reads looks like an order; None for nothing."""
    names = [field.name for field in question.fields if field.name in example.texts]
    found = (injection_flag(example.texts[name], question) for name in names)
    return next((why for why in found if why is not None), None)


def failure_of(completion: Completion) -> Abstention | None:
    """Return why a completion holds no answer; None when it holds one."""
    if completion.failure is None:
        return None
    is_final = completion.was_refused
    reason = AbstentionReason.REJECTED if is_final else AbstentionReason.UNREACHABLE
    return Abstention(reason, completion.failure)
