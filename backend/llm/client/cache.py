"""Cache all completions of a language model, and count its usage by project."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Protocol

from backend.domain.llm_usage import Usage, current_scope
from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo, Prompt
from backend.errors import LanguageModelError, StoreUnavailable
from backend.llm.client.thoughts import THINKING

_log = logging.getLogger(__name__)
_N_DECIMALS = 6
_DIGEST_BYTES = 16
_CHAT = b"chat"
"""Begins the hashed content of a conversation; that of a text begins with a brace."""


class CompletionCache(Protocol):
    """Completions by key, in a database."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Return the known completions by key; raises StoreUnavailable."""
        ...

    def keep(self, answers: Mapping[bytes, Completion], usage: Usage) -> None:
        """Keep completions and add to the usage of its scope; raises StoreUnavailable."""
        ...

    def discard(self, keys: Sequence[bytes]) -> None:
        """Forget completions; raises StoreUnavailable."""
        ...


class CachedLanguageModel:
    """The `LanguageModel` port over another one, with a cache of all completions.

    The key is a hash of the model's name, the prompt and the decoding, so that a later run, another
    process or another project hits the cache. The misses of one call go out together, equal prompts
    once; failures are not cached. Sampled completions (a temperature and no seed) are told apart by
    how often the same prompt came before in the call. A store that fails costs tokens only.
    """

    def __init__(self, model: LanguageModel, store: CompletionCache) -> None:
        self._model = model
        self._store = store

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the model offers."""
        return self._model.describe(deadline_s=deadline_s)

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`."""
        return self._model.tokenize(text, deadline_s=deadline_s)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens."""
        return self._model.truncate(text, n_tokens, deadline_s=deadline_s)

    def close(self) -> None:
        """Close the model's connections, if it has any."""
        getattr(self._model, "close", lambda: None)()

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt, from the cache where it is known."""
        if not prompts:
            return []
        started_at = time.monotonic()
        name = decoding.model
        if not name:
            try:
                name = self._model.describe(deadline_s=deadline_s).name
            except LanguageModelError:
                return self._model.complete(prompts, decoding, deadline_s=deadline_s)
        keys = cache_keys(name, prompts, decoding)
        hits: dict[bytes, Completion] = {}
        try:
            hits = self._store.find(keys)
        except StoreUnavailable as exc:
            _log.warning("stored answers cannot be read, so the LLM is asked: %s", exc)
        misses = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in hits}
        left_s = None if deadline_s is None else deadline_s - (time.monotonic() - started_at)
        sent_at = time.monotonic()
        completions: list[Completion] = []
        if misses:
            completions = self._model.complete(list(misses.values()), decoding, deadline_s=left_s)
        new = dict(zip(misses, map(_rounded, completions), strict=True))
        seconds = time.monotonic() - sent_at if misses else 0.0
        self._keep(new, len(prompts), seconds)
        return _in_order(keys, hits, new)

    def discard(self, completions: Sequence[Completion]) -> None:
        """Forget completions that hold no readable answer: the next request asks the model."""
        keys = [one.cache_key for one in completions if one.cache_key is not None]
        try:
            self._store.discard(keys)
        except StoreUnavailable as exc:
            _log.warning("%d unreadable answers cannot be dropped: %s", len(keys), exc)

    def _keep(self, new: dict[bytes, Completion], n_prompts: int, seconds: float) -> None:
        usage = Usage(
            scope=current_scope(),
            n_calls=int(bool(new)),
            n_prompts=n_prompts,
            n_cache_hits=n_prompts - len(new),
            n_tokens_in=sum(completion.n_tokens_in for completion in new.values()),
            n_tokens_out=sum(completion.n_tokens_out for completion in new.values()),
            seconds=seconds,
        )
        good = {key: one for key, one in new.items() if one.failure is None and not _is_cut(one)}
        try:
            self._store.keep(good, usage)
        except StoreUnavailable as exc:
            _log.warning("%d answers cannot be kept: %s", len(good), exc)


def cache_keys(model: str, prompts: Sequence[Prompt], decoding: Decoding) -> list[bytes]:
    """Return the key of each prompt's completion, in the order of the prompts."""
    given = asdict(replace(decoding, model=model))
    fields = {name: value for name, value in given.items() if value}
    head = json.dumps(fields, sort_keys=True).encode() + b"\0"
    is_sampled = decoding.temperature > 0 and decoding.seed is None
    n_before: Counter[Prompt] = Counter()
    keys = []
    for prompt in prompts:
        number = b"%d\0" % n_before[prompt] if is_sampled else b"\0"
        n_before[prompt] += 1
        content = head + number
        if isinstance(prompt, str):
            content += prompt.encode("utf-8", "surrogatepass")
        else:
            content = _CHAT + content + json.dumps([prompt.system, *prompt.turns]).encode()
        keys.append(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest())
    return keys


def _is_cut(completion: Completion) -> bool:
    """Return whether the answer never began: with more room for thoughts it may come."""
    return completion.finish_reason == THINKING


def _rounded(completion: Completion) -> Completion:
    """Return a completion as the store gives it back, so that a repeated run sees the same."""
    if completion.failure is not None:
        return completion
    mean, by_id, by_text = completion.mean_logprob, completion.logprobs, completion.text_logprobs
    return replace(
        completion,
        logprobs=by_id and {token: round(p, _N_DECIMALS) for token, p in by_id.items()},
        text_logprobs=by_text and {text: round(p, _N_DECIMALS) for text, p in by_text.items()},
        mean_logprob=None if mean is None else round(mean, _N_DECIMALS),
    )


def _in_order(
    keys: Sequence[bytes], hits: dict[bytes, Completion], new: dict[bytes, Completion]
) -> list[Completion]:
    """Return the completions by prompt; of equal new prompts only the first costs tokens."""
    completions = []
    seen = set(hits)
    for key in keys:
        completion = hits.get(key) or new[key]
        if key in seen:
            completion = replace(completion, n_tokens_in=0, n_tokens_out=0, is_from_cache=True)
        seen.add(key)
        completions.append(replace(completion, cache_key=key))
    return completions
