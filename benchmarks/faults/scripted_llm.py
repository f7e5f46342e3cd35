"""Serve a scripted LLM in vLLM's format that labels four texts in five correctly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tests.llm_server import ScriptedLlmServer, prompts_in

_LABELS = ("Positive", "Negative")
_ACCURACY = 0.8


class ScriptedSentimentLLM(ScriptedLlmServer):
    """Labels the known text that comes last in a prompt, with fixed pseudorandom errors."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._label = {row["text"]: row["label"] for row in rows}
        super().__init__(model="scripted", n_context_tokens=4096)

    def choice(self, route: str, body: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice with scripted log-probabilities of the requested tokens, by position."""
        choice = super().choice(route, body, index)
        token_ids = body.get("logprob_token_ids", [])
        if not token_ids or choice["logprobs"] is None or "top_logprobs" not in choice["logprobs"]:
            return choice
        values = self._probabilities(prompts_in(body)[index], len(token_ids))
        shown = choice["logprobs"]["top_logprobs"][0]
        for token, value in zip(token_ids, values, strict=True):
            shown[self.key(token, body)] = math.log(value)
        return choice

    def _probabilities(self, prompt: str, n_tokens: int) -> list[float]:
        positions = {text: prompt.rfind(text) for text in self._label}
        text = max(positions, key=lambda each: positions[each])
        digest = hashlib.blake2b(f"{text}\0{len(prompt)}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest[:4]) / 2**32
        confidence = 0.55 + 0.4 * int.from_bytes(digest[4:]) / 2**32
        correct = _LABELS.index(self._label[text]) if self._label[text] in _LABELS else 0
        index = correct if draw < _ACCURACY else 1 - correct
        rest = (0.98 - confidence) / max(1, n_tokens - 1)
        return [confidence if token == index % n_tokens else rest for token in range(n_tokens)]
