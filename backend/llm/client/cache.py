"""Never pay twice: every answer of a language model is kept and found again."""

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
from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo
from backend.errors import LanguageModelError, StoreUnavailable

_LOG = logging.getLogger(__name__)
_N_DECIMALS = 6
_DIGEST_BYTES = 16


class CompletionCache(Protocol):
    """Completions by key, in a database."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """Return the known completions by key; raises StoreUnavailable."""
        ...

    def keep(self, answers: Mapping[bytes, Completion], usage: Usage) -> None:
        """Keep completions and add to the usage of its scope; raises StoreUnavailable."""
        ...


class CachedLanguageModel:
    """The `LanguageModel` port over another one, with a store of all answers.

    An answer is found again under the hash of the model's name, the prompt and the decoding, by a
    later run, another process or another project. The prompts of one list that have no answer yet
    go out together, equal ones once; failures are not kept. Drawn answers (a temperature and no
    seed) are told apart by how often the same prompt came before in the list. A store that fails
    costs tokens, never an answer.
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
        close = getattr(self._model, "close", None)
        if close is not None:
            close()

    def complete(
        self, prompts: Sequence[str], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt, from the store where it was asked before."""
        if not prompts:
            return []
        started_at = time.monotonic()
        name = self._name(decoding, deadline_s)
        if name is None:
            return self._model.complete(prompts, decoding, deadline_s=deadline_s)
        keys = answer_keys(name, prompts, decoding)
        found = self._found(keys)
        missing = {
            key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found
        }
        left_s = None if deadline_s is None else deadline_s - (time.monotonic() - started_at)
        asked_at = time.monotonic()
        answers: list[Completion] = []
        if missing:
            answers = self._model.complete(list(missing.values()), decoding, deadline_s=left_s)
        fresh = dict(zip(missing, map(_rounded, answers), strict=True))
        seconds = time.monotonic() - asked_at if missing else 0.0
        self._keep(fresh, len(prompts), seconds)
        return _in_order(keys, found, fresh)

    def _name(self, decoding: Decoding, deadline_s: float | None) -> str | None:
        """Return whose answers these are; None if the server does not say it now."""
        if decoding.model:
            return decoding.model
        try:
            return self._model.describe(deadline_s=deadline_s).name
        except LanguageModelError:
            return None

    def _found(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        try:
            return self._store.find(keys)
        except StoreUnavailable as exc:
            _LOG.warning("stored answers cannot be read, so the LLM is asked: %s", exc)
            return {}

    def _keep(self, fresh: dict[bytes, Completion], n_prompts: int, seconds: float) -> None:
        usage = Usage(
            account=current_scope(),
            n_calls=int(bool(fresh)),
            n_prompts=n_prompts,
            n_cache_hits=n_prompts - len(fresh),
            n_tokens_in=sum(answer.n_tokens_in for answer in fresh.values()),
            n_tokens_out=sum(answer.n_tokens_out for answer in fresh.values()),
            seconds=seconds,
        )
        good = {key: answer for key, answer in fresh.items() if answer.failure is None}
        try:
            self._store.keep(good, usage)
        except StoreUnavailable as exc:
            _LOG.warning("%d answers cannot be kept: %s", len(good), exc)


def answer_keys(model: str, prompts: Sequence[str], decoding: Decoding) -> list[bytes]:
    """Return what each answer is kept under, in the order of the prompts."""
    fields = {
        name: value for name, value in asdict(replace(decoding, model=model)).items() if value
    }
    head = json.dumps(fields, sort_keys=True).encode() + b"\0"
    is_drawn = decoding.temperature > 0 and decoding.seed is None
    n_before: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        number = b"%d\0" % n_before[prompt] if is_drawn else b"\0"
        n_before[prompt] += 1
        content = head + number + prompt.encode("utf-8", "surrogatepass")
        keys.append(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest())
    return keys


def _rounded(answer: Completion) -> Completion:
    """Return an answer as the store gives it back, so that a repeated run sees the same."""
    if answer.failure is not None:
        return answer
    mean = answer.mean_logprob
    return replace(
        answer,
        logprobs=None
        if answer.logprobs is None
        else {token: round(value, _N_DECIMALS) for token, value in answer.logprobs.items()},
        mean_logprob=None if mean is None else round(mean, _N_DECIMALS),
    )


def _in_order(
    keys: Sequence[bytes], found: dict[bytes, Completion], fresh: dict[bytes, Completion]
) -> list[Completion]:
    """Return the answers by prompt; of equal prompts only the first has paid."""
    paid: set[bytes] = set()
    completions = []
    for key in keys:
        answer = found.get(key) or fresh[key]
        if key in found or key in paid:
            answer = replace(answer, n_tokens_in=0, n_tokens_out=0, is_from_cache=True)
        paid.add(key)
        completions.append(answer)
    return completions
