"""Serve a scripted LLM in vLLM's format with the latency of a busy GPU server.

python -m benchmarks.busy_llm PORT LATENCY_S
"""

from __future__ import annotations

import hashlib
import math
import sys
import threading
import time
from typing import Any

from tests.llm_server import Reply, ScriptedLlmServer, is_work, prompts_in


class BusyLLM(ScriptedLlmServer):
    """Answers each list of prompts after `latency_s`, however many lists are in flight.

    Prompts are counted and forgotten. An answer depends on its prompt alone.
    """

    def __init__(self, port: int, *, latency_s: float) -> None:
        self.n_prompts = 0
        self._latency_s = latency_s
        self._counting = threading.Lock()
        super().__init__(model="scripted", n_context_tokens=4096, port=port)

    def reply(self, path: str, body: dict[str, Any]) -> Reply:
        """Return the answer to a request, later where it labels texts."""
        if path == "/counts":
            return Reply(body={"n_prompts": self.n_prompts})
        if not is_work(path, body):
            return self.honest(path, body)
        time.sleep(self._latency_s)
        prompts = prompts_in(body)
        with self._counting:
            self.n_prompts += len(prompts)
        choices = [self._choice(body, index, prompt) for index, prompt in enumerate(prompts)]
        usage = {"prompt_tokens": 100 * len(prompts), "completion_tokens": len(prompts)}
        return Reply(body={"object": "text_completion", "choices": choices, "usage": usage})

    def _choice(self, body: dict[str, Any], index: int, prompt: str) -> dict[str, Any]:
        """Return a choice whose first asked token is as likely as the prompt's hash says."""
        digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
        likely = 0.05 + 0.9 * int.from_bytes(digest) / 2**64
        choice = self.choice("plain" if "prompt" in body else "chat", body, index)
        asked = body.get("logprob_token_ids") or []
        if asked and choice.get("logprobs") and "top_logprobs" in choice["logprobs"]:
            shown = choice["logprobs"]["top_logprobs"][0]
            rest = (1 - likely) / max(1, len(asked) - 1)
            for at, token in enumerate(asked):
                shown[self.key(token, body)] = math.log(rest if at else likely)
        return choice


if __name__ == "__main__":
    BusyLLM(int(sys.argv[1]), latency_s=float(sys.argv[2]))
    threading.Event().wait()
