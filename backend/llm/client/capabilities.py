"""Detect what a server can do; an optional check that fails costs its own capability alone."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Literal

from backend.domain.ports import Decoding, LanguageModelInfo, Prompt
from backend.llm.client.connection import (
    FailureKind,
    RequestRejected,
    ServerConnection,
    ServerError,
    shown,
)
from backend.llm.client.model_list import ServedModel, read_models, read_props
from backend.llm.client.requests import (
    ROUTES,
    RouteCapabilities,
    RouteName,
    request_body,
    route_path,
)
from backend.llm.client.responses import read_token_ids
from backend.llm.client.route_checks import HELLO, N_THINKING_TOKENS, RouteChecks

Tokenizer = Literal["prompt", "content"]
"""The field in which a server's /tokenize wants the text: vLLM's or llama.cpp's."""

DEFAULT_CONTEXT_TOKENS = 4096
"""Taken when nobody tells the context length: what Ollama and LM Studio give a model at first."""

_MAX_CANDIDATES = 5
_MAX_BUSY_TRIES = 5
_MAX_BUSY_WAIT_S = 20.0
_CHECKS_S = 30.0
_MAX_CHECKS_S = 120.0
_LATENCIES_PER_CHECKS = 20
"""The optional checks may take so many times what the first short answer took."""
_SPARED_SHARE = 0.9
"""So much of a caller's time the optional checks may use: the result has to come in time."""
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)$")

RouteError = RequestRejected | ServerError


@dataclass(frozen=True, slots=True)
class ServerCapabilities:
    """All detected capabilities of a server; `is_certain` if no check failed by bad luck."""

    info: LanguageModelInfo
    routes: Mapping[RouteName, RouteCapabilities]
    tokenizer: Tokenizer | None
    is_certain: bool = True

    @property
    def n_abilities(self) -> int:
        """Return how many abilities were found, to compare two detections."""
        found = [value for route in self.routes.values() for value in astuple(route)]
        return sum(map(bool, [*found, self.tokenizer]))

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


@dataclass
class CapabilityDetector:
    """Detects a server's capabilities.

    Args:
        n_context_tokens: the model's context length, 0 for what the server tells.
    """

    server: ServerConnection
    wanted_model: str
    n_context_tokens: int = 0
    _is_certain: bool = True
    _is_broken: bool = False
    _logprobs_lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, until: float) -> ServerCapabilities:
        """Send all check requests, until a time on the monotonic clock.

        The first request also wakes a fresh server up. A server is unusable only when no route
        answers a plain question; the other checks have a time limit of their own.

        Raises:
            ServerError: the server is down or busy, or answers no question.
            RequestRejected: it refuses the key, the address or the model.
        """
        models = self._models(until)
        model, routes, latency_s = self._answering_model(models, until)
        now = time.monotonic()
        limit_s = min(_MAX_CHECKS_S, _CHECKS_S + _LATENCIES_PER_CHECKS * latency_s)
        checks_until = now + min(limit_s, _SPARED_SHARE * max(0.0, until - now))
        with ThreadPoolExecutor(16, thread_name_prefix="llm-capabilities") as pool:
            tokenizer = pool.submit(self._tokenizer, model.name, checks_until)
            props = pool.submit(self._props, model, checks_until)
            by_route = {
                route: pool.submit(self._check_route, route, model.name, found, checks_until)
                for route, found in routes.items()
            }
            routes = {route: future.result() for route, future in by_route.items()}
            told = self.n_context_tokens or props.result()
            info = _describe(model.name, told, routes, tokenizer.result())
            if self._is_broken:
                self._confirm(model.name, routes, until)
            return ServerCapabilities(info, routes, tokenizer.result(), self._is_certain)

    def _models(self, until: float) -> list[ServedModel]:
        """Return the listed models; with a wanted one the list is a help that may be missing."""
        try:
            if self.wanted_model:
                until = min(until, time.monotonic() + _CHECKS_S)
            payload = self._patiently(f"{self.server.base_url}/models", None, until)
        except (RequestRejected, ServerError) as exc:
            is_down = isinstance(exc, ServerError) and exc.kind is FailureKind.DOWN
            deployment = _DEPLOYMENT.search(self.server.base_url)
            if self.wanted_model and not is_down:
                return []
            if deployment and not is_down:
                return [ServedModel(deployment[1])]
            if isinstance(exc, RequestRejected) and exc.lacks_route:
                message = f"{exc}; where that list is missing, set LLM_MODEL to the model's name"
                raise RequestRejected(message, status=exc.status) from exc
            raise
        models = read_models(payload)
        if not models and not self.wanted_model:
            raise ServerError(
                FailureKind.MALFORMED,
                f"the LLM server lists no model at {shown(self.server.base_url)}/models; set "
                "LLM_MODEL to the name of the one that it serves",
            )
        return models

    def _answering_model(
        self, models: Sequence[ServedModel], until: float
    ) -> tuple[ServedModel, dict[RouteName, RouteCapabilities], float]:
        """Return the first model that answers, its routes, and the seconds of the first answer."""
        candidates = [one for one in models if "*" not in one.name][:_MAX_CANDIDATES]
        if self.wanted_model:
            named = [one for one in models if one.name == self.wanted_model]
            candidates = named or [ServedModel(self.wanted_model)]
        errors: list[RouteError] = []
        for model in candidates:
            routes, latency_s = self._basics(model.name, until, errors)
            if any(route.exists for route in routes.values()):
                return model, routes, latency_s
        if not errors:
            names = ", ".join(repr(one.name) for one in models)
            raise RequestRejected(f"the LLM server lists {names}; set LLM_MODEL", status=0)
        raise _unusable(errors, self.wanted_model, models)

    def _basics(
        self, model: str, until: float, errors: list[RouteError]
    ) -> tuple[dict[RouteName, RouteCapabilities], float]:
        """Return both routes of a model as far as they answer, and the first answer's seconds.

        The slower route gets a while after the other has answered, then counts as missing.
        """
        started = time.monotonic()
        pool = ThreadPoolExecutor(len(ROUTES), thread_name_prefix="llm-routes")

        def basics(route: RouteName) -> RouteCapabilities:
            def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
                return _object(self._patiently(f"{self.server.base_url}/{path}", body, until))

            return RouteChecks(self._asker(until), route, model, self._logprobs_lock).basics(post)

        futures: dict[Future[RouteCapabilities], RouteName] = {
            pool.submit(basics, route): route for route in ROUTES
        }
        routes: dict[RouteName, RouteCapabilities] = {r: RouteCapabilities() for r in ROUTES}
        pending, latency_s, grace_s = set(futures), 0.0, None
        while pending:
            done, pending = wait(pending, timeout=grace_s, return_when=FIRST_COMPLETED)
            if not done:
                self._is_certain = False
                break
            for future in done:
                try:
                    routes[futures[future]] = future.result()
                except (RequestRejected, ServerError) as exc:
                    errors.append(exc)
                    self._note(exc)
                else:
                    latency_s = latency_s or time.monotonic() - started
                    grace_s = _CHECKS_S + _LATENCIES_PER_CHECKS * latency_s
        pool.shutdown(wait=False, cancel_futures=True)
        return routes, latency_s

    def _check_route(
        self, route: RouteName, model: str, found: RouteCapabilities, until: float
    ) -> RouteCapabilities:
        """Return all capabilities of a route that exists."""
        if not found.exists:
            return found
        checks = RouteChecks(self._asker(until), route, model, self._logprobs_lock)
        basic = replace(found, **checks.thinking(found))
        with ThreadPoolExecutor(8, thread_name_prefix=f"llm-{route}") as pool:
            fields = pool.map(lambda check: check(basic), checks.independent())
            return replace(basic, **{name: value for one in fields for name, value in one.items()})

    def _asker(self, until: float) -> Any:
        def ask(path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
            return self._optional(f"{self.server.base_url}/{path}", body, until)

        return ask

    def _optional(
        self, url: str, body: Mapping[str, Any] | None, until: float
    ) -> dict[str, Any] | None:
        """Return the response to an optional request, None if there is none."""
        try:
            return _object(self._patiently(url, body, until))
        except RequestRejected:
            return None
        except ServerError as exc:
            if exc.kind is FailureKind.DOWN:
                raise
            self._note(exc)
            return None

    def _note(self, exc: RouteError) -> None:
        """Remember a failure that says nothing about what the server can do."""
        if isinstance(exc, ServerError):
            self._is_certain &= exc.kind in (FailureKind.MALFORMED, FailureKind.OTHER_MODEL)
            self._is_broken |= exc.kind in (FailureKind.BROKEN, FailureKind.DOWN)

    def _confirm(
        self, model: str, routes: Mapping[RouteName, RouteCapabilities], until: float
    ) -> None:
        """Ask a plain question once more: a server that went away meanwhile lacks nothing.

        Raises:
            ServerError: it does not answer any more.
        """
        route, found = next((name, each) for name, each in routes.items() if each.exists)
        body = request_body(route, model, HELLO, Decoding(), found)
        try:
            self._patiently(
                f"{self.server.base_url}/{route_path(route, is_batch=False)}", body, until
            )
        except ServerError as exc:
            if exc.kind in (FailureKind.BROKEN, FailureKind.DOWN):
                raise

    def _patiently(self, url: str, body: Mapping[str, Any] | None, until: float) -> Any:
        """Return a response; a busy server is waited for, a broken one asked twice."""
        for n_before in range(_MAX_BUSY_TRIES):
            try:
                return self.server.exchange(url, body, until=until)
            except ServerError as exc:
                is_busy = exc.kind is FailureKind.BUSY and n_before + 1 < _MAX_BUSY_TRIES
                if not is_busy and not (exc.kind is FailureKind.BROKEN and n_before == 0):
                    raise
                wait_s = exc.retry_after_s or 0.25 * 2**n_before
                if wait_s > min(_MAX_BUSY_WAIT_S, until - time.monotonic()):
                    raise
                time.sleep(wait_s)
        raise AssertionError

    def _tokenizer(self, model: str, until: float) -> Tokenizer | None:
        fields: dict[Tokenizer, dict[str, Any]] = {
            "prompt": {"model": model, "prompt": HELLO, "add_special_tokens": False},
            "content": {"content": HELLO, "add_special": False},
        }
        for tokenizer, body in fields.items():
            answer = self._optional(f"{self.server.root_url}/tokenize", body, until)
            with suppress(ServerError):
                if answer is not None and read_token_ids(answer):
                    return tokenizer
        return None

    def _props(self, model: ServedModel, until: float) -> int | None:
        """Return the context length of a model, None if nobody tells it."""
        if model.n_context_tokens is not None:
            return model.n_context_tokens
        props = self._optional(f"{self.server.root_url}/props", None, until)
        return read_props(props or {}) or model.n_trained_tokens


def _object(payload: object) -> dict[str, Any]:
    if isinstance(payload, dict):
        return payload
    raise ServerError(FailureKind.MALFORMED, "the LLM server answered, but not with a JSON object")


def _unusable(
    errors: Sequence[RouteError], wanted_model: str, models: Sequence[ServedModel]
) -> RouteError:
    """Return the error of the route that exists, naming the models where one has to be chosen."""

    def rank(error: RouteError) -> int:
        if isinstance(error, ServerError):
            return 1 if error.kind is FailureKind.OTHER_MODEL else 2
        return 3 if error.lacks_route else 0

    error = min(errors, key=rank)
    names = ", ".join(repr(one.name) for one in models)
    is_other = isinstance(error, ServerError) and error.kind is FailureKind.OTHER_MODEL
    if wanted_model and models and wanted_model not in {one.name for one in models}:
        message = f"the LLM server does not serve {wanted_model!r}; it serves {names}"
    elif is_other or (len(models) > 1 and not wanted_model and rank(error) == 0):
        message = f"none of the models that the LLM server lists ({names}) answers"
    else:
        return error
    remedy = "Set LLM_MODEL to one of them, or leave it empty for the first that answers"
    return RequestRejected(f"{message} ({error}). {remedy}", status=404)


def _describe(
    name: str,
    n_told: int | None,
    routes: dict[RouteName, RouteCapabilities],
    tokenizer: Tokenizer | None,
) -> LanguageModelInfo:
    """Return what annotators need to know; adapts `routes` to what can be used together."""
    if tokenizer is None:
        for route, found in routes.items():
            routes[route] = replace(found, reads_token_ids=False, names_token_ids=False)
    plain, chat = routes["plain"], routes["chat"]
    has_plain = plain.exists and (plain.has_logprobs or not chat.has_logprobs)
    has_chat = chat.exists and (chat.has_logprobs or not plain.has_logprobs)
    used = [route for route, is_used in ((plain, has_plain), (chat, has_chat)) if is_used]
    n_context_tokens = n_told or DEFAULT_CONTEXT_TOKENS
    n_thinking = max(route.n_thinking_tokens for route in used)
    if n_thinking:
        n_thinking = min(N_THINKING_TOKENS, n_context_tokens // 2)
        for name_, found in routes.items():
            n_own = min(n_thinking, found.n_thinking_tokens)
            routes[name_] = replace(found, n_thinking_tokens=n_own)
    return LanguageModelInfo(
        name=name,
        n_context_tokens=n_context_tokens - n_thinking,
        reads_token_ids=all(route.reads_token_ids for route in used),
        n_top_logprobs=min(route.n_top_logprobs for route in used),
        names_token_ids=all(
            route.names_token_ids or route.reads_token_ids for route in used if route.has_logprobs
        ),
        constrains_choices=any(route.choices_by is not None for route in routes.values()),
        constrains_json=any(route.json_by is not None for route in routes.values()),
        has_plain=has_plain,
        has_chat=has_chat,
        thinks=n_thinking > 0,
        tells_context=n_told is not None,
    )
