"""An LLM server that answers by rule: in vLLM's form, at once, and right four times in five."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tests.llm_server import ScriptedLlmServer, prompts_in

_LABELS = ("Positive", "Negative")
_SHARE_RIGHT = 0.8


class LexicalLlm(ScriptedLlmServer):
    """Knows the texts; the text that stands last in a prompt is what it is asked about."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._label = {row["text"]: row["label"] for row in rows}
        super().__init__(model="scripted", n_context_tokens=4096)

    def choice(self, route: str, body: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice with the asked tokens' log-probabilities made up, by their place."""
        choice = super().choice(route, body, index)
        asked = body.get("logprob_token_ids", [])
        if not asked or choice["logprobs"] is None or "top_logprobs" not in choice["logprobs"]:
            return choice
        values = self._probabilities(prompts_in(body)[index], len(asked))
        shown = choice["logprobs"]["top_logprobs"][0]
        for token, value in zip(asked, values, strict=True):
            shown[self.key(token, body)] = math.log(value)
        return choice

    def _probabilities(self, prompt: str, n_tokens: int) -> list[float]:
        places = {text: prompt.rfind(text) for text in self._label}
        text = max(places, key=lambda each: places[each])
        digest = hashlib.blake2b(f"{text}\0{len(prompt)}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest[:4]) / 2**32
        sure = 0.55 + 0.4 * int.from_bytes(digest[4:]) / 2**32
        right = _LABELS.index(self._label[text]) if self._label[text] in _LABELS else 0
        at = right if draw < _SHARE_RIGHT else 1 - right
        rest = (0.98 - sure) / max(1, n_tokens - 1)
        return [sure if token == at % n_tokens else rest for token in range(n_tokens)]
