"""Truncate prompts to the model's context length: shots first, then the longest text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.ports import LanguageModel, LanguageModelInfo, Prompt
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.prompts.layout import Layout, Shot

_N_SPARE_TOKENS = 8
"""Left free: at a text's edges a tokenizer may join tokens otherwise than in the count."""
_N_TEMPLATE_TOKENS = 64
"""Left free for the chat template's own tokens, and so many more for each turn."""
_N_TURN_TOKENS = 8
_MIN_TEXT_TOKENS = 16
_MAX_SHOTS_SHARE = 0.6
_NO_ROOM = "the prompt alone fills the model's context; shorten the instruction or the hints"


class Deadline:
    """The time left of a call."""

    def __init__(self, deadline_s: float | None) -> None:
        self._until = None if deadline_s is None else time.monotonic() + deadline_s

    def left_s(self) -> float | None:
        """Return the seconds left, not under 0; None without a deadline."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())


@dataclass(frozen=True, slots=True)
class TruncatedPrompt:
    """A prompt that fits the context, or why there is none."""

    prompt: Prompt = ""
    is_truncated: bool = False
    abstention: Abstention | None = None


class PromptTruncator:
    """Fills layouts with as much text as leaves room for an answer of `n_answer_tokens`."""

    def __init__(
        self,
        model: LanguageModel,
        info: LanguageModelInfo,
        deadline: Deadline,
        *,
        n_answer_tokens: int = 1,
    ) -> None:
        self._model = model
        self._deadline = deadline
        self._n_for_prompt = info.n_context_tokens - n_answer_tokens - _N_SPARE_TOKENS
        self._counts: dict[str, int] = {}
        self._failure: Abstention | None = None

    def fit(self, layout: Layout, texts: Mapping[str, str]) -> TruncatedPrompt:
        """Return the prompt of the texts, or of their longest prefixes that fit.

        A text has at most as many tokens as bytes, so that only long prompts are tokenized by the
        server. After one request without a response no more are sent.
        """
        prompt = layout.fill(texts)
        if len(str(prompt).encode()) + _n_template_tokens(prompt) <= self._n_for_prompt:
            return TruncatedPrompt(prompt)
        if self._failure is None:
            try:
                return self._cut(layout, texts)
            except LanguageModelUnavailable as exc:
                self._failure = Abstention(AbstentionReason.UNREACHABLE, str(exc))
            except LanguageModelRejected as exc:
                return TruncatedPrompt(abstention=Abstention(AbstentionReason.REJECTED, str(exc)))
        return TruncatedPrompt(abstention=self._failure)

    def _cut(self, layout: Layout, texts: Mapping[str, str]) -> TruncatedPrompt:
        names = [name for name, _ in layout.fields if name in texts]
        layout = self._with_fewer_shots(layout, names)
        fixed = layout.fill(dict.fromkeys(names, ""))
        n_for_texts = self._n_for_prompt - self._count_prompt(fixed)
        if n_for_texts < _MIN_TEXT_TOKENS * len(names):
            return TruncatedPrompt(abstention=Abstention(AbstentionReason.REJECTED, _NO_ROOM))
        if len(names) == 1:
            cut = {names[0]: self._truncate(texts[names[0]], n_for_texts)}
        else:
            counts = [self._count(texts[name]) for name in names]
            limits = token_limits(counts, n_for_texts)
            cut = {
                name: texts[name] if n <= limit else self._truncate(texts[name], limit)
                for name, n, limit in zip(names, counts, limits, strict=True)
            }
        is_truncated = any(len(cut[name]) < len(texts[name]) for name in names)
        return TruncatedPrompt(layout.fill(cut), is_truncated)

    def _with_fewer_shots(self, layout: Layout, names: Sequence[str]) -> Layout:
        """Return the layout with as many of its last shots as fit their share of the context."""
        if not layout.shots:
            return layout
        bare = replace(layout, shots=())
        n_fixed = self._count_prompt(bare.fill(dict.fromkeys(names, "")))
        n_left = _MAX_SHOTS_SHARE * (self._n_for_prompt - n_fixed)
        kept: list[Shot] = []
        for shot in reversed(layout.shots):
            n_left -= self._count(f"{shot.query} {shot.answer}")
            n_left -= 2 * _N_TURN_TOKENS if layout.is_chat else 0
            if n_left < 0:
                break
            kept.insert(0, shot)
        return replace(layout, shots=tuple(kept))

    def _truncate(self, text: str, n_tokens: int) -> str:
        return self._model.truncate(text, n_tokens, deadline_s=self._deadline.left_s())

    def _count_prompt(self, prompt: Prompt) -> int:
        return self._count(str(prompt)) + _n_template_tokens(prompt)

    def _count(self, text: str) -> int:
        if text not in self._counts:
            tokens = self._model.tokenize(text, deadline_s=self._deadline.left_s())
            self._counts[text] = len(tokens)
        return self._counts[text]


def _n_template_tokens(prompt: Prompt) -> int:
    """Return an upper bound of what a chat template adds to a prompt's own texts."""
    if isinstance(prompt, str):
        return 0
    return _N_TEMPLATE_TOKENS + _N_TURN_TOKENS * len(prompt.turns)


def token_limits(counts: Sequence[int], total: int) -> list[int]:
    """Return each text's token limit so that together they have at most `total`.

    The longest is cut first, down to the next longest, and so on: all cut texts end up equal.
    """
    if sum(counts) <= total:
        return list(counts)
    limits = [0] * len(counts)
    left = total
    order = sorted(range(len(counts)), key=lambda at: (counts[at], at))
    for n_done, at in enumerate(order):
        limits[at] = min(counts[at], left // (len(counts) - n_done))
        left -= limits[at]
    return limits
