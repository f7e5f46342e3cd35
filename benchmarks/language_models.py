"""The leanest clients of an LLM server: what ours is measured against."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo
from backend.llm.client.server import LLMClient
from backend.settings import Settings

LIST_SIZE = 64
IN_FLIGHT = 3
_SALT = {"cache_salt": "the benchmark's straight client"}
"""Keeps vLLM from answering the second client out of the prefixes that the first one filled."""
_PREFIX_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{.*\})? (\S+)$", re.M)

Call = tuple[tuple[str, ...], Decoding]


class Recorder:
    """Passes every call on to the server and remembers which prompts were sent."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.calls: list[Call] = []

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Pass on."""
        return self._model.describe(deadline_s=deadline_s)

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Pass on."""
        return self._model.tokenize(text, deadline_s=deadline_s)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Pass on."""
        return self._model.truncate(text, n_tokens, deadline_s=deadline_s)

    def complete(
        self, prompts: Sequence[str], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Pass on, and remember."""
        self.calls.append((tuple(prompts), decoding))
        return self._model.complete(prompts, decoding, deadline_s=deadline_s)


class StraightClient:
    """Sends the requests that the adapter would send, and reads nothing."""

    def __init__(self, settings: Settings, server: LLMClient) -> None:
        self._server = server
        self._metrics_url = settings.llm_base_url.rstrip("/").removesuffix("/v1") + "/metrics"
        self._timeout_s = settings.llm_timeout_s
        self._session = requests.Session()
        if settings.llm_api_key:
            self._session.headers["Authorization"] = f"Bearer {settings.llm_api_key.reveal()}"

    def in_lists(self, calls: Sequence[Call]) -> float:
        """Send the calls one after another, each in lists with some in flight; return seconds."""
        started = time.perf_counter()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for prompts, decoding in calls:
                lists = [prompts[at : at + LIST_SIZE] for at in range(0, len(prompts), LIST_SIZE)]
                list(pool.map(lambda some, how=decoding: self._post(some, how), lists))
        return time.perf_counter() - started

    def one_by_one(self, calls: Sequence[Call]) -> float:
        """Send prompt after prompt, as a simple backend does; return seconds."""
        started = time.perf_counter()
        for prompts, decoding in calls:
            for prompt in prompts:
                self._post(prompt, decoding)
        return time.perf_counter() - started

    def prefix_cache(self) -> tuple[float, float]:
        """Return how many prompt tokens vLLM looked up in its prefix cache, and found there."""
        answer = self._session.get(self._metrics_url, timeout=self._timeout_s)
        counts = {"queries": 0.0, "hits": 0.0}
        for name, value in _PREFIX_COUNTER.findall(answer.text):
            counts[name] += float(value)
        return counts["queries"], counts["hits"]

    def _post(self, prompts: Sequence[str] | str, decoding: Decoding) -> None:
        url, body = self._server.request(prompts, decoding)
        timeout_s = self._timeout_s * max(1, decoding.max_tokens)  # a list here is never shortened
        answer: Any = self._session.post(url, json=body | _SALT, timeout=timeout_s)
        answer.raise_for_status()
