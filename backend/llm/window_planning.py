"""Decide in which windows a text is asked about, so that prompt and answer fit the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.domain.labels import Abstention, AbstentionReason
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.prompt_batch import LLMCall
from backend.llm.prompts.extraction import ExtractionPrompt, Shot
from backend.llm.text_windows import Window, split_text

_MAX_WINDOW_TOKENS = 512
"""A longer text goes in windows also where the context is larger: models lose pieces in it."""
_MIN_WINDOW_TOKENS = 16
_WINDOW_SHARE = 3
"""A window may take a third of what the rules leave of the context; its answer takes the rest."""
_OTHER_TEXT_SHARE = 8
_MAX_SHOTS_SHARE = 0.6
_N_SPARE_TOKENS = 72
"""Left free for the chat template's own tokens and those that are joined otherwise at edges."""
_MIN_ANSWER_TOKENS = 128
_BYTES_PER_ANSWER_TOKEN = 2
_BYTES_PER_TOKEN = 4
_NO_ROOM = "the prompt alone fills the model's context; shorten the instruction or the hints"


@dataclass(frozen=True, slots=True)
class PlannedText:
    """The windows of an example's text, and what stands beside them in each prompt.

    Args:
        others: the example's other texts by field name, from `slot_text`.
        max_answer_tokens: what the context leaves for an answer.
        is_truncated: whether one of the other texts was cut.
    """

    windows: tuple[Window, ...] = ()
    others: Mapping[str, str] | None = None
    shots: tuple[Shot, ...] = ()
    max_answer_tokens: int = 0
    is_truncated: bool = False
    abstention: Abstention | None = None

    def n_answer_tokens(self, text: str) -> int:
        """Return how long the answer about a window's text may be."""
        return min(_answer_tokens(text), self.max_answer_tokens)


class WindowPlanner:
    """Plans windows with the server's own tokenizer, which only long prompts need."""

    def __init__(self, call: LLMCall, prompt: ExtractionPrompt, field: str) -> None:
        self._call, self._prompt, self._field = call, prompt, field
        self._room = call.info.n_context_tokens - _N_SPARE_TOKENS
        self._counts: dict[str, int] = {}
        self._failure: Abstention | None = None

    def plan(self, text: str, shown: Mapping[str, str], shots: Sequence[Shot]) -> PlannedText:
        """Return the plan of a text; an abstention in it where the tokenizer failed.

        A text has at most as many tokens as bytes. After one request without a response no more
        are sent.

        Args:
            text: the text that spans lie in.
            shown: all texts by field name, from `slot_text`.
        """
        others = {name: other for name, other in shown.items() if name != self._field}
        n_bytes = len(str(self._prompt.fill(shown, shots)).encode())
        n_left = self._room - n_bytes
        is_short = len(text.encode()) <= _BYTES_PER_TOKEN * _MAX_WINDOW_TOKENS
        if is_short and n_left >= _answer_tokens(text):
            return PlannedText((Window(0, len(text)),), others, tuple(shots), n_left)
        if self._failure is not None:
            return PlannedText(abstention=self._failure)
        try:
            return self._split(text, others, shots)
        except LanguageModelUnavailable as exc:
            self._failure = Abstention(AbstentionReason.UNREACHABLE, str(exc))
            return PlannedText(abstention=self._failure)
        except LanguageModelRejected as exc:
            return PlannedText(abstention=Abstention(AbstentionReason.REJECTED, str(exc)))

    def _split(self, text: str, others: Mapping[str, str], shots: Sequence[Shot]) -> PlannedText:
        n_other = self._room // _OTHER_TEXT_SHARE
        cut = {name: self._truncate(other, n_other) for name, other in others.items()}
        empty = {**cut, self._field: ""}
        kept = self._shots_that_fit(shots, self._room - self._count(self._prompt.fill(empty)))
        n_left = self._room - self._count(self._prompt.fill(empty, kept))
        n_window = min(_MAX_WINDOW_TOKENS, n_left // _WINDOW_SHARE)
        if n_window < _MIN_WINDOW_TOKENS:
            return PlannedText(abstention=Abstention(AbstentionReason.REJECTED, _NO_ROOM))
        windows = split_text(text, lambda rest: len(self._truncate(rest, n_window)))
        n_answer = n_left - n_window - n_window // 8  # as it is shown a text can be a bit longer
        is_truncated = any(len(cut[name]) < len(other) for name, other in others.items())
        return PlannedText(tuple(windows), cut, kept, n_answer, is_truncated)

    def _shots_that_fit(self, shots: Sequence[Shot], n_tokens: int) -> tuple[Shot, ...]:
        """Return as many of the last demonstrations as fit their share of the context."""
        n_left = _MAX_SHOTS_SHARE * n_tokens
        kept: list[Shot] = []
        for texts, answer in reversed(shots):
            n_left -= self._count("\n".join((*texts.values(), answer)))
            if n_left < 0:
                break
            kept.insert(0, (texts, answer))
        return tuple(kept)

    def _truncate(self, text: str, n_tokens: int) -> str:
        if len(text.encode()) <= n_tokens:
            return text
        return self._call.model.truncate(text, n_tokens, deadline_s=self._call.deadline.left_s())

    def _count(self, prompt: object) -> int:
        text = str(prompt)
        if text not in self._counts:
            tokens = self._call.model.tokenize(text, deadline_s=self._call.deadline.left_s())
            self._counts[text] = len(tokens)
        return self._counts[text]


def _answer_tokens(text: str) -> int:
    """Return how many tokens an answer about a text may take: the next power of two."""
    wanted = max(_MIN_ANSWER_TOKENS, len(text.encode()) // _BYTES_PER_ANSWER_TOKEN)
    return 1 << (wanted - 1).bit_length()
