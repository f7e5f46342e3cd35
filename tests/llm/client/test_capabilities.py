"""Capabilities of a server are detected by requests."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from backend.domain.ports import Decoding, LanguageModelInfo
from backend.errors import LanguageModelUnavailable
from tests.llm.client.vllm_client import DIALECTS, PROMPTS, client
from tests.llm_server import (
    LLAMA_CPP,
    OLLAMA,
    OPENAI_CHAT,
    VLLM,
    ScriptedLlmServer,
    error,
)


def test_a_server_that_reads_token_ids_is_found_out_by_asking(server, model):
    assert model.describe() == LanguageModelInfo(
        "tiny",
        256,
        reads_token_ids=True,
        n_top_logprobs=20,
        constrains_choices=True,
        constrains_json=True,
        has_plain=True,
        has_chat=True,
    )


def test_a_server_that_ignores_token_ids_is_asked_for_its_likeliest_tokens(server, model):
    server.reads_token_ids = False
    info = model.describe()
    assert (info.reads_token_ids, info.n_top_logprobs) == (False, 20)


def test_a_server_with_fewer_likeliest_tokens_is_believed(server, model):
    server.reads_token_ids = False
    server.n_top_logprobs = 5
    assert model.describe().n_top_logprobs == 5


def test_a_field_that_is_taken_and_ignored_is_no_ability(server, model):
    """As vLLM does with `guided_choice`: 200 and free text."""
    server.dialect = replace(VLLM, constraints={"plain": (), "chat": ()})
    info = model.describe()
    assert (info.constrains_choices, info.constrains_json) == (False, False)


def test_a_server_that_refuses_twenty_is_asked_for_five(server, model):
    server.reads_token_ids = False

    def at_most_five(path, body):
        too_many = max(int(body.get("logprobs") or 0), body.get("top_logprobs", 0)) > 5
        return error(400, "at most 5", "logprobs") if too_many else None

    server.rule = at_most_five
    assert model.describe().n_top_logprobs == 5


def test_a_server_that_refuses_unknown_fields_is_not_taken_for_down(server, model):
    server.rule = lambda path, body: (
        error(400, "Unrecognized request argument") if "logprobs" in body else None
    )
    info = model.describe()
    assert (info.reads_token_ids, info.n_top_logprobs) == (False, 0)


def test_a_server_without_log_probabilities_has_none(server, model):
    server.reads_token_ids = False
    server.n_top_logprobs = 0
    assert model.describe().n_top_logprobs == 0


def test_a_server_that_hides_its_context_length_gets_a_cautious_one(server, model):
    server.n_context_tokens = None
    info = model.describe()
    assert (info.n_context_tokens, info.tells_context) == (4096, False)


def test_describing_is_done_once(server, model):
    model.describe()
    n_requests = len(server.requests)
    assert model.describe() is model.describe()
    assert len(server.requests) == n_requests


@pytest.mark.parametrize("n_answered", [0, 1, 2, 5])
def test_a_server_that_goes_away_while_it_is_checked_lacks_nothing(server, model, n_answered):
    whole = model.describe()
    late, n_asked = client(server), itertools.count()

    def gone(path, body):
        is_late = "completions" in path and next(n_asked) >= n_answered
        return error(502, "no upstream") if is_late else None

    server.rule = gone
    with pytest.raises(LanguageModelUnavailable):
        late.describe()
    server.rule = lambda path, body: None
    assert late.describe() == whole


def test_an_ability_that_is_too_busy_costs_itself_alone(server, model):
    busy = error(503, "busy")
    busy.headers["Retry-After"] = "60"
    server.rule = lambda path, body: busy if "structured_outputs" in body else None
    info = model.describe()
    assert (info.constrains_json, info.reads_token_ids) == (False, True)


@pytest.mark.parametrize(
    ("dialect", "has_plain", "has_chat"),
    [
        (VLLM, True, True),
        (OPENAI_CHAT, False, True),
        (LLAMA_CPP, True, True),
        (OLLAMA, False, True),
    ],
    ids=DIALECTS.keys(),
)
def test_what_a_server_can_do_is_found_out_in_every_dialect(dialect, has_plain, has_chat):
    """Ollama's plain route tells no probabilities, so that its chat route answers for it."""
    server = ScriptedLlmServer(dialect=dialect)
    model = client(server)
    try:
        info = model.describe()
        assert (info.has_plain, info.has_chat) == (has_plain, has_chat)
        assert info.reads_token_ids is (dialect is VLLM)
        assert info.n_top_logprobs == 20
        assert info.n_context_tokens == (256 if dialect in (VLLM, LLAMA_CPP) else 4096)
        assert info.names_token_ids is (dialect in (VLLM, LLAMA_CPP))
        if info.names_token_ids:
            token_ids = tuple(model.tokenize(word)[0] for word in (" yes", " no"))
            completions = model.complete(PROMPTS, Decoding(token_ids=token_ids))
            assert all(set(token_ids) <= completion.logprobs.keys() for completion in completions)
        else:
            completions = model.complete(PROMPTS, Decoding(n_logprobs=20))
            assert all({" yes", " no"} <= one.text_logprobs.keys() for one in completions)
    finally:
        model.close()
        server.close()
