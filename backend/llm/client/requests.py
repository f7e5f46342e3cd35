"""Request bodies for the two routes that complete prompts, in each server's dialect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from backend.domain.ports import Decoding

RouteName = Literal["plain", "chat"]
ROUTES: tuple[RouteName, ...] = ("plain", "chat")

_KEYS_ARE_IDS = {"return_tokens_as_token_ids": True}
_ANSWER_KEY = "answer"
_N_WRAPPING_TOKENS = 24
"""What a JSON object around a choice may cost on top of the choice."""


class Constraint(StrEnum):
    """The field by which a server is told what an answer may be."""

    STRUCTURED_OUTPUTS = "structured_outputs"
    RESPONSE_FORMAT = "response_format"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class RouteCapabilities:
    """What one route of a server was seen to do.

    `takes_lists`: many prompts in one request. `names_token_ids`: log-probabilities come under
    token ids rather than texts. `limit_field` is the name of the answer's length limit.
    """

    exists: bool = False
    limit_field: str = "max_tokens"
    takes_lists: bool = False
    reads_token_ids: bool = False
    n_top_logprobs: int = 0
    names_token_ids: bool = False
    choices_by: Constraint | None = None
    json_by: Constraint | None = None

    @property
    def is_of_vllm(self) -> bool:
        """Whether the route has what only vLLM has."""
        return self.reads_token_ids or self.names_token_ids

    @property
    def has_logprobs(self) -> bool:
        """Whether any log-probability can be had."""
        return self.reads_token_ids or self.n_top_logprobs > 0


def address(route: RouteName, *, is_list: bool) -> str:
    """Return a route's path under the base URL."""
    if route == "plain":
        return "completions"
    return "chat/completions/batch" if is_list else "chat/completions"


def request_body(
    route: RouteName,
    model: str,
    prompts: Sequence[str] | str,
    decoding: Decoding,
    abilities: RouteCapabilities,
) -> dict[str, Any]:
    """Return the body that asks for one prompt (a string) or for several.

    A vLLM is given no seed: on a CPU, a request with one whose prompt it happens to read in pieces
    ends the whole server ("CPU Generator does not use offset", seen with 0.32), and nothing in its
    answers tells the CPU from a GPU.
    """
    body: dict[str, Any] = {
        "model": model,
        **_prompt_field(route, prompts),
        abilities.limit_field: decoding.max_tokens,
        "temperature": decoding.temperature,
    }
    if decoding.seed is not None and not abilities.is_of_vllm:
        body["seed"] = decoding.seed
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    constraint = _constraint(decoding, abilities)
    if is_choice_wrapped(decoding, abilities):
        body[abilities.limit_field] += _N_WRAPPING_TOKENS
    return body | constraint | _logprob_fields(route, decoding, abilities)


def is_choice_wrapped(decoding: Decoding, abilities: RouteCapabilities) -> bool:
    """Whether the choice comes back inside a JSON object."""
    return bool(decoding.choices) and abilities.choices_by in (
        Constraint.RESPONSE_FORMAT,
        Constraint.JSON_SCHEMA,
    )


def unwrapped_choice(text: str) -> str:
    """Return the choice in a JSON object, or the text as it is when there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    choice = value.get(_ANSWER_KEY) if isinstance(value, dict) else None
    return choice if isinstance(choice, str) else text


def top_fields(route: RouteName, n_tokens: int, *, by_id: bool) -> dict[str, Any]:
    """Return the fields that ask for the likeliest tokens."""
    wanted: dict[str, Any] = (
        {"logprobs": n_tokens} if route == "plain" else {"logprobs": True, "top_logprobs": n_tokens}
    )
    return wanted | (_KEYS_ARE_IDS if by_id else {})


def token_id_fields(route: RouteName, token_ids: Sequence[int]) -> dict[str, Any]:
    """Return the fields that ask for exactly these tokens."""
    is_wanted: int | bool = 0 if route == "plain" else True
    return {"logprobs": is_wanted, "logprob_token_ids": list(token_ids), **_KEYS_ARE_IDS}


def choice_fields(choices: Sequence[str], by: Constraint) -> dict[str, Any]:
    """Return the fields that hold an answer to one of the choices."""
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
    """Return the fields that hold an answer to a JSON schema."""
    if by is Constraint.STRUCTURED_OUTPUTS:
        return {"structured_outputs": {"json": schema}}
    if by is Constraint.JSON_SCHEMA:
        return {"json_schema": schema}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _prompt_field(route: RouteName, prompts: Sequence[str] | str) -> dict[str, Any]:
    if route == "plain":
        return {"prompt": prompts if isinstance(prompts, str) else list(prompts)}
    if isinstance(prompts, str):
        return {"messages": _conversation(prompts)}
    return {"messages": [_conversation(prompt) for prompt in prompts]}


def _conversation(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _constraint(decoding: Decoding, abilities: RouteCapabilities) -> dict[str, Any]:
    if decoding.choices and abilities.choices_by is not None:
        return choice_fields(decoding.choices, abilities.choices_by)
    if decoding.json_schema is not None and abilities.json_by is not None:
        return json_fields(json.loads(decoding.json_schema), abilities.json_by)
    return {}


def _logprob_fields(
    route: RouteName, decoding: Decoding, abilities: RouteCapabilities
) -> dict[str, Any]:
    if decoding.token_ids and abilities.reads_token_ids:
        return token_id_fields(route, decoding.token_ids)
    n_wanted = abilities.n_top_logprobs if decoding.token_ids else decoding.n_logprobs
    n_tokens = min(n_wanted, abilities.n_top_logprobs)
    return top_fields(route, n_tokens, by_id=abilities.names_token_ids) if n_tokens else {}
