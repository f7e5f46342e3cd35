"""The LLM server: vLLM, or another one with the same completions API, over plain HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from backend.domain.ports import Completion, Decoding, LanguageModelInfo
from backend.llm.client.batching import Pace, PromptRun
from backend.llm.client.capabilities import CapabilityDetector, ServerCapabilities
from backend.llm.client.connection import (
    FailureKind,
    LanguageModelUsage,
    ServerConnection,
    ServerFailed,
)
from backend.llm.client.pseudo_tokenizer import PseudoTokenizer
from backend.llm.client.requests import (
    RouteName,
    address,
    is_choice_wrapped,
    request_body,
    unwrapped_choice,
)
from backend.llm.client.responses import Reading, read_completions, read_token_ids

_log = logging.getLogger(__name__)

_CHARS_PER_TOKEN = 12
"""More than nearly every token has: what is longer than this many per token is cut unseen."""
_MAX_SINGLE_REQUESTS = 32
"""In flight where a server takes one prompt per request: more gain little."""
_LONG_ANSWER_TOKENS = 16
"""Answers that may be longer go out in short lists first: nobody knows how long they take."""
_TOKENS_PER_TIMEOUT = 96
"""A request may take LLM_TIMEOUT_S, and as long again for every so many tokens of an answer."""
_WARM_UP_S = 300.0
"""For the first requests to a fresh server, which may still load or compile."""


class LLMClient:
    """The `LanguageModel` port on an OpenAI-compatible server. Safe to use from several threads.

    What the server can do is measured by requests of a few tokens, because vLLM and others ignore
    fields that they do not know. A server that names tokens by their text, or has no tokenizer
    route, is read through a made-up vocabulary.
    """

    def __init__(
        self,
        base_url: str,
        model: str = "",
        *,
        api_key: str = "",
        timeout_s: float = 120.0,
        batch_size: int = 64,
        concurrency: int = 3,
        first_pause_s: float = 0.5,
    ) -> None:
        self._wanted_model = model
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        n_singles = min(_MAX_SINGLE_REQUESTS, batch_size * concurrency)
        n_connections = max(8 * concurrency, n_singles)
        self._server = ServerConnection(base_url, api_key=api_key, n_connections=n_connections)
        self._list_pace = Pace(batch_size, concurrency, timeout_s=timeout_s)
        self._long_pace = Pace(batch_size, concurrency, timeout_s=timeout_s, is_cautious=True)
        self._single_pace = Pace(1, n_singles, timeout_s=timeout_s)
        self._vocabulary = PseudoTokenizer()
        self._abilities: ServerCapabilities | None = None
        self._prober = CapabilityDetector(self._server, model)
        self._probe_lock = threading.Lock()

    def usage(self) -> LanguageModelUsage:
        """Return what was asked of the server so far."""
        return self._server.usage()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the server offers; measured at the first call and remembered."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        return self._measured(until).info

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added."""
        return self._tokens(_sendable(text), self._until(deadline_s))

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens.

        Of a text with more than 12 characters per token only that many are looked at.
        """
        until = self._until(deadline_s)
        sent = _sendable(text[: max(0, n_tokens) * _CHARS_PER_TOKEN])
        if not self._measured(until).names_token_ids:
            return text[: len(self._vocabulary.prefix(sent, n_tokens))]
        tokens = self._tokens(sent, until)
        if len(tokens) <= n_tokens:
            return text[: len(sent)]
        prefix = self._text_of(tokens[:n_tokens], until).rstrip("\N{REPLACEMENT CHARACTER}")
        if sent.startswith(prefix) and len(self._tokens(prefix, until)) <= n_tokens:
            return text[: len(prefix)]
        return text[: self._longest(sent, n_tokens, until)]

    def complete(
        self, prompts: Sequence[str], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt, in lists; same length and order as `prompts`."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        one_model = _OneModel(decoding.model)

        def ask(some_prompts: Sequence[str]) -> list[Completion | None]:
            return self._ask(some_prompts, decoding, one_model, until)

        sendable = [_sendable(prompt) for prompt in prompts]
        run = PromptRun(sendable, ask, self._pace(decoding), first_pause_s=self._first_pause_s)
        return run.run(until=until, deadline_s=deadline_s)

    def request(
        self, prompts: Sequence[str] | str, decoding: Decoding
    ) -> tuple[str, dict[str, Any]]:
        """Return the address and the body that would ask for a list, or for a single prompt."""
        return self._request(prompts, decoding, self._measured(None))

    @property
    def root_url(self) -> str:
        """Return the server's address without the API's path."""
        return self._server.root_url

    def _pace(self, decoding: Decoding) -> Pace:
        """Return how prompts go out; before anything is known of the server, in lists."""
        abilities = self._abilities
        if abilities is None or abilities.routes[abilities.route(decoding)].takes_lists:
            is_long = decoding.max_tokens > _LONG_ANSWER_TOKENS
            return self._long_pace if is_long else self._list_pace
        return self._single_pace

    def _ask(
        self,
        prompts: Sequence[str],
        decoding: Decoding,
        one_model: _OneModel,
        call_until: float | None,
    ) -> list[Completion | None]:
        """Send one list, within the call's time and the time of one request."""
        abilities = one_model.abilities(lambda: self._measured(call_until))
        left_s = None if call_until is None else call_until - time.monotonic()
        until = self._until(left_s, n_answer_tokens=decoding.max_tokens)
        try:
            if abilities.routes[abilities.route(decoding)].takes_lists:
                return self._ask_once(prompts, decoding, abilities, until)
            return [self._ask_once(prompt, decoding, abilities, until)[0] for prompt in prompts]
        except ServerFailed as exc:
            self._forget_after(exc)
            raise

    def _ask_once(
        self,
        prompts: Sequence[str] | str,
        decoding: Decoding,
        abilities: ServerCapabilities,
        until: float,
    ) -> list[Completion | None]:
        """Send one request, for a list of prompts or for a single one."""
        url, body = self._request(prompts, decoding, abilities)
        payload = self._server.post(url, body, until=until)
        asked = [prompts] if isinstance(prompts, str) else prompts
        reading = self._reading(abilities.route(decoding), decoding, abilities)
        completions = read_completions(payload, asked, reading)
        known = [completion for completion in completions if completion is not None]
        self._server.count_tokens(
            sum(completion.n_tokens_in for completion in known),
            sum(completion.n_tokens_out for completion in known),
        )
        return completions

    def _request(
        self, prompts: Sequence[str] | str, decoding: Decoding, abilities: ServerCapabilities
    ) -> tuple[str, dict[str, Any]]:
        name = abilities.route(decoding)
        body = request_body(name, abilities.info.name, prompts, decoding, abilities.routes[name])
        path = address(name, is_list=not isinstance(prompts, str))
        return f"{self._server.base_url}/{path}", body

    def _reading(
        self, name: RouteName, decoding: Decoding, abilities: ServerCapabilities
    ) -> Reading:
        route = abilities.routes[name]
        return Reading(
            required_ids=decoding.token_ids if route.reads_token_ids else (),
            by_text=None
            if abilities.names_token_ids
            else lambda found: self._vocabulary.named(found, decoding.token_ids),
            unwrap=unwrapped_choice if is_choice_wrapped(decoding, route) else None,
        )

    def _until(self, deadline_s: float | None, *, n_answer_tokens: int = 1) -> float:
        """Return when one request has to end, on the monotonic clock."""
        most_s = self._timeout_s * (1 + n_answer_tokens // _TOKENS_PER_TIMEOUT)
        return time.monotonic() + (most_s if deadline_s is None else min(most_s, deadline_s))

    def _measured(self, until: float | None) -> ServerCapabilities:
        """Return what the server can do; measured once, with time for a fresh server to wake."""
        until = time.monotonic() + _WARM_UP_S if until is None else until
        abilities = self._abilities
        if abilities is not None:
            return abilities
        if not self._probe_lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise ServerFailed(FailureKind.SLOW, "the LLM server has not yet said what it offers")
        try:
            if self._abilities is None:
                self._abilities = self._prober.measure(until)
                _log.info("LLM server at %s: %s", self._server.root_url, self._abilities.info)
            return self._abilities
        finally:
            self._probe_lock.release()

    def _forget_after(self, exc: ServerFailed) -> None:
        """Let the next call measure again, if this failure may mean another server."""
        if exc.kind in (FailureKind.GONE, FailureKind.NONSENSE):
            self._abilities = None
            self._prober = CapabilityDetector(self._server, self._wanted_model)

    def _tokens(self, text: str, until: float) -> tuple[int, ...]:
        abilities = self._measured(until)
        if not abilities.names_token_ids:
            return self._vocabulary.tokens(text)
        if abilities.tokenizer == "content":
            body: dict[str, Any] = {"content": text, "add_special": False}
        else:
            body = {"prompt": text, "add_special_tokens": False}
        return read_token_ids(self._ask_root("tokenize", body, until))

    def _text_of(self, tokens: Sequence[int], until: float) -> str:
        payload = self._ask_root("detokenize", {"tokens": list(tokens)}, until)
        text = payload.get("prompt", payload.get("content"))
        return text if isinstance(text, str) else ""

    def _ask_root(self, route: str, body: dict[str, Any], until: float) -> dict[str, Any]:
        body = {"model": self._measured(until).info.name} | body
        try:
            return self._server.post(f"{self._server.root_url}/{route}", body, until=until)
        except ServerFailed as exc:
            self._forget_after(exc)
            raise

    def _longest(self, text: str, n_tokens: int, until: float) -> int:
        """Return the length of the longest prefix that fits, found by bisection."""
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if len(self._tokens(text[:middle], until)) <= n_tokens:
                fits = middle
            else:
                too_long = middle
        return fits


class _OneModel:
    """Holds one call to one model: token ids of another model's vocabulary would mean nothing."""

    def __init__(self, wanted_name: str) -> None:
        self._wanted_name = wanted_name
        self._abilities: ServerCapabilities | None = None

    def abilities(self, measure: Callable[[], ServerCapabilities]) -> ServerCapabilities:
        """Return the call's first measurement; raises ServerFailed if it is of another model."""
        abilities = self._abilities or measure()
        self._abilities = self._abilities or abilities
        expected = self._wanted_name or self._abilities.info.name
        if abilities.info.name != expected:
            raise ServerFailed(
                FailureKind.GONE,
                f"the LLM server now serves {abilities.info.name!r} where {expected!r} was "
                "expected; the next call goes to the new model",
            )
        return abilities


def _sendable(text: str) -> str:
    """Replace what cannot travel as JSON or stop a tokenizer, one character by one."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
