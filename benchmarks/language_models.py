"""Wrap an LLM to record or cache its calls, or call its server directly as a speed baseline."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo, Prompt
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.client.server import LLMClient
from backend.settings import Settings
from backend.store import Database, LLMCache

LIST_SIZE = 64
N_IN_FLIGHT = 3
_SALT = {"cache_salt": "the benchmark's direct client"}
"""Keeps vLLM from answering the second client out of the prefixes that the first one filled."""
_PREFIX_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{.*\})? (\S+)$", re.M)

Call = tuple[tuple[Prompt, ...], Decoding]


def cached_language_model(model: LanguageModel, folder: Path) -> CachedLanguageModel:
    """Return the model with a cache of its answers in a folder, which later runs read."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{folder / 'answers.sqlite'}")
    database.migrate()
    return CachedLanguageModel(model, LLMCache(database))


class RecordingLanguageModel:
    """Forwards every call to a model and records the prompts of its completions in `calls`."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.calls: list[Call] = []

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Forward the call."""
        return self._model.describe(deadline_s=deadline_s)

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Forward the call."""
        return self._model.tokenize(text, deadline_s=deadline_s)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Forward the call."""
        return self._model.truncate(text, n_tokens, deadline_s=deadline_s)

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Record the call and forward it."""
        self.calls.append((tuple(prompts), decoding))
        return self._model.complete(prompts, decoding, deadline_s=deadline_s)


class DirectClient:
    """Sends the requests that `LLMClient` would send, without reading the responses."""

    def __init__(self, settings: Settings, server: LLMClient) -> None:
        self._server = server
        self._metrics_url = settings.llm_base_url.rstrip("/").removesuffix("/v1") + "/metrics"
        self._timeout_s = settings.llm_timeout_s
        self._session = requests.Session()
        if settings.llm_api_key:
            self._session.headers["Authorization"] = f"Bearer {settings.llm_api_key.reveal()}"

    def batched_seconds(self, calls: Sequence[Call]) -> float:
        """Return the seconds that the calls take in lists of prompts, some lists in flight."""
        started = time.perf_counter()
        with ThreadPoolExecutor(N_IN_FLIGHT) as pool:
            for prompts, decoding in calls:
                starts = range(0, len(prompts), LIST_SIZE)
                lists = [prompts[start : start + LIST_SIZE] for start in starts]
                list(pool.map(lambda part, decoding=decoding: self._post(part, decoding), lists))
        return time.perf_counter() - started

    def sequential_seconds(self, calls: Sequence[Call]) -> float:
        """Return the seconds that the calls take prompt by prompt, as in a simple backend."""
        started = time.perf_counter()
        for prompts, decoding in calls:
            for prompt in prompts:
                self._post(prompt, decoding)
        return time.perf_counter() - started

    def prefix_cache_counts(self) -> tuple[float, float]:
        """Return the numbers of prompt tokens that vLLM looked up and found in its prefix cache."""
        response = self._session.get(self._metrics_url, timeout=self._timeout_s)
        counts = {"queries": 0.0, "hits": 0.0}
        for name, value in _PREFIX_COUNTER.findall(response.text):
            counts[name] += float(value)
        return counts["queries"], counts["hits"]

    def _post(self, prompts: Sequence[Prompt] | Prompt, decoding: Decoding) -> None:
        url, body = self._server.request(prompts, decoding)
        timeout_s = self._timeout_s * max(1, decoding.max_tokens)  # a list here is never shortened
        response: Any = self._session.post(url, json=body | _SALT, timeout=timeout_s)
        response.raise_for_status()
