"""From an OpenAI-compatible server's JSON to values; every shape is checked, none is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backend.adapters.vllm_http import FailureKind, ServerFailed, ServerRefused
from backend.core.ports import Completion

CAUTIOUS_CONTEXT_TOKENS = 2048
"""Taken when a server does not name its context length: what the smallest served models have."""

_TOKEN_PREFIX = "token_id:"  # noqa: S105 - a key in the server's answers, no password
_ROUNDING = 1e-3
"""How far above 0 a log-probability may lie before it counts as nonsense: 16-bit arithmetic."""


def read_models(payload: Mapping[str, Any], wanted: str) -> tuple[str, int]:
    """Return name and context length of the wanted model, or of the first for ""."""
    rows = payload.get("data")
    served = {
        row["id"]: row.get("max_model_len")
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    }
    if not served:
        raise ServerFailed(FailureKind.NONSENSE, "the LLM server lists no model at /models")
    name = wanted or next(iter(served))
    if name not in served:
        raise ServerRefused(
            f"the LLM server does not serve {name!r}; it serves {', '.join(map(repr, served))}. "
            "Set LLM_MODEL to one of them, or leave it empty for the first",
            status=404,
        )
    length = served[name]
    if isinstance(length, int) and length > 0:
        return name, length
    return name, CAUTIOUS_CONTEXT_TOKENS


def read_token_ids(payload: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the token ids of a /tokenize answer."""
    tokens = payload.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise ServerFailed(FailureKind.NONSENSE, "the LLM server's /tokenize gives no token ids")
    return tuple(tokens)


def read_completions(
    payload: Mapping[str, Any], prompts: Sequence[str], *, required_ids: Sequence[int] = ()
) -> list[Completion | None]:
    """Return one completion per prompt, in the prompts' order; None for an unusable one.

    `required_ids` must all have a log-probability. Raises ServerFailed when the answers cannot be
    told apart, or none of them can be used.
    """
    choices = _in_order(payload.get("choices"), len(prompts))
    completions = [_completion(choice, frozenset(required_ids)) for choice in choices]
    if not any(completions):
        raise ServerFailed(
            FailureKind.NONSENSE,
            "the LLM server's answers lack the text or the log-probabilities that were asked for",
        )
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return completions
    tokens_in = _shares(usage.get("prompt_tokens"), [len(prompt.encode()) for prompt in prompts])
    tokens_out = _shares(usage.get("completion_tokens"), [_n_tokens(c) for c in choices])
    return [
        completion and _counted(completion, n_in, n_out)
        for completion, n_in, n_out in zip(completions, tokens_in, tokens_out, strict=True)
    ]


def _in_order(choices: object, n_prompts: int) -> list[dict[str, Any]]:
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ServerFailed(FailureKind.NONSENSE, "the LLM server's answer has no choices")
    by_index = {c["index"]: c for c in choices if isinstance(c.get("index"), int)}
    if len(choices) != n_prompts or set(by_index) != set(range(n_prompts)):
        raise ServerFailed(
            FailureKind.NONSENSE,
            f"the LLM server gave {len(choices)} answers to {n_prompts} prompts, or numbered them "
            "wrongly",
        )
    return [by_index[index] for index in range(n_prompts)]


def _completion(choice: dict[str, Any], required_ids: frozenset[int]) -> Completion | None:
    text = choice.get("text")
    if not isinstance(text, str):
        return None
    first = _first_position(choice)
    if first is None:
        return None if required_ids else Completion(text=text)
    logprobs = _logprobs(first)
    if logprobs is None or not required_ids <= logprobs.keys():
        return None
    return Completion(text=text, logprobs=logprobs)


def _first_position(choice: dict[str, Any]) -> dict[str, Any] | None:
    logprobs = choice.get("logprobs")
    positions = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
    first = positions[0] if isinstance(positions, list) and positions else None
    return first if isinstance(first, dict) else None


def _logprobs(position: dict[str, Any]) -> dict[int, float] | None:
    """Return log-probabilities by token id; None when one of them cannot be one.

    Tokens that are named by their text rather than by their id are left out: two tokens can have
    one text.
    """
    found = {}
    for key, value in position.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or value > _ROUNDING:
            return None
        number = key.removeprefix(_TOKEN_PREFIX)
        if number != key and number.isdecimal():
            found[int(number)] = min(0.0, float(value))
    return found


def _n_tokens(choice: dict[str, Any]) -> int:
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    return len(tokens) if isinstance(tokens, list) else 1


def _counted(completion: Completion, n_tokens_in: int, n_tokens_out: int) -> Completion:
    return Completion(
        text=completion.text,
        logprobs=completion.logprobs,
        n_tokens_in=n_tokens_in,
        n_tokens_out=n_tokens_out,
    )


def _shares(total: object, weights: Sequence[int]) -> list[int]:
    """Split the list's total in proportion to the weights; the shares add up to it exactly.

    A server counts tokens per request, so that one prompt's share is an estimate and only the sum
    is a measurement.
    """
    if not isinstance(total, int) or total < 0 or not weights:
        return [0] * len(weights)
    n_all = sum(weights) or len(weights)
    edges, n_before = [], 0
    for weight in weights:
        edges.append(total * n_before // n_all)
        n_before += weight if sum(weights) else 1
    edges.append(total)
    return [end - start for start, end in zip(edges, edges[1:], strict=False)]
