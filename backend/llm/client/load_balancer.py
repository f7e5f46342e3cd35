"""Several servers of one model as one: each takes a block of the prompts, others its failures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo
from backend.errors import LanguageModelUnavailable

_LOG = logging.getLogger(__name__)
_REST_S = 30.0
"""How long a server that failed is asked last."""

Result = TypeVar("Result")


class Replicas:
    """The `LanguageModel` port over servers that serve the same model.

    Prompts are dealt out in blocks, not one by one: neighbours share their in-context examples, so
    that each server's prefix cache holds what its block needs. What a server fails to answer goes
    to the others once.
    """

    def __init__(self, models: Sequence[LanguageModel]) -> None:
        self._models = list(models)
        self._rests_until = [0.0] * len(self._models)
        self._lock = threading.Lock()

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the first server that answers offers."""
        return self._any(lambda model, left_s: model.describe(deadline_s=left_s), deadline_s)

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added."""
        return self._any(lambda model, left_s: model.tokenize(text, deadline_s=left_s), deadline_s)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens."""
        return self._any(
            lambda model, left_s: model.truncate(text, n_tokens, deadline_s=left_s), deadline_s
        )

    def close(self) -> None:
        """Close all connections."""
        for model in self._models:
            close = getattr(model, "close", None)
            if close is not None:
                close()

    def complete(
        self, prompts: Sequence[str], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt; same length and order as `prompts`."""
        if not prompts:
            return []
        until = None if deadline_s is None else time.monotonic() + deadline_s
        if not decoding.model:
            decoding = replace(decoding, model=self.describe(deadline_s=deadline_s).name)
        answers: list[Completion | None] = [None] * len(prompts)
        todo = list(range(len(prompts)))
        error: LanguageModelUnavailable | None = None
        for at_once in self._rounds():
            error = self._round(at_once, todo, answers, (prompts, decoding, until)) or error
            todo = [at for at in todo if _is_lost(answers[at])]
            if not todo or (until is not None and time.monotonic() >= until):
                break
        if error is not None and all(_is_lost(answer) for answer in answers):
            raise error
        return [answer or Completion(failure=str(error)) for answer in answers]

    def _rounds(self) -> list[list[int]]:
        """Return which servers are asked together: those that work, then each of all by itself."""
        fit = [at for at in range(len(self._models)) if time.monotonic() >= self._rests_until[at]]
        rest = [at for at in range(len(self._models)) if at not in fit]
        return [group for group in (fit, *([at] for at in (*fit, *rest))) if group]

    def _round(
        self,
        at_once: list[int],
        todo: list[int],
        answers: list[Completion | None],
        asked: tuple[Sequence[str], Decoding, float | None],
    ) -> LanguageModelUnavailable | None:
        """Deal the prompts out in blocks and take in the answers; return what went wrong."""
        prompts, decoding, until = asked
        size = -(-len(todo) // len(at_once))
        blocks = [todo[start : start + size] for start in range(0, len(todo), size)]
        error: LanguageModelUnavailable | None = None
        with ThreadPoolExecutor(len(blocks), thread_name_prefix="replica") as pool:
            futures = [
                pool.submit(
                    self._models[server].complete,
                    [prompts[at] for at in block],
                    decoding,
                    deadline_s=_left_s(until),
                )
                for server, block in zip(at_once, blocks, strict=False)
            ]
            for server, block, future in zip(at_once, blocks, futures, strict=False):
                try:
                    completions = future.result()
                except LanguageModelUnavailable as exc:
                    error = exc
                    self._let_rest(server, exc)
                else:
                    for at, completion in zip(block, completions, strict=True):
                        answers[at] = completion
        return error

    def _any(
        self, ask: Callable[[LanguageModel, float | None], Result], deadline_s: float | None
    ) -> Result:
        """Return the first answer; raises the last server's error."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        order = sorted(range(len(self._models)), key=lambda at: (self._rests_until[at], at))
        error = LanguageModelUnavailable("there is no LLM server to ask; set LLM_BASE_URL")
        for server in order:
            try:
                return ask(self._models[server], _left_s(until))
            except LanguageModelUnavailable as exc:
                error = exc
                self._let_rest(server, exc)
        raise error

    def _let_rest(self, server: int, exc: LanguageModelUnavailable) -> None:
        with self._lock:
            self._rests_until[server] = time.monotonic() + _REST_S
        _LOG.warning("LLM server %d of %d: %s", server + 1, len(self._models), exc)


def _is_lost(answer: Completion | None) -> bool:
    return answer is None or (answer.failure is not None and not answer.was_refused)


def _left_s(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())
