"""Requests use the route and the fields that the server has."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend.domain.ports import Conversation, Decoding
from backend.llm.client.requests import RouteCapabilities, request_body
from tests.llm.client.vllm_client import ASKED, DIALECTS, PROMPTS, assert_all_answered, client
from tests.llm_server import VLLM, ScriptedLlmServer, is_work

ASKED_TEXT = Decoding(max_tokens=3)


def test_without_asked_tokens_no_probabilities_are_asked(server, model):
    (completion,) = model.complete(["say"], Decoding(max_tokens=5))
    assert (completion.text, completion.logprobs) == (" yes", None)
    assert "logprobs" not in server.requests[-1][1]


def test_likeliest_tokens_are_used_where_named_ones_cannot_be_asked(server, model):
    server.reads_token_ids = False
    (completion,) = model.complete(["say"], ASKED)
    assert completion.logprobs is not None
    assert len(completion.logprobs) == 20


def test_a_chat_goes_through_the_template_in_batches(server, model):
    completions = model.complete([Conversation("", (prompt,)) for prompt in PROMPTS], ASKED)
    assert_all_answered(completions)
    work = [path for path, body in server.requests if is_work(path, body)]
    assert set(work) == {"/v1/chat/completions/batch"}
    assert sorted(len(prompts) for prompts in server.lists()) == [2, 4, 4]


@pytest.mark.parametrize("ability", ["reads_token_ids", "names_token_ids"])
def test_a_vllm_gets_no_seed_because_one_on_a_cpu_may_end_of_it(ability):
    decoding = Decoding(temperature=0.7, seed=5)
    another = RouteCapabilities(exists=True, n_top_logprobs=5)
    assert request_body("plain", "m", "say", decoding, another)["seed"] == 5
    of_vllm = replace(another, **{ability: True})
    assert "seed" not in request_body("plain", "m", "say", decoding, of_vllm)


def test_all_of_a_decoding_reaches_the_server(server, model):
    decoding = Decoding(max_tokens=9, temperature=0.7, seed=5, stop=("\n",), n_logprobs=2)
    (completion,) = model.complete(["say"], decoding)
    body = server.requests[-1][1]
    assert (body["max_tokens"], body["temperature"]) == (9, 0.7)
    assert (body["stop"], body["logprobs"]) == (["\n"], 2)
    assert completion.mean_logprob == pytest.approx(ScriptedLlmServer.logprob("say", 7))
    assert completion.finish_reason == "length"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
def test_an_answer_is_constrained_to_choices_or_a_schema(dialect):
    server = ScriptedLlmServer(dialect=dialect)
    model = client(server)
    try:
        assert model.describe().constrains_choices
        assert model.describe().constrains_json
        (choice,) = model.complete(["say"], Decoding(max_tokens=4, choices=("good", "bad film")))
        assert choice.text == "bad film"
        schema = {"type": "object", "properties": {"is_good": {"type": "boolean"}}}
        decoding = Decoding(max_tokens=30, json_schema=json.dumps(schema))
        (answer,) = model.complete(["say"], decoding)
        assert json.loads(answer.text) == {"is_good": False}
    finally:
        model.close()
        server.close()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
def test_a_conversation_goes_to_the_chat_route_turn_by_turn(dialect):
    server = ScriptedLlmServer(dialect=dialect)
    model = client(server)
    try:
        talk = Conversation("Be brief.", ("one", "first", "two"))
        assert [answer.text for answer in model.complete([talk, talk], ASKED_TEXT)] == [" yes"] * 2
        path, body = server.requests[-1]
        assert path.startswith("/v1/chat/completions")
        messages = (
            body["messages"] if isinstance(body["messages"][0], dict) else body["messages"][0]
        )
        assert [(one["role"], one["content"]) for one in messages] == [
            ("system", "Be brief."),
            ("user", "one"),
            ("assistant", "first"),
            ("user", "two"),
        ]
    finally:
        model.close()
        server.close()


def test_a_server_without_the_chat_route_gets_a_conversation_as_text(server):
    server.dialect = replace(VLLM, has_chat=False)
    model = client(server)
    model.complete([Conversation("Be brief.", ("one",))], ASKED_TEXT)
    assert server.requests[-1][0] == "/v1/completions"
    assert server.requests[-1][1]["prompt"] == ["Be brief.\n\none"]
    model.close()
