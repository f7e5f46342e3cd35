"""Parse an OpenAI-compatible server's JSON; every shape is checked, none is trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from backend.domain.ports import Completion, Prompt
from backend.llm.client.connection import FailureKind, ServerError
from backend.llm.client.thoughts import THINKING, read_answer

_TOKEN_PREFIX = "token_id:"  # noqa: S105 - a key in the server's answers, no password
_ROUNDING = 1e-3
"""How far above 0 a log-probability may lie before it counts as nonsense: 16-bit arithmetic."""


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """How the responses to a request are parsed.

    All `required_ids` must have a log-probability. `unwrap` takes the answer out of what the server
    had to put around it. At a `stop` an answer is cut, where the server was not told to end there.
    `thinks`: the model thinks first, so that what is cut without an end of thoughts is no answer.
    `by_text`: tokens are told apart by their texts, even if their ids stand beside them.
    """

    required_ids: Sequence[int] = ()
    unwrap: Callable[[str], str] | None = None
    stop: Sequence[str] = ()
    thinks: bool = False
    by_text: bool = False


def read_token_ids(payload: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the token ids of a /tokenize answer."""
    tokens = payload.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise ServerError(FailureKind.MALFORMED, "the LLM server's /tokenize gives no token ids")
    return tuple(tokens)


def read_completions(
    payload: Mapping[str, Any], prompts: Sequence[Prompt], options: ParseOptions
) -> list[Completion | None]:
    """Return one completion per prompt, in the prompts' order; None for an unusable one.

    Raises:
        ServerError: the answers cannot be assigned to prompts, or none can be used.
    """
    choices = _in_order(payload.get("choices"), len(prompts))
    completions = [_completion(choice, options) for choice in choices]
    if not any(completions):
        raise ServerError(
            FailureKind.MALFORMED,
            "the LLM server's answers lack the text or the log-probabilities that were asked for",
        )
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return completions
    tokens_in = _shares(
        usage.get("prompt_tokens"), [len(str(prompt).encode()) for prompt in prompts]
    )
    tokens_out = _shares(usage.get("completion_tokens"), [_n_tokens(c) for c in choices])
    return [
        completion and replace(completion, n_tokens_in=n_in, n_tokens_out=n_out)
        for completion, n_in, n_out in zip(completions, tokens_in, tokens_out, strict=True)
    ]


def first_position_logprobs(
    payload: Mapping[str, Any] | None,
) -> tuple[dict[int, float], dict[str, float]]:
    """Return a lone choice's log-probabilities at the first position, by id and by text."""
    with suppress(ServerError):
        (choice,) = _in_order((payload or {}).get("choices"), 1)
        return _logprobs(_first_position(choice)) or ({}, {})
    return {}, {}


def _in_order(choices: object, n_prompts: int) -> list[dict[str, Any]]:
    """Return one choice per prompt; choices that are not numbered are taken as they stand."""
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ServerError(FailureKind.MALFORMED, "the LLM server's answer has no choices")
    by_index = {c["index"]: c for c in choices if isinstance(c.get("index"), int)}
    if len(choices) == n_prompts and not any("index" in choice for choice in choices):
        return choices
    if len(choices) != n_prompts or set(by_index) != set(range(n_prompts)):
        raise ServerError(
            FailureKind.MALFORMED,
            f"the LLM server answered {n_prompts} prompts with {len(choices)} choices, or numbered "
            "wrongly",
        )
    return [by_index[index] for index in range(n_prompts)]


def _completion(choice: dict[str, Any], options: ParseOptions) -> Completion | None:
    answer = read_answer(choice)
    if answer is None:
        return None
    reason = choice.get("finish_reason")
    is_cut_thought = options.thinks and not answer.has_thoughts and reason == "length"
    if answer.is_unfinished or is_cut_thought:  # its first token is a thought's, too
        return Completion(finish_reason=THINKING)
    text = answer.text
    for stop in options.stop:
        text = text.split(stop, 1)[0]
    completion = Completion(
        text=options.unwrap(text) if options.unwrap else text,
        finish_reason=reason if isinstance(reason, str) else None,
        mean_logprob=_mean_logprob(choice),
    )
    position = None if answer.has_thoughts else _first_position(choice)
    if position is None:
        return None if options.required_ids else completion
    if options.by_text:
        position = [(text, None, value) for text, _, value in position]
    logprobs = _logprobs(position)
    if logprobs is None:
        return None
    by_id, by_text = logprobs
    if not set(options.required_ids) <= by_id.keys():
        return None
    return replace(completion, logprobs=by_id or None, text_logprobs=by_text or None)


def _reported(choice: Mapping[str, Any], key: str) -> list[Any] | None:
    """Return a list of a choice's "logprobs": "content" in the chat route, else one per value."""
    logprobs = choice.get("logprobs")
    values = logprobs.get(key) if isinstance(logprobs, dict) else None
    return values if isinstance(values, list) else None


def _first_position(choice: Mapping[str, Any]) -> list[tuple[str, int | None, Any]] | None:
    """Return (text, id if named, log-probability) for the tokens of the first position."""
    if tokens := _reported(choice, "content"):
        entries = tokens[0].get("top_logprobs") if isinstance(tokens[0], dict) else None
        return [
            (str(entry.get("token")), entry.get("id"), entry.get("logprob"))
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ]
    positions = _reported(choice, "top_logprobs")
    first = positions[0] if positions else None
    return [(key, None, p) for key, p in first.items()] if isinstance(first, dict) else None


def _logprobs(
    position: list[tuple[str, int | None, Any]] | None,
) -> tuple[dict[int, float], dict[str, float]] | None:
    """Return log-probabilities by token id and by text; None when one of them is invalid."""
    by_id: dict[int, float] = {}
    by_text: dict[str, float] = {}
    for text, token_id, value in position or ():
        if not _is_logprob(value):
            return None
        number = text.removeprefix(_TOKEN_PREFIX)
        if number != text and number.isdecimal():
            by_id[int(number)] = min(0.0, float(value))
        elif isinstance(token_id, int):
            by_id[token_id] = min(0.0, float(value))
        else:
            by_text[text] = min(0.0, float(value))
    return by_id, by_text


def _is_logprob(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value <= _ROUNDING  # type: ignore[arg-type,operator]


def _mean_logprob(choice: Mapping[str, Any]) -> float | None:
    """Return the mean over the answer's own tokens; None if not reported or invalid."""
    values = _reported(choice, "token_logprobs")
    if tokens := _reported(choice, "content"):
        values = [token.get("logprob") for token in tokens if isinstance(token, dict)]
    if not values or not all(_is_logprob(value) for value in values):
        return None
    return math.fsum(values) / len(values)


def _n_tokens(choice: dict[str, Any]) -> int:
    tokens = _reported(choice, "tokens")
    return len(tokens) if tokens is not None else max(1, len(_reported(choice, "content") or ()))


def _shares(total: object, weights: Sequence[int]) -> list[int]:
    """Split a batch's total in proportion to the weights; the shares add up to it exactly.

    A server counts tokens per request: a prompt's share is an estimate, the sum is measured.
    """
    if not isinstance(total, int) or total < 0 or not weights:
        return [0] * len(weights)
    *cumulative, whole = accumulate(weights if sum(weights) else [1] * len(weights), initial=0)
    bounds = [total * part // whole for part in cumulative]
    return [end - start for start, end in pairwise([*bounds, total])]
