"""Many prompts through a server that takes lists: how long, how many at once, what to do again."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from backend.domain.ports import Completion
from backend.llm.client.connection import FailureKind, ServerFailed, ServerRefused

Ask = Callable[[Sequence[str]], list[Completion | None]]
"""Sends one list; None stands for an answer that cannot be used."""

_LONGEST_PAUSE_S = 8.0
_LONGEST_OBEDIENCE_S = 120.0
"""The most that is waited because a server asked for it in Retry-After."""
_MAX_PAUSES = {
    FailureKind.DOWN: 3,
    FailureKind.SLOW: 2,
    FailureKind.BUSY: 6,
    FailureKind.BROKEN: 4,
    FailureKind.NONSENSE: 4,
    FailureKind.GONE: 0,
}
_MAX_TRIES_ALONE = 3
_MAX_IN_A_HURRY = 8
"""List length under a deadline: a list is answered as a whole, so that short ones save more."""
_ECHO_CHARS = 16
_dice = random.SystemRandom()


class Pace:
    """How long lists are and how many are in flight: halved when the server cannot keep up.

    As in TCP: a failure halves both, once per round of requests; each answered list gives a
    sixteenth back, unless it took over half of `timeout_s`. A cautious pace starts at an eighth
    and doubles until the first failure: a long list of long answers can outlast any time limit.
    """

    def __init__(
        self, batch_size: int, concurrency: int, *, timeout_s: float, is_cautious: bool = False
    ) -> None:
        self.most_concurrency = concurrency
        self._most_batch_size = batch_size
        self._least_share = 1 / max(batch_size, concurrency)
        self._comfortable_s = timeout_s / 2
        self._is_doubling = is_cautious
        self._share = max(self._least_share, 1 / 8) if is_cautious else 1.0
        self._halved_at = 0.0
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """How many prompts a list may hold now."""
        return max(1, round(self._most_batch_size * self._share))

    @property
    def concurrency(self) -> int:
        """How many lists may be in flight now."""
        return max(1, round(self.most_concurrency * self._share))

    def succeeded(self, seconds: float) -> None:
        """Take back a little of what was given up, if there is time to spare."""
        with self._lock:
            if seconds <= self._comfortable_s:
                more = self._share if self._is_doubling else 1 / 16
                self._share = min(1.0, self._share + more)

    def failed(self, started_at: float, *, is_last_try: bool = False) -> None:
        """Halve, or go down to one prompt; not if the request was sent before the last halving."""
        with self._lock:
            if started_at >= self._halved_at:
                self._share = 0.0 if is_last_try else self._share / 2
                self._share = max(self._least_share, self._share)
                self._is_doubling = False
                self._halved_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Prompts, by position, that go out in one list; `n_failures` counts only when it is one."""

    positions: tuple[int, ...]
    n_failures: int = 0

    def halves(self) -> list[_Piece]:
        middle = len(self.positions) // 2
        return [_Piece(self.positions[:middle]), _Piece(self.positions[middle:])]


class PromptRun:
    """One call's prompts, from the first list to the last answer.

    The calling thread decides; other threads only send. A list that the server refuses is halved
    until the prompt to blame stands alone; a list that fails is halved after a pause, so that one
    poisonous prompt cannot sink its neighbours. Nobody waits a third time for a list: a server
    that was too slow twice is sent a single prompt before it is given up. At the deadline the call
    returns, whatever the sending threads are still waiting for.
    """

    def __init__(
        self, prompts: Sequence[str], ask: Ask, pace: Pace, *, first_pause_s: float
    ) -> None:
        self._prompts = prompts
        self._ask = ask
        self._pace = pace
        self._first_pause_s = first_pause_s
        self._answers: list[Completion | None] = [None] * len(prompts)
        self._waiting = deque([_Piece(tuple(range(len(prompts))))] if prompts else [])
        self._flying: dict[Future[list[Completion | None]], tuple[_Piece, float]] = {}
        self._n_pauses = 0
        self._paused_at = 0.0
        self._go_on_at = 0.0
        self._last_error: ServerFailed | ServerRefused | None = None

    def run(self, *, until: float | None, deadline_s: float | None) -> list[Completion]:
        """Return an answer or a failure for every prompt; raises the last error if all failed."""
        pool = ThreadPoolExecutor(self._pace.most_concurrency, thread_name_prefix="llm")
        try:
            while self._waiting or self._flying:
                if until is not None and time.monotonic() >= until:
                    return self._late(deadline_s)
                self._send(pool, _MAX_IN_A_HURRY if until is not None else len(self._prompts))
                self._collect(until)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._all()

    def _send(self, pool: ThreadPoolExecutor, n_most: int) -> None:
        while (
            self._waiting
            and len(self._flying) < self._pace.concurrency
            and time.monotonic() >= self._go_on_at
        ):
            piece = self._next_piece(min(n_most, self._pace.batch_size))
            prompts = [self._prompts[position] for position in piece.positions]
            self._flying[pool.submit(self._ask, prompts)] = (piece, time.monotonic())

    def _next_piece(self, n_most: int) -> _Piece:
        piece = self._waiting.popleft()
        if len(piece.positions) <= n_most:
            return piece
        self._waiting.appendleft(_Piece(piece.positions[n_most:]))
        return _Piece(piece.positions[:n_most])

    def _collect(self, until: float | None) -> None:
        """Wait for the next thing to happen and take in what has come."""
        moments = [until] if until is not None else []
        if self._waiting and len(self._flying) < self._pace.concurrency:
            moments.append(self._go_on_at)
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        if not self._flying:
            time.sleep(timeout or 0.0)
            return
        done, _ = wait(self._flying, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in done:
            piece, started_at = self._flying.pop(future)
            self._take_in(future, piece, started_at)

    def _take_in(
        self, future: Future[list[Completion | None]], piece: _Piece, started_at: float
    ) -> None:
        try:
            answers = future.result()
        except ServerRefused as exc:
            self._refused(piece, exc)
        except ServerFailed as exc:
            self._failed(piece, exc, started_at)
        else:
            self._pace.succeeded(time.monotonic() - started_at)
            self._answered(piece, answers)

    def _answered(self, piece: _Piece, answers: list[Completion | None]) -> None:
        self._n_pauses = 0
        unusable = ServerFailed(FailureKind.NONSENSE, "the LLM server's answer is unusable")
        for position, answer in zip(piece.positions, answers, strict=True):
            if answer is not None:
                self._answers[position] = answer
            else:
                self._last_error = unusable
                self._once_more(_Piece((position,), piece.n_failures), unusable)

    def _refused(self, piece: _Piece, exc: ServerRefused) -> None:
        if not exc.blames_prompts:
            self._give_up(exc)
        elif len(piece.positions) > 1:
            self._waiting.extendleft(reversed(piece.halves()))
        else:
            position = piece.positions[0]
            message = _without_echo(str(exc), self._prompts[position])
            self._answers[position] = Completion(failure=message, was_refused=True)

    def _failed(self, piece: _Piece, exc: ServerFailed, started_at: float) -> None:
        self._last_error = exc
        if exc.kind in (FailureKind.BUSY, FailureKind.SLOW):
            is_last_try = exc.kind is FailureKind.SLOW and self._n_pauses > 0
            self._pace.failed(started_at, is_last_try=is_last_try)
        self._once_more(piece, exc)
        if started_at >= self._paused_at:
            self._pause(exc)

    def _once_more(self, piece: _Piece, exc: ServerFailed) -> None:
        if len(piece.positions) > 1:
            self._waiting.extend(piece.halves())
        elif piece.n_failures + 1 < _MAX_TRIES_ALONE or exc.kind is FailureKind.BUSY:
            self._waiting.append(_Piece(piece.positions, piece.n_failures + 1))
        else:
            self._answers[piece.positions[0]] = Completion(failure=str(exc))

    def _pause(self, exc: ServerFailed) -> None:
        """Hold all lists back, longer each time in a row; too often in a row is the end."""
        self._n_pauses += 1
        if self._n_pauses > _MAX_PAUSES[exc.kind]:
            self._give_up(exc)
            return
        pause_s = min(_LONGEST_PAUSE_S, self._first_pause_s * 2 ** (self._n_pauses - 1))
        asked_s = min(_LONGEST_OBEDIENCE_S, exc.retry_after_s or 0.0)
        self._paused_at = time.monotonic()
        self._go_on_at = self._paused_at + max(asked_s, pause_s * _dice.uniform(0.5, 1.0))

    def _give_up(self, exc: ServerFailed | ServerRefused) -> None:
        self._last_error = exc
        self._waiting.clear()

    def _all(self) -> list[Completion]:
        is_lost = all(answer is None or _is_transport(answer) for answer in self._answers)
        if self._last_error is not None and is_lost:
            raise self._last_error
        return [answer or Completion(failure=str(self._last_error)) for answer in self._answers]

    def _late(self, deadline_s: float | None) -> list[Completion]:
        failure = f"no answer within {deadline_s or 0:g} s"
        return [answer or Completion(failure=failure) for answer in self._answers]


def _is_transport(answer: Completion) -> bool:
    return answer.failure is not None and not answer.was_refused


def _without_echo(message: str, prompt: str) -> str:
    """Return the message unless it quotes the prompt: validators like to repeat their input."""
    n_windows = max(1, len(message) - _ECHO_CHARS + 1)
    windows = (message[start : start + _ECHO_CHARS] for start in range(n_windows))
    if any(window in prompt for window in windows):
        return "the LLM server refused this prompt"
    return message
