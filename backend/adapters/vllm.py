"""The LLM server: vLLM, or another one with the same completions API, over plain HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from backend.adapters.vllm_answers import read_completions, read_models, read_token_ids
from backend.adapters.vllm_http import (
    FailureKind,
    LanguageModelUsage,
    ServerConnection,
    ServerFailed,
    ServerRefused,
)
from backend.adapters.vllm_lists import Pace, PromptRun
from backend.core.ports import Completion, Decoding, LanguageModelInfo
from backend.errors import LanguageModelRejected

_log = logging.getLogger(__name__)

_PROBE_PROMPT = "Hello"
_PROBE_TOKEN_IDS = (100, 101)
"""Two tokens that every vocabulary has and of which no prompt's answer is both."""
_TOP_LOGPROBS = (20, 5)
_KEYS_ARE_IDS = {"return_tokens_as_token_ids": True}
_CHARS_PER_TOKEN = 12
"""More than nearly every token has: what is longer than this many per token is cut unseen."""


class VllmServer:
    """The `LanguageModel` port on an OpenAI-compatible server. Safe to use from several threads.

    What the server can do is measured by requests of one token, because vLLM and others ignore
    fields that they do not know.
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
        self._server = ServerConnection(base_url, api_key=api_key, n_connections=8 * concurrency)
        self._pace = Pace(batch_size, concurrency)
        self._info: LanguageModelInfo | None = None
        self._info_lock = threading.Lock()

    def usage(self) -> LanguageModelUsage:
        """Return what was asked of the server so far."""
        return self._server.usage()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the server offers; measured at the first call and remembered."""
        return self._described(self._until(deadline_s))

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added."""
        return self._tokens(_sendable(text), self._until(deadline_s))

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens.

        Of a text with more than 12 characters per token only that many are looked at.
        """
        until = self._until(deadline_s)
        sent = _sendable(text[: max(0, n_tokens) * _CHARS_PER_TOKEN])
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
        run = PromptRun(sendable, ask, self._pace, first_pause_s=self._first_pause_s)
        return run.run(until=until, deadline_s=deadline_s)

    def _ask(
        self,
        prompts: Sequence[str],
        decoding: Decoding,
        one_model: _OneModel,
        call_until: float | None,
    ) -> list[Completion | None]:
        """Send one list, within the call's time and the time of one request."""
        until = self._until(None if call_until is None else call_until - time.monotonic())
        info = one_model.info(lambda: self._described(until))
        body = _body(info.name, prompts, decoding) | _wanted_logprobs(info, decoding)
        required = decoding.token_ids if info.reads_token_ids else ()
        try:
            payload = self._server.post(f"{self._server.base_url}/completions", body, until=until)
            completions = read_completions(payload, prompts, required_ids=required)
        except ServerFailed as exc:
            self._forget_after(exc)
            raise
        known = [completion for completion in completions if completion is not None]
        self._server.count_tokens(
            sum(completion.n_tokens_in for completion in known),
            sum(completion.n_tokens_out for completion in known),
        )
        return completions

    def _until(self, deadline_s: float | None) -> float:
        """Return when one request has to end, on the monotonic clock."""
        left_s = self._timeout_s if deadline_s is None else min(self._timeout_s, deadline_s)
        return time.monotonic() + left_s

    def _described(self, until: float) -> LanguageModelInfo:
        info = self._info
        if info is not None:
            return info
        if not self._info_lock.acquire(timeout=max(0.0, until - time.monotonic())):
            raise ServerFailed(FailureKind.SLOW, "the LLM server has not yet said what it offers")
        try:
            if self._info is None:
                self._info = self._measured(until)
            return self._info
        finally:
            self._info_lock.release()

    def _forget_after(self, exc: ServerFailed) -> None:
        """Let the next call measure again, if this failure may mean another server."""
        if exc.kind in (FailureKind.GONE, FailureKind.NONSENSE):
            self._info = None

    def _measured(self, until: float) -> LanguageModelInfo:
        models = self._server.get(f"{self._server.base_url}/models", until=until)
        name, n_context_tokens = read_models(models, self._wanted_model)
        reads_token_ids = self._reads_token_ids(name, until)
        info = LanguageModelInfo(
            name=name,
            n_context_tokens=n_context_tokens,
            reads_token_ids=reads_token_ids,
            n_top_logprobs=0 if reads_token_ids else self._n_top_logprobs(name, until),
        )
        _log.info("LLM server at %s: %s", self._server.base_url, info)
        return info

    def _reads_token_ids(self, name: str, until: float) -> bool:
        seen = self._probe(name, _token_id_fields(_PROBE_TOKEN_IDS), until)
        return set(_PROBE_TOKEN_IDS) <= seen and len(seen) <= len(_PROBE_TOKEN_IDS) + 1

    def _n_top_logprobs(self, name: str, until: float) -> int:
        for n_wanted in _TOP_LOGPROBS:
            seen = self._probe(name, _top_fields(n_wanted), until)
            if len(seen) > 1:
                return min(n_wanted, len(seen))
        return 0

    def _probe(self, name: str, wanted: dict[str, Any], until: float) -> set[int]:
        """Return which tokens come back with a log-probability when `wanted` is asked for."""
        body = _body(name, [_PROBE_PROMPT], Decoding()) | wanted
        try:
            payload = self._server.post(f"{self._server.base_url}/completions", body, until=until)
            answer = read_completions(payload, [_PROBE_PROMPT])[0]
        except ServerRefused as exc:
            if not exc.blames_content:
                raise
            return set()
        return set(answer.logprobs) if answer and answer.logprobs else set()

    def _tokens(self, text: str, until: float) -> tuple[int, ...]:
        body = {"prompt": text, "add_special_tokens": False}
        return read_token_ids(self._ask_root("tokenize", body, until))

    def _text_of(self, tokens: Sequence[int], until: float) -> str:
        payload = self._ask_root("detokenize", {"tokens": list(tokens)}, until)
        text = payload.get("prompt")
        return text if isinstance(text, str) else ""

    def _ask_root(self, route: str, body: dict[str, Any], until: float) -> dict[str, Any]:
        body = {"model": self._described(until).name} | body
        try:
            return self._server.post(f"{self._server.root_url}/{route}", body, until=until)
        except ServerRefused as exc:
            if not exc.lacks_route:
                raise
            raise LanguageModelRejected(
                f"the LLM server has no /{route}, which tells how a text splits into tokens; vLLM "
                "has it. Point LLM_BASE_URL at a vLLM server"
            ) from exc
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
        self._info: LanguageModelInfo | None = None

    def info(self, describe: Callable[[], LanguageModelInfo]) -> LanguageModelInfo:
        """Return the call's first description; raises ServerFailed if it is of another model."""
        info = self._info or describe()
        self._info = self._info or info
        expected = self._wanted_name or self._info.name
        if info.name != expected:
            raise ServerFailed(
                FailureKind.GONE,
                f"the LLM server now serves {info.name!r} where {expected!r} was expected; the "
                "next call goes to the new model",
            )
        return info


def _body(model: str, prompts: Sequence[str], decoding: Decoding) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(prompts),
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
    }


def _wanted_logprobs(info: LanguageModelInfo, decoding: Decoding) -> dict[str, Any]:
    if not decoding.token_ids:
        return {}
    if info.reads_token_ids:
        return _token_id_fields(decoding.token_ids)
    return _top_fields(info.n_top_logprobs) if info.n_top_logprobs else {}


def _token_id_fields(token_ids: Sequence[int]) -> dict[str, Any]:
    return {"logprobs": 0, "logprob_token_ids": list(token_ids), **_KEYS_ARE_IDS}


def _top_fields(n_tokens: int) -> dict[str, Any]:
    return {"logprobs": n_tokens, **_KEYS_ARE_IDS}


def _sendable(text: str) -> str:
    """Replace what cannot travel as JSON or stop a tokenizer, one character by one."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
