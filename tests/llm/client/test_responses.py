"""Answers with a flaw: none makes a label, and one that goes away is not noticed."""

from __future__ import annotations

import json

import pytest

from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from tests.llm.client.vllm_client import ASKED, PROMPTS, assert_all_answered, client
from tests.llm_server import Reply, error


def test_a_model_that_is_not_served_is_refused_with_what_is_served(server):
    with pytest.raises(LanguageModelRejected, match="'llama'.*'tiny'.*LLM_MODEL"):
        client(server, model="llama").describe()


def test_a_server_that_lists_no_models_is_no_llm_server(server, model):
    server.rule = lambda path, body: Reply(body={"data": []})
    with pytest.raises(LanguageModelUnavailable, match="no model"):
        model.describe()


def test_choices_in_another_order_are_put_right(server, model):
    def reversed_choices(path, body):
        if path != "/v1/completions":
            return None
        reply = server.honest(path, body)
        reply.body["choices"].reverse()
        return reply

    server.rule = reversed_choices
    assert_all_answered(model.complete(PROMPTS, ASKED))


def test_tokens_are_counted_and_add_up(server, model):
    completions = model.complete(PROMPTS, ASKED)
    n_tokens = sum(len(server.tokens(prompt)) for prompt in PROMPTS)
    assert sum(completion.n_tokens_in for completion in completions) == n_tokens
    assert [completion.n_tokens_out for completion in completions] == [1] * len(PROMPTS)


def test_a_server_that_counts_nothing_costs_nothing_known(server, model):
    def uncounted(path, body):
        reply = server.honest(path, body)
        reply.body.pop("usage", None)
        return reply

    server.rule = uncounted
    completions = model.complete(PROMPTS, ASKED)
    assert_all_answered(completions)
    assert {completion.n_tokens_in for completion in completions} == {0}


FLAWS = {
    "busy": error(503, "The engine is currently busy"),
    "too many requests": error(429, "slow down"),
    "internal error": error(500, "EngineCore encountered an issue"),
    "not JSON": Reply(raw=b"<html>hello</html>"),
    "truncated JSON": Reply(raw=b'{"choices": [{"index": 0, "te'),
    "connection lost in the middle": Reply(raw=b'{"choices": []}' * 9, n_bytes_missing=40),
    "a list for an object": Reply(body=[1, 2, 3]),
    "no choices": Reply(body={"object": "text_completion"}),
    "too few choices": Reply(body={"choices": [{"index": 0, "text": "x", "logprobs": None}]}),
    "null choices": Reply(body={"choices": [None] * 4}),
    "one index twice": Reply(body={"choices": [{"index": 0, "text": ""}] * 4}),
    "strange indices": Reply(body={"choices": [{"index": [i], "text": ""} for i in range(4)]}),
    "nested too deeply": Reply(raw=b"[" * 100_000),
    "not text at all": Reply(raw=b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS.keys())
def test_a_flaw_that_goes_away_is_not_noticed(server, model, flaw):
    model.describe()
    server.script.extend([flaw, flaw])
    assert_all_answered(model.complete(PROMPTS[:8], ASKED), PROMPTS[:8])
    assert len(server.script) == 0


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS.keys())
def test_a_flaw_that_stays_is_unavailable_in_the_end(server, model, flaw):
    model.describe()
    server.rule = lambda path, body: flaw if path == "/v1/completions" else None
    with pytest.raises(LanguageModelUnavailable):
        model.complete(PROMPTS, ASKED)
    assert len(server.lists()) < 30


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "0.5", "true", '"-1"', "null"])
def test_an_impossible_probability_makes_no_label(server, model, number):
    """Only the prompt that got it is asked again, and fails alone when it stays so."""

    def poisoned(path, body):
        if path != "/v1/completions" or PROMPTS[2] not in body["prompt"]:
            return None
        reply = server.honest(path, body)
        choice = reply.body["choices"][body["prompt"].index(PROMPTS[2])]
        choice["logprobs"]["top_logprobs"][0]["token_id:11"] = json.loads(number)
        return reply

    server.rule = poisoned
    completions = model.complete(PROMPTS, ASKED)
    assert completions[2].logprobs is None
    assert completions[2].failure is not None
    assert not completions[2].was_refused
    del completions[2]
    assert_all_answered(completions, PROMPTS[:2] + PROMPTS[3:])


def test_an_answer_without_the_asked_tokens_makes_no_label(server, model):
    """As when a server is restarted in an older version that ignores the field."""
    model.describe()
    server.reads_token_ids = False
    with pytest.raises(LanguageModelUnavailable, match="log-probabilities"):
        model.complete(PROMPTS, ASKED)
    assert model.describe().reads_token_ids is False
