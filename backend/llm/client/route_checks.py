"""Check one route of a server by requests of a few tokens: it ignores fields it does not know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from backend.domain.ports import Conversation, Decoding
from backend.llm.client.connection import RequestRejected, json_or_none
from backend.llm.client.requests import (
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
from backend.llm.client.responses import first_position_logprobs
from backend.llm.client.thoughts import first_choice, read_answer, shows_thinking

HELLO = "Hello"
QUESTION = "Is snow white? Answer with one word, yes or no."
CHECK_PROMPTS = (HELLO, QUESTION)
_TOKEN_IDS = (100, 101)
"""Two tokens that every vocabulary has; no answer begins with both."""
_TOP_LOGPROBS = (20, 5)
_CHOICES = ("quagmire", "xylophone")
"""Two answers that nobody gives unless constrained to them."""
_KEY = "xylophone"
_SCHEMA = {
    "type": "object",
    "properties": {_KEY: {"type": "boolean"}},
    "required": [_KEY],
    "additionalProperties": False,
}
_CHOICE_CONSTRAINTS = (
    Constraint.STRUCTURED_OUTPUTS,
    Constraint.RESPONSE_FORMAT,
    Constraint.JSON_SCHEMA,
)
_N_CONSTRAINED_TOKENS = 128
"""Enough for a short JSON object with line breaks and blanks in it."""
_N_TO_SHOW_THINKING = 256
"""Enough for most models' thoughts about an easy question; others answer in two tokens."""
_LEAST_LIMITS = (1, 16, 1024)
"""Some servers refuse a limit under 16, or one that a model's thoughts alone would reach."""
N_THINKING_TOKENS = 2048
"""Room for the thoughts of a model that cannot be kept from thinking."""
_SWITCHES: tuple[dict[str, Any], ...] = (
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal"},
    {"thinking": {"type": "disabled"}},
    {"enable_thinking": False},
    {"reasoning": {"enabled": False}},
)
"""Fields that keep models from thinking: vLLM, SGLang and llama.cpp; Ollama; OpenAI; gateways."""
_LESS_THINKING = {"reasoning_effort": "low"}


class AskServer(Protocol):
    """Posts a check's body to a path; None where the server gives no usable response."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the response's JSON object."""
        ...


@dataclass(frozen=True)
class RouteChecks:
    """Checks of one route; each looks at the effect of a field, never at its name.

    `logprobs_lock` keeps the requests for log-probabilities apart: vLLM 0.32 answers those of one
    batch with as many tokens as the smallest of them asks for.
    """

    ask: AskServer
    route: RouteName
    model: str
    logprobs_lock: threading.Lock

    def basics(self, post: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> RouteCapabilities:
        """Return the fields for length and temperature with which the route answers.

        Args:
            post: posts a body to a path and raises what `ServerConnection.request` raises.

        Raises:
            RequestRejected: it answers with none of them.
            ServerError: it gives no usable response.
        """
        rejection: RequestRejected | None = None
        for min_limit in _LEAST_LIMITS:
            for limit_field, takes_temperature in (
                ("max_tokens", True),
                ("max_completion_tokens", True),
                ("max_completion_tokens", False),
                ("max_tokens", False),
            ):
                found = RouteCapabilities(
                    exists=True,
                    limit_field=limit_field,
                    min_limit=min_limit,
                    takes_temperature=takes_temperature,
                )
                body = request_body(self.route, self.model, HELLO, Decoding(), found)
                try:
                    post(route_path(self.route, is_batch=False), body)
                except RequestRejected as exc:
                    if not exc.blames_content:
                        raise
                    rejection = exc
                else:
                    return found
            if rejection and not (rejection.param or "limit" in str(rejection)):
                break
        raise rejection or AssertionError

    def thinking(self, found: RouteCapabilities) -> dict[str, Any]:
        """Return how the model is kept from thinking, or what its thoughts may cost; {} if none."""
        if self.route == "plain" or not self._thinks(found, {}):
            return {}
        with ThreadPoolExecutor(len(_SWITCHES), thread_name_prefix="llm-thinking") as pool:
            thinks = list(pool.map(lambda switch: self._thinks(found, switch), _SWITCHES))
        for switch, still_thinks in zip(_SWITCHES, thinks, strict=True):
            if still_thinks is False:
                return {
                    "extra": switch,
                    "takes_temperature": self._takes_temperature(found, switch),
                }
        takes_less = self._respond(found, HELLO, _LESS_THINKING) is not None
        return {
            "n_thinking_tokens": N_THINKING_TOKENS,
            "extra": _LESS_THINKING if takes_less else {},
        }

    def independent(self) -> list[Callable[[RouteCapabilities], dict[str, Any]]]:
        """Return the checks that can run concurrently; each returns fields of the capabilities."""
        checks = [self._batches, self._logprobs, self._choices, self._json]
        return [*checks, self._system] if self.route == "chat" else [*checks]

    def _batches(self, found: RouteCapabilities) -> dict[str, Any]:
        prompts = [HELLO, HELLO]
        body = request_body(self.route, self.model, prompts, Decoding(), found)
        answer = self.ask(route_path(self.route, is_batch=True), body)
        choices = answer.get("choices") if answer else None
        return {"accepts_batches": isinstance(choices, list) and len(choices) == len(prompts)}

    def _system(self, found: RouteCapabilities) -> dict[str, Any]:
        body = request_body(
            self.route, self.model, Conversation("Be brief.", (HELLO,)), Decoding(), found
        )
        answer = self.ask(route_path(self.route, is_batch=False), body)
        return {"takes_system": answer is not None}

    def _logprobs(self, found: RouteCapabilities) -> dict[str, Any]:
        if found.n_thinking_tokens:  # the first token is a thought's
            return {}
        with self.logprobs_lock:
            return self._token_ids(found) | self._top_logprobs(found)

    def _token_ids(self, found: RouteCapabilities) -> dict[str, Any]:
        answer = self._respond(found, HELLO, token_id_fields(self.route, _TOKEN_IDS))
        seen, _ = first_position_logprobs(answer)
        has_asked = set(_TOKEN_IDS) <= set(seen)
        return {"reads_token_ids": has_asked and len(seen) <= len(_TOKEN_IDS) + 1}

    def _top_logprobs(self, found: RouteCapabilities) -> dict[str, Any]:
        for by_id in (True, False):
            for n_wanted in _TOP_LOGPROBS:
                fields = top_logprob_fields(self.route, n_wanted, by_id=by_id)
                by_ids, by_text = first_position_logprobs(self._respond(found, HELLO, fields))
                n_tokens = min(n_wanted, len(by_ids) + len(by_text))
                if n_tokens > 1:
                    return {"n_top_logprobs": n_tokens, "names_token_ids": not by_text}
        return {}

    def _choices(self, found: RouteCapabilities) -> dict[str, Any]:
        for by in _CHOICE_CONSTRAINTS:
            text = self._constrained_text(found, choice_fields(_CHOICES, by))
            if unwrap_choice(text) in _CHOICES:
                return {"choices_by": by}
        return {}

    def _json(self, found: RouteCapabilities) -> dict[str, Any]:
        for by in Constraint:
            value = json_or_none(self._constrained_text(found, json_fields(_SCHEMA, by)))
            if isinstance(value, dict) and isinstance(value.get(_KEY), bool) and len(value) == 1:
                return {"json_by": by}
        return {}

    def _constrained_text(self, found: RouteCapabilities, fields: Mapping[str, Any]) -> str:
        response = self._respond(found, QUESTION, fields, _N_CONSTRAINED_TOKENS)
        answer = read_answer(first_choice(response))
        return answer.text.strip() if answer else ""

    def _takes_temperature(self, found: RouteCapabilities, switch: Mapping[str, Any]) -> bool:
        """Return whether a temperature is taken: OpenAI's newer models do without thinking."""
        asked = replace(found, takes_temperature=True)
        return found.takes_temperature or self._respond(asked, HELLO, switch) is not None

    def _thinks(self, found: RouteCapabilities, switch: Mapping[str, Any]) -> bool | None:
        """Return whether the model thinks about a question; None if there is no answer."""
        response = self._respond(found, QUESTION, switch, _N_TO_SHOW_THINKING)
        return None if response is None else shows_thinking(response)

    def _respond(
        self,
        found: RouteCapabilities,
        prompt: str,
        fields: Mapping[str, Any],
        n_tokens: int = 1,
    ) -> dict[str, Any] | None:
        decoding = Decoding(max_tokens=n_tokens)
        body = request_body(self.route, self.model, prompt, decoding, found)
        return self.ask(route_path(self.route, is_batch=False), body | dict(fields))
