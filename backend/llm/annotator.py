"""The LLM as an annotator: examples in, a posterior or a reasoned abstention for each out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.core.ports import Completion, Decoding, LanguageModel, LanguageModelInfo
from backend.core.types import (
    Abstention,
    AbstentionReason,
    Example,
    Question,
    TaskSchema,
    WeakLabel,
)
from backend.errors import (
    LanguageModelError,
    LanguageModelRejected,
    LanguageModelUnavailable,
    UnsupportedLabelConfig,
)
from backend.llm.prompts import PROMPT_VERSION, Prompt, build_prompt, slot_text
from backend.llm.reading import AnswerWords, Posterior, choose_answer_words, read_posterior

_N_ANSWER_TOKENS = 1
_N_SPARE_TOKENS = 8
"""Left free: a tokenizer may join a text's edges to the prompt differently than it counts them."""
_FEWEST_TEXT_TOKENS = 16
_MOST_QUESTIONS_REMEMBERED = 256
_NO_LOGPROBS = "the LLM server reports no log-probabilities by token id; vLLM does"
_NO_ROOM = "the prompt alone fills the model's context; shorten the instruction or the hints"


@dataclass(frozen=True, slots=True)
class _Slot:
    """What goes into the prompt for one example: its text, or why there is none."""

    text: str = ""
    is_truncated: bool = False
    abstention: Abstention | None = None


class LLMAnnotator:
    """The `Annotator` port over any language model.

    One `complete` call per question holds all examples, so that lists are full; each answer is
    one token.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._words: dict[tuple[LanguageModelInfo, Question], AnswerWords] = {}

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Answer every question about every example, example by example in the given order.

        Raises LanguageModelUnavailable when the model cannot be reached for any question, and
        LanguageModelRejected when it refuses the key or the model's name.
        """
        if not examples or not schema.questions:
            return []
        clock = _Clock(deadline_s)
        info = self._model.describe(deadline_s=clock.left_s())
        answers, errors = [], []
        for question in schema.questions:
            asking = _Asking(self._model, info, question, clock)
            try:
                words = self._answer_words(info, question, clock)
                prompt = build_prompt(schema, question, instruction, words)
                answers.append(asking.ask(prompt, words, examples))
            except UnsupportedLabelConfig as exc:
                answers.append(asking.abstain(AbstentionReason.REJECTED, str(exc), examples))
            except LanguageModelError as exc:
                errors.append(exc)
                answers.append(asking.abstain(AbstentionReason.UNREACHABLE, str(exc), examples))
        if len(errors) == len(schema.questions):
            raise errors[0]
        return [weak for of_example in zip(*answers, strict=True) for weak in of_example]

    def _answer_words(
        self, info: LanguageModelInfo, question: Question, clock: _Clock
    ) -> AnswerWords:
        """Return the question's answer words, read once per model."""
        key = (info, question)
        if key not in self._words:
            if len(self._words) >= _MOST_QUESTIONS_REMEMBERED:
                self._words.clear()
            self._words[key] = choose_answer_words(
                question.labels,
                lambda text: self._model.tokenize(text, deadline_s=clock.left_s()),
            )
        return self._words[key]


class _Asking:
    """One question put to one model about many examples."""

    def __init__(
        self, model: LanguageModel, info: LanguageModelInfo, question: Question, clock: _Clock
    ) -> None:
        self._model = model
        self._info = info
        self._question = question
        self._clock = clock

    def ask(
        self, prompt: Prompt, words: AnswerWords, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return one weak label per example; only those with a text cost anything."""
        if not self._info.reads_token_ids and not self._info.n_top_logprobs:
            return self.abstain(AbstentionReason.UNREADABLE, _NO_LOGPROBS, examples)
        fitter = _Fitter(self._model, self._info, prompt, self._clock)
        slots = [self._slot(example, fitter) for example in examples]
        positions = [at for at, slot in enumerate(slots) if slot.abstention is None]
        decoding = Decoding(
            max_tokens=_N_ANSWER_TOKENS, token_ids=words.token_ids, model=self._info.name
        )
        completions = self._complete([prompt.fill(slots[at].text) for at in positions], decoding)
        by_position = dict(zip(positions, completions, strict=True))
        return [
            self._weak_label(example, slot, by_position.get(at), words)
            for at, (example, slot) in enumerate(zip(examples, slots, strict=True))
        ]

    def abstain(
        self, reason: AbstentionReason, detail: str, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return the same abstention for every example, except for those without a text."""
        general = Abstention(reason, detail)
        return [self._abstained(example, self._missing(example) or general) for example in examples]

    def _complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        if not prompts:
            return []
        return self._model.complete(prompts, decoding, deadline_s=self._clock.left_s())

    def _slot(self, example: Example, fitter: _Fitter) -> _Slot:
        missing = self._missing(example)
        if missing is not None:
            return _Slot(abstention=missing)
        text = slot_text(example.texts[self._question.field.name])
        if not text:
            return _Slot(abstention=Abstention(AbstentionReason.NO_TEXT, "the text is blank"))
        return fitter.fit(text)

    def _missing(self, example: Example) -> Abstention | None:
        name = self._question.field.name
        if name in example.texts:
            return None
        return example.missing.get(name) or Abstention(AbstentionReason.NO_TEXT)

    def _weak_label(
        self, example: Example, slot: _Slot, completion: Completion | None, words: AnswerWords
    ) -> WeakLabel:
        if completion is None:
            return self._abstained(example, slot.abstention or Abstention(AbstentionReason.NO_TEXT))
        if completion.failure is not None:
            is_final = completion.was_refused
            reason = AbstentionReason.REJECTED if is_final else AbstentionReason.UNREACHABLE
            return self._abstained(example, Abstention(reason, completion.failure))
        posterior = read_posterior(completion, words.token_ids)
        if isinstance(posterior, Abstention):
            weak = self._abstained(example, posterior)
        else:
            weak = self._labelled(example, posterior)
        return replace(
            weak,
            is_truncated=slot.is_truncated,
            n_tokens_in=completion.n_tokens_in,
            n_tokens_out=completion.n_tokens_out,
        )

    def _labelled(self, example: Example, posterior: Posterior) -> WeakLabel:
        return WeakLabel(
            example_id=example.id,
            question=self._question.name,
            annotator=f"llm:{self._info.name}",
            prompt_version=PROMPT_VERSION,
            probabilities=posterior.probabilities,
            label_mass=posterior.label_mass,
        )

    def _abstained(self, example: Example, abstention: Abstention) -> WeakLabel:
        return WeakLabel(
            example_id=example.id,
            question=self._question.name,
            annotator=f"llm:{self._info.name}",
            prompt_version=PROMPT_VERSION,
            abstention=abstention,
        )


class _Fitter:
    """Cuts texts to what a prompt leaves of the model's context."""

    def __init__(
        self, model: LanguageModel, info: LanguageModelInfo, prompt: Prompt, clock: _Clock
    ) -> None:
        self._model = model
        self._n_for_prompt = info.n_context_tokens - _N_ANSWER_TOKENS - _N_SPARE_TOKENS
        self._prompt = prompt
        self._clock = clock
        self._n_for_text: int | None = None
        self._failure: str | None = None

    def fit(self, text: str) -> _Slot:
        """Return the text, or the longest beginning of it that fits.

        No tokenizer makes more tokens of a text than it has bytes, so that the server is asked
        about long texts only. After one question without an answer no more are asked.
        """
        if len(self._prompt.fill(text).encode()) <= self._n_for_prompt:
            return _Slot(text)
        if self._failure is not None:
            return _unreachable(self._failure)
        try:
            return self._cut(text)
        except LanguageModelUnavailable as exc:
            self._failure = str(exc)
            return _unreachable(self._failure)
        except LanguageModelRejected as exc:
            return _Slot(abstention=Abstention(AbstentionReason.REJECTED, str(exc)))

    def _cut(self, text: str) -> _Slot:
        if self._n_for_text is None:
            tokens = self._model.tokenize(self._prompt.fill(""), deadline_s=self._clock.left_s())
            self._n_for_text = self._n_for_prompt - len(tokens)
        if self._n_for_text < _FEWEST_TEXT_TOKENS:
            return _Slot(abstention=Abstention(AbstentionReason.REJECTED, _NO_ROOM))
        cut = self._model.truncate(text, self._n_for_text, deadline_s=self._clock.left_s())
        return _Slot(cut, is_truncated=len(cut) < len(text))


class _Clock:
    """What is left of a deadline."""

    def __init__(self, deadline_s: float | None) -> None:
        self._until = None if deadline_s is None else time.monotonic() + deadline_s

    def left_s(self) -> float | None:
        """Return the seconds left, not under 0; None without a deadline."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())


def _unreachable(detail: str) -> _Slot:
    return _Slot(abstention=Abstention(AbstentionReason.UNREACHABLE, detail))
