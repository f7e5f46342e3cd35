"""The `LanguageModel` port on an LLM server: vLLM, or another one with OpenAI's routes."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from backend.domain.ports import Completion, Conversation, Decoding, LanguageModelInfo, Prompt
from backend.llm.client.capabilities import CapabilityDetector, ServerCapabilities
from backend.llm.client.concurrency import AdaptiveConcurrency, BatchedCompletion, RequestLimits
from backend.llm.client.connection import (
    FailureKind,
    RequestRejected,
    ServerConnection,
    ServerError,
)
from backend.llm.client.requests import is_choice_wrapped, request_body, route_path, unwrap_choice
from backend.llm.client.responses import ParseOptions, read_completions, read_token_ids
from backend.llm.client.token_estimate import estimate_token_ids, truncate_by_estimate

_log = logging.getLogger(__name__)

_MAX_CHARS_PER_TOKEN = 12
"""More than nearly every token has: what is longer than this many per token is cut unseen."""
_MAX_SINGLE_REQUESTS = 32
"""In flight where a server takes one prompt per request: more gain little."""
_LONG_ANSWER_TOKENS = 16
"""Longer answers go out in short batches first: nobody knows how long they take."""
_TOKENS_PER_TIMEOUT = 96
"""A request may take LLM_TIMEOUT_S, and as long again for every so many tokens of an answer."""
_RECHECK_AFTER_S = 60.0
"""After a check that failed by bad luck, such as a timeout, all are made again; then rarer."""
_WARM_UP_S = 300.0
"""For the first requests to a fresh server, which may still load or compile."""


class LLMClient:
    """Client of an OpenAI-compatible server. Safe to use from several threads.

    The server's capabilities are detected by requests of a few tokens, because vLLM and others
    ignore fields that they do not know.

    Args:
        base_url: usually ends with /v1; a query is sent with every request.
        model: "" for the first of the server's list that answers.
        n_context_tokens: the model's context length, 0 for what the server tells.
    """

    def __init__(
        self,
        base_url: str,
        model: str = "",
        *,
        api_key: str = "",
        n_context_tokens: int = 0,
        limits: RequestLimits | None = None,
    ) -> None:
        limits = limits or RequestLimits()
        self._limits = limits
        n_singles = min(_MAX_SINGLE_REQUESTS, limits.batch_size * limits.concurrency)
        n_connections = max(8 * limits.concurrency, n_singles)
        self._server = ServerConnection(base_url, api_key=api_key, n_connections=n_connections)
        single = RequestLimits(limits.timeout_s, batch_size=1, concurrency=n_singles)
        self._short_answers = AdaptiveConcurrency(limits)
        self._long_answers = AdaptiveConcurrency(limits, slow_start=True)
        self._single_prompts = AdaptiveConcurrency(single)
        self._capabilities: ServerCapabilities | None = None
        self._new_detector = partial(CapabilityDetector, self._server, model, n_context_tokens)
        self._learned_context: dict[str, int] = {}
        self._recheck_pause_s = _RECHECK_AFTER_S
        self._recheck_at = math.inf
        self._detection_lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the server offers; detected at the first call and remembered."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        return self._detect(until).info

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added."""
        return self._tokens(_sendable(text), self._until(deadline_s))

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of at most `n_tokens` tokens and 12 characters per token."""
        until = self._until(deadline_s)
        sent = _sendable(text[: max(0, n_tokens) * _MAX_CHARS_PER_TOKEN])
        if self._detect(until).tokenizer is None:
            return text[: len(truncate_by_estimate(sent, n_tokens))]
        tokens = self._tokens(sent, until)
        if len(tokens) <= n_tokens:
            return text[: len(sent)]
        payload = self._post_root("detokenize", {"tokens": list(tokens[:n_tokens])}, until)
        prefix = payload.get("prompt", payload.get("content"))
        prefix = prefix.rstrip("\N{REPLACEMENT CHARACTER}") if isinstance(prefix, str) else ""
        if sent.startswith(prefix) and len(self._tokens(prefix, until)) <= n_tokens:
            return text[: len(prefix)]
        return text[: self._longest_prefix(sent, n_tokens, until)]

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt, in batches; same length and order as `prompts`."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        detections: list[ServerCapabilities] = []

        def send(batch: Sequence[Prompt]) -> list[Completion | None]:
            # a call stays with one model: token ids of another vocabulary would mean nothing
            found = detections[0] if detections else self._detect(until)
            detections.append(found)
            expected = decoding.model or detections[0].info.name
            if found.info.name != expected:
                raise ServerError(
                    FailureKind.OTHER_MODEL,
                    f"the LLM server now serves {found.info.name!r} where {expected!r} was "
                    "expected; the next call goes to the new model",
                )
            left_s = None if until is None else until - time.monotonic()
            return self._send(batch, decoding, found, left_s)

        is_long = decoding.max_tokens > _LONG_ANSWER_TOKENS
        adaptive = self._long_answers if is_long else self._short_answers
        known = self._capabilities  # None before the first call, which goes out in batches
        route = known and prompts and known.routes[known.route(prompts[0], decoding)]
        if route and not route.accepts_batches:
            adaptive = self._single_prompts
        sent = [_sendable_prompt(prompt) for prompt in prompts]
        backoff_s = self._limits.first_backoff_s
        call = BatchedCompletion(sent, send, adaptive, first_backoff_s=backoff_s)
        return call.run(until=until, deadline_s=deadline_s)

    def request(
        self,
        prompts: Sequence[Prompt] | Prompt,
        decoding: Decoding,
        capabilities: ServerCapabilities | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Return address and body of the request for a batch, or for a single prompt."""
        found = capabilities or self._detect(None)
        is_batch = not isinstance(prompts, str | Conversation)
        first = prompts if isinstance(prompts, str | Conversation) else prompts[0]
        route = found.route(first, decoding)
        body = request_body(route, found.info.name, prompts, decoding, found.routes[route])
        path = route_path(route, is_batch=is_batch)
        return f"{self._server.base_url}/{path}", body

    def _send(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        capabilities: ServerCapabilities,
        left_s: float | None,
    ) -> list[Completion | None]:
        """Send one batch, within the call's time left and the time limit of one request."""
        route = capabilities.routes[capabilities.route(prompts[0], decoding)]
        n_tokens = decoding.max_tokens + route.n_thinking_tokens
        until = self._until(left_s, n_answer_tokens=n_tokens)
        options = ParseOptions(
            required_ids=decoding.token_ids if route.reads_token_ids else (),
            unwrap=unwrap_choice if is_choice_wrapped(decoding, route) else None,
            stop=decoding.stop if route.n_thinking_tokens else (),
            thinks=route.n_thinking_tokens > 0,
            by_text=not capabilities.info.names_token_ids,
        )
        completions: list[Completion | None] = []
        with self._forgetting():
            for asked in [prompts] if route.accepts_batches else [[one] for one in prompts]:
                given = asked if route.accepts_batches else asked[0]
                url, body = self.request(given, decoding, capabilities)
                payload = self._request(url, body, until)
                completions += read_completions(payload, asked, options)
        return completions

    def _until(self, deadline_s: float | None, *, n_answer_tokens: int = 1) -> float:
        """Return when one request has to end, on the monotonic clock."""
        limit_s = self._limits.timeout_s * (1 + n_answer_tokens // _TOKENS_PER_TIMEOUT)
        return time.monotonic() + (limit_s if deadline_s is None else min(limit_s, deadline_s))

    def _detect(self, until: float | None) -> ServerCapabilities:
        """Return the server's capabilities; detected once, with time for a fresh server to wake."""
        until = time.monotonic() + _WARM_UP_S if until is None else until
        found = self._capabilities
        if found is not None:
            if not found.is_certain and time.monotonic() > self._recheck_at:
                self._recheck_at = math.inf
                threading.Thread(target=self._recheck, args=(found,), daemon=True).start()
            return found
        if not self._detection_lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise ServerError(FailureKind.TIMEOUT, "the LLM server has not yet said what it offers")
        try:
            if self._capabilities is None:
                self._capabilities = self._with_learned(self._new_detector().detect(until))
                self._recheck_at = time.monotonic() + self._recheck_pause_s
                _log.info("LLM server at %s: %s", self._server.root_url, self._capabilities.info)
            return self._capabilities
        finally:
            self._detection_lock.release()

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Forget the capabilities after a failure that may mean another server."""
        try:
            yield
        except ServerError as exc:
            if exc.kind in (FailureKind.OTHER_MODEL, FailureKind.MALFORMED):
                self._capabilities = None
            raise

    def _recheck(self, found: ServerCapabilities) -> None:
        """Check again what failed by bad luck, beside the work; the better result stays."""
        again = found
        with suppress(ServerError, RequestRejected):
            again = self._with_learned(self._new_detector().detect(time.monotonic() + _WARM_UP_S))
        is_better = again.n_abilities >= found.n_abilities and again.info.name == found.info.name
        if is_better and self._capabilities is found:
            self._capabilities = again
        self._recheck_pause_s *= 2
        self._recheck_at = time.monotonic() + self._recheck_pause_s

    def _with_learned(self, found: ServerCapabilities) -> ServerCapabilities:
        """Return the capabilities with the model's context length, if a rejection has told it."""
        n_tokens = self._learned_context.get(found.info.name)
        if n_tokens is None or found.info.tells_context:
            return found
        info = replace(found.info, n_context_tokens=n_tokens, tells_context=True)
        return replace(found, info=info)

    def _request(self, url: str, body: dict[str, Any], until: float) -> dict[str, Any]:
        """Post a request; a context length that nobody had told is learned from a rejection."""
        try:
            return self._server.request(url, body, until=until)
        except RequestRejected as exc:
            found, n_tokens = self._capabilities, exc.n_context_tokens
            if found is None or n_tokens is None or found.info.tells_context:
                raise
            self._learned_context[found.info.name] = n_tokens
            self._capabilities = self._with_learned(found)
            message = (
                f"longer than the context of {n_tokens} tokens that the LLM server had not told; "
                "the text is cut when it is asked again"
            )
            raise RequestRejected(message, status=exc.status, is_passing=True) from exc

    def _tokens(self, text: str, until: float) -> tuple[int, ...]:
        found = self._detect(until)
        if found.tokenizer is None:
            return estimate_token_ids(text)
        body: dict[str, Any] = {"prompt": text, "add_special_tokens": False}
        if found.tokenizer == "content":
            body = {"content": text, "add_special": False}
        return read_token_ids(self._post_root("tokenize", body, until))

    def _post_root(self, route: str, body: dict[str, Any], until: float) -> dict[str, Any]:
        body = {"model": self._detect(until).info.name} | body
        with self._forgetting():
            return self._server.request(f"{self._server.root_url}/{route}", body, until=until)

    def _longest_prefix(self, text: str, n_tokens: int, until: float) -> int:
        """Return the length of the longest prefix that fits, found by bisection."""
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if len(self._tokens(text[:middle], until)) <= n_tokens:
                fits = middle
            else:
                too_long = middle
        return fits


def _sendable_prompt(prompt: Prompt) -> Prompt:
    if isinstance(prompt, str):
        return _sendable(prompt)
    return Conversation(_sendable(prompt.system), tuple(map(_sendable, prompt.turns)))


def _sendable(text: str) -> str:
    """Replace what cannot travel as JSON or stop a tokenizer, one character by one."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
