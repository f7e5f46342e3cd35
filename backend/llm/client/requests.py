"""Build request bodies for the completion and chat routes, in each server's dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from backend.domain.ports import Conversation, Decoding, Prompt
from backend.llm.client.connection import json_or_none
from backend.llm.client.json_grammar import compact_grammar

RouteName = Literal["plain", "chat"]
ROUTES: tuple[RouteName, RouteName] = ("plain", "chat")

_KEYS_ARE_IDS = {"return_tokens_as_token_ids": True}
_ANSWER_KEY = "answer"
_N_WRAPPING_TOKENS = 48
"""What a JSON object around a choice may cost on top of the choice, line breaks included."""


class Constraint(StrEnum):
    """The request field that constrains an answer; GRAMMAR is a schema without blanks."""

    GRAMMAR = "grammar"
    STRUCTURED_OUTPUTS = "structured_outputs"
    RESPONSE_FORMAT = "response_format"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class RouteCapabilities:
    """Detected capabilities of one route.

    `limit_field`: name of the field for the answer's length; `min_limit`: its least value.
    `takes_temperature`, `takes_system`: the field, or a system turn, is not refused.
    `accepts_batches`: many prompts in one request.
    `names_token_ids`: log-probabilities come under token ids rather than texts. `extra`: fields
    that keep a reasoning model from thinking, or let it think less; `n_thinking_tokens`: what its
    thoughts may cost on top of an answer, 0 where it does not think.
    """

    exists: bool = False
    limit_field: str = "max_tokens"
    min_limit: int = 1
    takes_temperature: bool = True
    takes_system: bool = True
    accepts_batches: bool = False
    reads_token_ids: bool = False
    n_top_logprobs: int = 0
    names_token_ids: bool = False
    choices_by: Constraint | None = None
    json_by: Constraint | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    n_thinking_tokens: int = 0

    @property
    def has_logprobs(self) -> bool:
        """Whether any log-probability is returned."""
        return self.reads_token_ids or self.n_top_logprobs > 0


def route_path(route: RouteName, *, is_batch: bool) -> str:
    """Return a route's path under the base URL."""
    if route == "plain":
        return "completions"
    return "chat/completions/batch" if is_batch else "chat/completions"


def request_body(
    route: RouteName,
    model: str,
    prompts: Sequence[Prompt] | Prompt,
    decoding: Decoding,
    capabilities: RouteCapabilities,
) -> dict[str, Any]:
    """Return the body of a request for one prompt or for a batch.

    vLLM gets no seed: on a CPU, a seeded request whose prompt is prefilled in chunks ends the whole
    server ("CPU Generator does not use offset", seen with 0.32), and nothing in its responses
    tells the CPU from a GPU.
    """
    n_tokens = decoding.max_tokens + capabilities.n_thinking_tokens
    if is_choice_wrapped(decoding, capabilities):
        n_tokens += _N_WRAPPING_TOKENS
    body: dict[str, Any] = {
        "model": model,
        **_prompt_field(route, prompts, capabilities),
        capabilities.limit_field: max(n_tokens, capabilities.min_limit),
        **capabilities.extra,
    }
    if capabilities.takes_temperature:
        body["temperature"] = decoding.temperature
    is_vllm = capabilities.reads_token_ids or capabilities.names_token_ids  # it alone has these
    if decoding.seed is not None and not is_vllm:
        body["seed"] = decoding.seed
    if decoding.stop and not capabilities.n_thinking_tokens:  # thoughts hold such texts, too
        body["stop"] = list(decoding.stop)
    body |= _constraint(decoding, capabilities)
    if decoding.token_ids and capabilities.reads_token_ids:
        return body | token_id_fields(route, decoding.token_ids)
    n_wanted = capabilities.n_top_logprobs if decoding.token_ids else decoding.n_logprobs
    if n_tokens := min(n_wanted, capabilities.n_top_logprobs):
        body |= top_logprob_fields(route, n_tokens, by_id=capabilities.names_token_ids)
    return body


def is_choice_wrapped(decoding: Decoding, capabilities: RouteCapabilities) -> bool:
    """Return whether the choice comes back inside a JSON object."""
    by = capabilities.choices_by
    return bool(decoding.choices) and by not in (None, Constraint.STRUCTURED_OUTPUTS)


def unwrap_choice(text: str) -> str:
    """Return the choice in a JSON object, or the text as it is when there is none."""
    value = json_or_none(text)
    choice = value.get(_ANSWER_KEY) if isinstance(value, dict) else None
    return choice if isinstance(choice, str) else text


def top_logprob_fields(route: RouteName, n_tokens: int, *, by_id: bool) -> dict[str, Any]:
    """Return the fields that request the most likely tokens."""
    fields: dict[str, Any] = {"logprobs": n_tokens}
    if route == "chat":
        fields = {"logprobs": True, "top_logprobs": n_tokens}
    return fields | (_KEYS_ARE_IDS if by_id else {})


def token_id_fields(route: RouteName, token_ids: Sequence[int]) -> dict[str, Any]:
    """Return the fields that request the log-probabilities of exactly these tokens."""
    is_wanted: int | bool = 0 if route == "plain" else True
    return {"logprobs": is_wanted, "logprob_token_ids": list(token_ids), **_KEYS_ARE_IDS}


def choice_fields(choices: Sequence[str], by: Constraint) -> dict[str, Any]:
    """Return the fields that constrain an answer to one of the choices."""
    if by is Constraint.STRUCTURED_OUTPUTS:
        return {"structured_outputs": {"choice": list(choices)}}
    schema = {
        "type": "object",
        "properties": {_ANSWER_KEY: {"type": "string", "enum": list(choices)}},
        "required": [_ANSWER_KEY],
        "additionalProperties": False,
    }
    return json_fields(schema, by)


def json_fields(schema: Any, by: Constraint) -> dict[str, Any]:
    """Return the fields that constrain an answer to a JSON schema."""
    if by is Constraint.GRAMMAR and (grammar := compact_grammar(schema)) is not None:
        return {"structured_outputs": {"grammar": grammar}}
    if by in (Constraint.STRUCTURED_OUTPUTS, Constraint.GRAMMAR):
        return {"structured_outputs": {"json": schema}}
    if by is Constraint.JSON_SCHEMA:
        return {"json_schema": schema}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _constraint(decoding: Decoding, capabilities: RouteCapabilities) -> dict[str, Any]:
    if decoding.choices and capabilities.choices_by is not None:
        return choice_fields(decoding.choices, capabilities.choices_by)
    if decoding.json_schema is not None and capabilities.json_by is not None:
        return json_fields(json.loads(decoding.json_schema), capabilities.json_by)
    return {}


def _prompt_field(
    route: RouteName, prompts: Sequence[Prompt] | Prompt, capabilities: RouteCapabilities
) -> dict[str, Any]:
    with_system = capabilities.takes_system
    if isinstance(prompts, str | Conversation):
        if route == "plain":
            return {"prompt": str(prompts)}
        return {"messages": messages_of(prompts, with_system=with_system)}
    if route == "plain":
        return {"prompt": [str(prompt) for prompt in prompts]}
    return {"messages": [messages_of(prompt, with_system=with_system) for prompt in prompts]}


def messages_of(prompt: Prompt, *, with_system: bool) -> list[dict[str, str]]:
    """Return a prompt as messages; a text is the only message of a user.

    Where the server refuses the system role, its text opens the first turn of the user.
    """
    chat = Conversation("", (prompt,)) if isinstance(prompt, str) else prompt
    texts = list(chat.turns)
    system: list[dict[str, str]] = []
    if chat.system and with_system:
        system = [{"role": "system", "content": chat.system}]
    elif chat.system:
        texts[0] = f"{chat.system}\n\n{texts[0]}"
    roles = ("user", "assistant")
    return system + [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
