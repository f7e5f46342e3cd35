"""Parse an OpenAI-compatible server's JSON; every shape is checked, none is trusted."""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from backend.domain.ports import Completion, Prompt
from backend.llm.client.connection import FailureKind, RequestRejected, ServerError

DEFAULT_CONTEXT_TOKENS = 2048
"""Taken when a server does not report its context length: that of the smallest served models."""

_TOKEN_PREFIX = "token_id:"  # noqa: S105 - a key in the server's answers, no password
_ROUNDING = 1e-3
"""How far above 0 a log-probability may lie before it counts as nonsense: 16-bit arithmetic."""
_MAX_PSEUDO_TOKEN_CHARS = 8
_PSEUDO_TOKENS = re.compile(
    rf" ?[A-Za-z]{{1,{_MAX_PSEUDO_TOKEN_CHARS}}}|\s|\d{{1,2}}|[^\sA-Za-z\d]"
)
"""Shorter than most real tokens, so that a text that fits by this count fits the model."""
_MAX_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """How the responses to a request are parsed.

    All `required_ids` must have a log-probability. Without `texts_to_ids` (of log-probabilities by
    a token's text), tokens that the server
    names by their text are left out, as two tokens can have one text. `unwrap` takes the answer out
    of what the server had to put around it.
    """

    required_ids: Sequence[int] = ()
    texts_to_ids: Callable[[Mapping[str, float]], dict[int, float]] | None = None
    unwrap: Callable[[str], str] | None = None


def read_models(payload: Mapping[str, Any], wanted: str) -> tuple[str, int | None]:
    """Return name and context length (None if unknown) of the wanted model, the first for ""."""
    rows = payload.get("data")
    served = {
        row["id"]: row.get("max_model_len")
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    }
    if not served:
        raise ServerError(FailureKind.MALFORMED, "the LLM server lists no model at /models")
    name = wanted or next(iter(served))
    if name not in served:
        raise RequestRejected(
            f"the LLM server does not serve {name!r}; it serves {', '.join(map(repr, served))}. "
            "Set LLM_MODEL to one of them, or leave it empty for the first",
            status=404,
        )
    return name, _positive(served[name])


def read_props(payload: Mapping[str, Any]) -> int | None:
    """Return the context length that a llama.cpp server gives each request, if it says so."""
    settings = payload.get("default_generation_settings")
    return _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None


def _positive(length: object) -> int | None:
    return length if isinstance(length, int) and length > 0 else None


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


def answer_text(choice: Mapping[str, Any]) -> str | None:
    """Return a choice's text, from either route; an empty chat message is an empty text."""
    text = choice.get("text")
    message = choice.get("message")
    if isinstance(message, dict):
        text = message.get("content") or ""
    return text if isinstance(text, str) else None


def _in_order(choices: object, n_prompts: int) -> list[dict[str, Any]]:
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ServerError(FailureKind.MALFORMED, "the LLM server's answer has no choices")
    by_index = {c["index"]: c for c in choices if isinstance(c.get("index"), int)}
    if len(choices) != n_prompts or set(by_index) != set(range(n_prompts)):
        raise ServerError(
            FailureKind.MALFORMED,
            f"the LLM server answered {n_prompts} prompts with {len(choices)} choices, or numbered "
            "wrongly",
        )
    return [by_index[index] for index in range(n_prompts)]


def _completion(choice: dict[str, Any], options: ParseOptions) -> Completion | None:
    text = answer_text(choice)
    if text is None:
        return None
    reason = choice.get("finish_reason")
    completion = Completion(
        text=options.unwrap(text) if options.unwrap else text,
        finish_reason=reason if isinstance(reason, str) else None,
        mean_logprob=_mean_logprob(choice),
    )
    position = _first_position(choice)
    if position is None:
        return None if options.required_ids else completion
    logprobs = _logprobs(position)
    if logprobs is None:
        return None
    by_id, by_text = logprobs
    if by_text and options.texts_to_ids is not None:
        by_id = options.texts_to_ids(by_text) | by_id
    if not set(options.required_ids) <= by_id.keys():
        return None
    return replace(completion, logprobs=by_id)


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


class PseudoTokenizer:
    """Stands in for the tokenizer of a server that has no route for it, such as OpenAI or Ollama.

    Pieces of text get a number each, the same in every process. Such a server names tokens by
    their text: a wanted piece is found in any reported token that begins it, whatever the case; of
    " positive" the server may report " pos" or "Positive". A piece that was cut at the maximum
    length is found in tokens that begin with it, too.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._lock = threading.Lock()

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return a number for each piece of the text."""
        return tuple(self._token_id(piece) for piece in _PSEUDO_TOKENS.findall(text))

    def truncate(self, text: str, n_tokens: int) -> str:
        """Return the beginning of the text that has at most this many pieces."""
        return "".join(_PSEUDO_TOKENS.findall(text)[: max(0, n_tokens)])

    def by_id(self, by_text: Mapping[str, float], wanted_ids: Sequence[int]) -> dict[int, float]:
        """Return the log-probabilities of the reported tokens by id.

        A token that could begin two wanted pieces counts for neither.
        """
        import numpy as np  # here, as most commands load this module and never this library

        with self._lock:
            wanted = {number: _normalized(self._texts.get(number, "")) for number in wanted_ids}
        found: dict[int, list[float]] = {}
        for text, logprob in by_text.items():
            matches = [n for n, piece in wanted.items() if _matches(_normalized(text), piece)]
            number = matches[0] if len(matches) == 1 else self._token_id(text)
            found.setdefault(number, []).append(logprob)
        return {n: min(0.0, float(np.logaddexp.reduce(values))) for n, values in found.items()}

    def _token_id(self, piece: str) -> int:
        digest = hashlib.blake2b(piece.encode("utf-8", "replace"), digest_size=6).digest()
        number = int.from_bytes(digest)
        with self._lock:
            if len(self._texts) < _MAX_REMEMBERED:
                self._texts[number] = piece
        return number


def _normalized(text: str) -> str:
    return text.strip().lower()


def _matches(reported: str, piece: str) -> bool:
    is_cut = len(piece) == _MAX_PSEUDO_TOKEN_CHARS
    return bool(reported and piece) and (
        piece.startswith(reported) or (is_cut and reported.startswith(piece))
    )
