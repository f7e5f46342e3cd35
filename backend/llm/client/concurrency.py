"""Send many prompts in batches of adaptive size, with retries that isolate a bad prompt."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from backend.domain.ports import Completion, Prompt
from backend.llm.client.connection import FailureKind, RequestRejected, ServerError

SendBatch = Callable[[Sequence[Prompt]], list[Completion | None]]
"""Sends one batch of prompts; None stands for a response that cannot be used."""

_MAX_BACKOFF_S = 8.0
_MAX_RETRY_AFTER_S = 120.0
_MAX_BACKOFFS = {
    FailureKind.DOWN: 3,
    FailureKind.TIMEOUT: 2,
    FailureKind.BUSY: 6,
    FailureKind.BROKEN: 4,
    FailureKind.MALFORMED: 4,
    FailureKind.OTHER_MODEL: 0,
}
_MAX_TRIES_ALONE = 3
_MAX_BATCH_UNDER_DEADLINE = 8
"""A batch is answered as a whole, so that under a deadline short ones save more."""
_ECHO_CHARS = 16
"""A message that quotes so much of a prompt is not kept: validators like to repeat their input."""
_jitter = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of the requests to one server.

    `timeout_s` is for one request with a short answer; `concurrency` is the most in flight; the
    backoff is doubled at each failure in a row.
    """

    timeout_s: float = 120.0
    batch_size: int = 64
    concurrency: int = 3
    first_backoff_s: float = 0.5


class AdaptiveConcurrency:
    """Adapt batch size and concurrency to what the server can take.

    Additive increase, multiplicative decrease, as in TCP: a failure halves both, once per set of
    concurrent requests; each completed batch gives a sixteenth back, unless it took over half of
    the time limit. A slow start begins at an eighth and doubles until the first failure: a long
    batch of long answers can outlast any time limit.
    """

    def __init__(self, limits: RequestLimits, *, slow_start: bool = False) -> None:
        self.max_concurrency = limits.concurrency
        self._max_batch_size = limits.batch_size
        self._min_share = 1 / max(limits.batch_size, limits.concurrency)
        self._comfortable_s = limits.timeout_s / 2
        self._is_doubling = slow_start
        self._share = max(self._min_share, 1 / 8) if slow_start else 1.0
        self._halved_at = 0.0
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """How many prompts a batch may hold now."""
        return max(1, round(self._max_batch_size * self._share))

    @property
    def concurrency(self) -> int:
        """How many batches may be in flight now."""
        return max(1, round(self.max_concurrency * self._share))

    def increase(self, seconds: float) -> None:
        """Raise both a little after a batch that took `seconds`, if there was time to spare."""
        with self._lock:
            if seconds <= self._comfortable_s:
                more = self._share if self._is_doubling else 1 / 16
                self._share = min(1.0, self._share + more)

    def decrease(self, started_at: float, *, to_minimum: bool = False) -> None:
        """Halve both, or go to the minimum; not if the request began before the last halving."""
        with self._lock:
            if started_at >= self._halved_at:
                self._share = max(self._min_share, 0.0 if to_minimum else self._share / 2)
                self._is_doubling = False
                self._halved_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Positions of prompts that go out together; `n_failures` counts only for a single one."""

    positions: tuple[int, ...]
    n_failures: int = 0

    def halves(self) -> list[_Batch]:
        middle = len(self.positions) // 2
        return [_Batch(self.positions[:middle]), _Batch(self.positions[middle:])]


class BatchedCompletion:
    """The prompts of one call, from the first batch to the last response.

    The calling thread decides, other threads only send. A rejected batch is halved until the
    prompt at fault stands alone; a failed batch is halved after a backoff, so that one bad prompt
    cannot fail its neighbors. After two timeouts a single prompt is sent before the server is
    given up. At the deadline the call returns, whatever the other threads still wait for.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        send: SendBatch,
        adaptive: AdaptiveConcurrency,
        *,
        first_backoff_s: float,
    ) -> None:
        self._prompts = prompts
        self._send_batch = send
        self._adaptive = adaptive
        self._first_backoff_s = first_backoff_s
        self._completions: list[Completion | None] = [None] * len(prompts)
        self._pending = deque([_Batch(tuple(range(len(prompts))))] if prompts else [])
        self._in_flight: dict[Future[list[Completion | None]], tuple[_Batch, float]] = {}
        self._n_backoffs = 0
        self._backoff_began = 0.0
        self._backoff_ends = 0.0
        self._last_error: ServerError | RequestRejected | None = None

    def run(self, *, until: float | None, deadline_s: float | None) -> list[Completion]:
        """Return a completion or a failure per prompt; raises the last error if all failed."""
        pool = ThreadPoolExecutor(self._adaptive.max_concurrency, thread_name_prefix="llm")
        try:
            while self._pending or self._in_flight:
                if until is not None and time.monotonic() >= until:
                    return self._or_failed(f"no answer within {deadline_s or 0:g} s")
                self._send(
                    pool, _MAX_BATCH_UNDER_DEADLINE if until is not None else len(self._prompts)
                )
                self._receive(until)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        is_lost = all(
            one is None or (one.failure is not None and not one.was_refused)
            for one in self._completions
        )
        if self._last_error is not None and is_lost:
            raise self._last_error
        return self._or_failed(str(self._last_error))

    def _or_failed(self, failure: str) -> list[Completion]:
        return [completion or Completion(failure=failure) for completion in self._completions]

    def _send(self, pool: ThreadPoolExecutor, max_size: int) -> None:
        while (
            self._pending
            and len(self._in_flight) < self._adaptive.concurrency
            and time.monotonic() >= self._backoff_ends
        ):
            batch = self._pending.popleft()
            size = min(max_size, self._adaptive.batch_size)
            if len(batch.positions) > size:
                self._pending.appendleft(_Batch(batch.positions[size:]))
                batch = _Batch(batch.positions[:size])
            prompts = [self._prompts[position] for position in batch.positions]
            future = pool.submit(self._send_batch, prompts)
            self._in_flight[future] = (batch, time.monotonic())

    def _receive(self, until: float | None) -> None:
        """Wait for the first response, the end of a backoff or the deadline."""
        moments = [until] if until is not None else []
        if self._pending and len(self._in_flight) < self._adaptive.concurrency:
            moments.append(self._backoff_ends)
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        if not self._in_flight:
            time.sleep(timeout or 0.0)
            return
        done, _ = wait(self._in_flight, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in done:
            batch, started_at = self._in_flight.pop(future)
            try:
                completions = future.result()
            except RequestRejected as exc:
                self._on_rejected(batch, exc)
            except ServerError as exc:
                self._on_failed(batch, exc, started_at)
            else:
                self._adaptive.increase(time.monotonic() - started_at)
                self._n_backoffs = 0
                self._keep(batch, completions)

    def _keep(self, batch: _Batch, completions: list[Completion | None]) -> None:
        unusable = ServerError(FailureKind.MALFORMED, "the LLM server's answer is unusable")
        for position, completion in zip(batch.positions, completions, strict=True):
            if completion is not None:
                self._completions[position] = completion
            else:
                self._last_error = unusable
                self._retry(_Batch((position,), batch.n_failures), unusable)

    def _on_rejected(self, batch: _Batch, exc: RequestRejected) -> None:
        if not exc.blames_prompts:
            self._abort(exc)
        elif len(batch.positions) > 1:
            self._pending.extendleft(reversed(batch.halves()))
        else:
            position = batch.positions[0]
            message, prompt = str(exc), str(self._prompts[position])
            n_windows = max(1, len(message) - _ECHO_CHARS + 1)
            windows = (message[start : start + _ECHO_CHARS] for start in range(n_windows))
            if any(window in prompt for window in windows):
                message = "the LLM server refused this prompt"
            self._completions[position] = Completion(
                failure=message, was_refused=not exc.is_passing
            )

    def _on_failed(self, batch: _Batch, exc: ServerError, started_at: float) -> None:
        """Hold all batches back, longer each time in a row; abort after too many in a row."""
        self._last_error = exc
        if exc.kind in (FailureKind.BUSY, FailureKind.TIMEOUT):
            is_last_try = exc.kind is FailureKind.TIMEOUT and self._n_backoffs > 0
            self._adaptive.decrease(started_at, to_minimum=is_last_try)
        self._retry(batch, exc)
        if started_at < self._backoff_began:
            return
        self._n_backoffs += 1
        if self._n_backoffs > _MAX_BACKOFFS[exc.kind]:
            self._abort(exc)
            return
        backoff_s = min(_MAX_BACKOFF_S, self._first_backoff_s * 2 ** (self._n_backoffs - 1))
        requested_s = min(_MAX_RETRY_AFTER_S, exc.retry_after_s or 0.0)
        self._backoff_began = time.monotonic()
        self._backoff_ends = self._backoff_began + max(
            requested_s, backoff_s * _jitter.uniform(0.5, 1.0)
        )

    def _retry(self, batch: _Batch, exc: ServerError) -> None:
        if len(batch.positions) > 1:
            self._pending.extend(batch.halves())
        elif batch.n_failures + 1 < _MAX_TRIES_ALONE or exc.kind is FailureKind.BUSY:
            self._pending.append(_Batch(batch.positions, batch.n_failures + 1))
        else:
            self._completions[batch.positions[0]] = Completion(failure=str(exc))

    def _abort(self, exc: ServerError | RequestRejected) -> None:
        self._last_error = exc
        self._pending.clear()
