"""Detect what a server can do by requests of a few tokens: it ignores fields it does not know."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from backend.domain.ports import Decoding, LanguageModelInfo, Prompt
from backend.llm.client.connection import (
    FailureKind,
    RequestRejected,
    ServerConnection,
    ServerError,
    json_or_none,
)
from backend.llm.client.requests import (
    ROUTES,
    Constraint,
    RouteCapabilities,
    RouteName,
    choice_fields,
    json_fields,
    request_body,
    route_path,
    token_id_fields,
    top_logprob_fields,
    unwrap_choice,
)
from backend.llm.client.responses import (
    DEFAULT_CONTEXT_TOKENS,
    answer_text,
    first_position_logprobs,
    read_models,
    read_props,
    read_token_ids,
)

Tokenizer = Literal["prompt", "content"]
"""The field in which a server's /tokenize wants the text: vLLM's or llama.cpp's."""

_PROMPT = "Hello"
_TOKEN_IDS = (100, 101)
"""Two tokens that every vocabulary has; no answer begins with both."""
_TOP_LOGPROBS = (20, 5)
_CHOICES = ("quagmire", "xylophone")
"""Two answers that nobody gives to "Hello" unless constrained to them."""
_KEY = "xylophone"
_SCHEMA = {
    "type": "object",
    "properties": {_KEY: {"type": "boolean"}},
    "required": [_KEY],
    "additionalProperties": False,
}
_N_CONSTRAINED_TOKENS = 32


@dataclass(frozen=True, slots=True)
class ServerCapabilities:
    """All detected capabilities of a server."""

    info: LanguageModelInfo
    routes: Mapping[RouteName, RouteCapabilities]
    tokenizer: Tokenizer | None

    def route(self, prompt: Prompt, decoding: Decoding) -> RouteName:
        """Return the wanted route for a prompt, or the other one if only that can answer it."""
        is_text = isinstance(prompt, str)
        wanted, other = ROUTES if is_text else ROUTES[::-1]
        ours, theirs = self.routes[wanted], self.routes[other]
        if not (self.info.has_plain if is_text else self.info.has_chat):
            return other
        is_lost = (decoding.choices and theirs.choices_by and not ours.choices_by) or (
            decoding.json_schema is not None and theirs.json_by and not ours.json_by
        )
        return other if is_lost else wanted

    @property
    def names_token_ids(self) -> bool:
        """Whether the tokens of /tokenize are those of the log-probabilities."""
        return self.tokenizer is not None and all(
            route.names_token_ids or route.reads_token_ids
            for route in self.routes.values()
            if route.has_logprobs
        )


@dataclass
class CapabilityDetector:
    """Detects a server's capabilities; responses before a failure are not requested again."""

    server: ServerConnection
    wanted_model: str
    _responses: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, until: float) -> ServerCapabilities:
        """Send all check requests, until a time on the monotonic clock.

        The first request also wakes a fresh server up; the others are sent concurrently, so that
        a busy server delays them once. Raises ServerError and RequestRejected.
        """
        models = self.server.request(f"{self.server.base_url}/models", until=until)
        name, n_context_tokens = read_models(models, self.wanted_model)
        checks = {route: _RouteChecks(self, route, name, until) for route in ROUTES}
        rejections: list[RequestRejected] = []
        routes = {route: check.basics(rejections) for route, check in checks.items()}
        if not any(route.exists for route in routes.values()):
            raise rejections[0]
        with ThreadPoolExecutor(12, thread_name_prefix="llm-capabilities") as pool:
            futures = {
                route: [pool.submit(check, routes[route]) for check in checks[route].independent()]
                for route in ROUTES
                if routes[route].exists
            }
            tokenizer = pool.submit(self._tokenizer, name, until)
            context = pool.submit(self._context, n_context_tokens, until)
            for route, found in futures.items():
                for future in found:
                    routes[route] = replace(routes[route], **future.result())
            return _combine(name, context.result(), routes, tokenizer.result())

    def post(self, url: str, body: Mapping[str, Any], until: float) -> dict[str, Any] | None:
        """Return the response, or None if the server rejects this request."""
        key = json.dumps([url, body], sort_keys=True)
        with self._lock:
            if key in self._responses:
                return self._responses[key]
        answer = None
        try:
            answer = self.server.request(url, body, until=until)
        except RequestRejected as exc:
            if not (exc.blames_content or exc.lacks_route):
                raise
        except ServerError as exc:
            if exc.kind is not FailureKind.MALFORMED:
                raise
        with self._lock:
            self._responses[key] = answer
        return answer

    def _tokenizer(self, model: str, until: float) -> Tokenizer | None:
        fields: dict[Tokenizer, dict[str, Any]] = {
            "prompt": {"model": model, "prompt": _PROMPT, "add_special_tokens": False},
            "content": {"content": _PROMPT, "add_special": False},
        }
        for tokenizer, body in fields.items():
            answer = self.post(f"{self.server.root_url}/tokenize", body, until)
            with suppress(ServerError):
                if answer is not None and read_token_ids(answer):
                    return tokenizer
        return None

    def _context(self, n_tokens: int | None, until: float) -> int:
        if n_tokens is not None:
            return n_tokens
        with suppress(RequestRejected, ServerError):
            props = self.server.request(f"{self.server.root_url}/props", until=until)
            return read_props(props) or DEFAULT_CONTEXT_TOKENS
        return DEFAULT_CONTEXT_TOKENS


@dataclass(frozen=True)
class _RouteChecks:
    """Checks of one route; each looks at the effect of a field, never at its name."""

    detector: CapabilityDetector
    route: RouteName
    model: str
    until: float

    def independent(self) -> list[Callable[[RouteCapabilities], dict[str, Any]]]:
        """Return the checks that can run concurrently; each returns fields of the capabilities."""
        return [self._batches, self._token_ids, self._top_logprobs, self._choices, self._json]

    def basics(self, rejections: list[RequestRejected]) -> RouteCapabilities:
        """Return whether the route exists, and its field for the answer's length."""
        for limit_field in ("max_tokens", "max_completion_tokens"):
            capabilities = RouteCapabilities(exists=True, limit_field=limit_field)
            body = request_body(self.route, self.model, _PROMPT, Decoding(), capabilities)
            try:
                self.detector.server.request(self._url(is_batch=False), body, until=self.until)
            except RequestRejected as exc:
                if not (exc.blames_content or exc.lacks_route):
                    raise
                rejections.append(exc)
                if exc.lacks_route:
                    break
            else:
                return capabilities
        return RouteCapabilities()

    def _url(self, *, is_batch: bool) -> str:
        return f"{self.detector.server.base_url}/{route_path(self.route, is_batch=is_batch)}"

    def _ask(
        self, capabilities: RouteCapabilities, fields: Mapping[str, Any], n_tokens: int = 1
    ) -> dict[str, Any] | None:
        decoding = Decoding(max_tokens=n_tokens)
        body = request_body(self.route, self.model, _PROMPT, decoding, capabilities)
        return self.detector.post(self._url(is_batch=False), body | dict(fields), self.until)

    def _batches(self, capabilities: RouteCapabilities) -> dict[str, Any]:
        prompts = [_PROMPT, _PROMPT]
        body = request_body(self.route, self.model, prompts, Decoding(), capabilities)
        answer = self.detector.post(self._url(is_batch=True), body, self.until)
        choices = answer.get("choices") if answer else None
        return {"accepts_batches": isinstance(choices, list) and len(choices) == len(prompts)}

    def _token_ids(self, capabilities: RouteCapabilities) -> dict[str, Any]:
        answer = self._ask(capabilities, token_id_fields(self.route, _TOKEN_IDS))
        seen, _ = first_position_logprobs(answer)
        has_asked = set(_TOKEN_IDS) <= set(seen)
        return {"reads_token_ids": has_asked and len(seen) <= len(_TOKEN_IDS) + 1}

    def _top_logprobs(self, capabilities: RouteCapabilities) -> dict[str, Any]:
        for by_id in (True, False):
            for n_wanted in _TOP_LOGPROBS:
                fields = top_logprob_fields(self.route, n_wanted, by_id=by_id)
                by_ids, by_text = first_position_logprobs(self._ask(capabilities, fields))
                n_tokens = min(n_wanted, len(by_ids) + len(by_text))
                if n_tokens > 1:
                    return {"n_top_logprobs": n_tokens, "names_token_ids": not by_text}
        return {}

    def _constrained_text(self, capabilities: RouteCapabilities, fields: Mapping[str, Any]) -> str:
        answer = self._ask(capabilities, fields, _N_CONSTRAINED_TOKENS)
        choices = answer.get("choices") if answer else None
        first = choices[0] if isinstance(choices, list) and choices else None
        return (answer_text(first) or "").strip() if isinstance(first, dict) else ""

    def _choices(self, capabilities: RouteCapabilities) -> dict[str, Any]:
        for by in Constraint:
            text = self._constrained_text(capabilities, choice_fields(_CHOICES, by))
            if unwrap_choice(text) in _CHOICES:
                return {"choices_by": by}
        return {}

    def _json(self, capabilities: RouteCapabilities) -> dict[str, Any]:
        for by in Constraint:
            value = json_or_none(self._constrained_text(capabilities, json_fields(_SCHEMA, by)))
            if isinstance(value, dict) and isinstance(value.get(_KEY), bool) and len(value) == 1:
                return {"json_by": by}
        return {}


def _combine(
    name: str,
    n_context_tokens: int,
    routes: Mapping[RouteName, RouteCapabilities],
    tokenizer: Tokenizer | None,
) -> ServerCapabilities:
    if tokenizer is None:
        routes = {
            name: replace(route, reads_token_ids=False, names_token_ids=False)
            for name, route in routes.items()
        }
    plain, chat = routes["plain"], routes["chat"]
    has_plain = plain.exists and (plain.has_logprobs or not chat.has_logprobs)
    has_chat = chat.exists and (chat.has_logprobs or not plain.has_logprobs)
    used = [route for route, is_used in ((plain, has_plain), (chat, has_chat)) if is_used]
    info = LanguageModelInfo(
        name=name,
        n_context_tokens=n_context_tokens,
        reads_token_ids=all(route.reads_token_ids for route in used),
        n_top_logprobs=min(route.n_top_logprobs for route in used),
        constrains_choices=any(route.choices_by is not None for route in routes.values()),
        constrains_json=any(route.json_by is not None for route in routes.values()),
        has_plain=has_plain,
        has_chat=has_chat,
    )
    return ServerCapabilities(info, dict(routes), tokenizer)
