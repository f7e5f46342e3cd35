"""A client of the scripted LLM server, and the completions to expect."""

from __future__ import annotations

from typing import Any

from backend.domain.ports import Decoding
from backend.llm.client.concurrency import RequestLimits
from backend.llm.client.server import LLMClient
from tests.llm_server import LLAMA_CPP, OLLAMA, OPENAI_CHAT, VLLM, ScriptedLlmServer

ASKED = Decoding(token_ids=(11, 12))
DIALECTS = {"vLLM": VLLM, "OpenAI": OPENAI_CHAT, "llama.cpp": LLAMA_CPP, "Ollama": OLLAMA}
PROMPTS = [f"prompt number {number}" for number in range(10)]


def client(
    server: ScriptedLlmServer,
    *,
    model: str = "",
    api_key: str = "",
    n_context_tokens: int = 0,
    **limits: Any,
) -> LLMClient:
    defaults: dict[str, Any] = {"timeout_s": 5.0, "batch_size": 4, "first_backoff_s": 0.001}
    return LLMClient(
        server.url,
        model,
        api_key=api_key,
        n_context_tokens=n_context_tokens,
        limits=RequestLimits(**(defaults | limits)),
    )


def expected(prompt: str) -> dict[int, float]:
    return {token: ScriptedLlmServer.logprob(prompt, token) for token in (7, 11, 12)}


def assert_all_answered(completions, prompts=PROMPTS):
    assert [completion.failure for completion in completions] == [None] * len(prompts)
    assert [completion.logprobs for completion in completions] == [expected(p) for p in prompts]
