"""Fixtures: a scripted LLM server that fails on demand, and its client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.llm.client.server import LLMClient
from tests.llm.client.vllm_client import client
from tests.llm_server import ScriptedLlmServer


@pytest.fixture
def server() -> Iterator[ScriptedLlmServer]:
    server = ScriptedLlmServer()
    yield server
    server.close()


@pytest.fixture
def model(server: ScriptedLlmServer) -> Iterator[LLMClient]:
    model = client(server)
    yield model
    model.close()
