"""Batches of prompts: size, concurrency, retries, and a bad prompt that fails alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from backend.domain.ports import Decoding
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from tests.llm.client.vllm_client import ASKED, PROMPTS, assert_all_answered, client
from tests.llm_server import OLLAMA, Reply, ScriptedLlmServer, error, is_work, prompts_in


def test_prompts_go_out_in_batches_and_come_back_in_order(server, model):
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert sorted(len(prompts) for prompts in server.lists()) == [2, 4, 4]


def test_several_batches_are_in_flight_but_not_more_than_allowed(server):
    model = client(server, batch_size=1, concurrency=3)
    model.describe()
    server.most_in_flight = 0
    server.rule = lambda path, body: time.sleep(0.02)
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert server.most_in_flight == 3


def test_a_prompt_that_is_too_long_fails_alone(server):
    model = client(server, batch_size=64)
    long_prompt = "secret words " * 200
    prompts = [*PROMPTS[:5], long_prompt, *PROMPTS[5:]]
    completions = model.complete(prompts, ASKED)
    failed = completions.pop(5)
    assert_all_answered(completions)
    assert failed.was_refused
    assert "maximum context length is 256" in failed.failure
    assert "secret" not in failed.failure


def test_a_refusal_that_quotes_the_prompt_is_not_repeated(server, model):
    prompt = "my secret diary, page one"
    server.rule = lambda path, body: (
        error(400, f"1 validation error: input: {prompt}")
        if body.get("prompt") == [prompt]
        else None
    )
    (completion,) = model.complete([prompt], ASKED)
    assert completion.was_refused
    assert "diary" not in completion.failure


def test_all_prompts_can_be_refused_without_an_error(server, model):
    completions = model.complete([""] * 5, ASKED)
    assert all(completion.was_refused for completion in completions)


def test_a_refusal_of_what_all_prompts_share_is_not_searched_for_a_culprit(server, model):
    model.describe()
    server.rule = lambda path, body: error(400, "out of vocabulary", "logprob_token_ids")
    with pytest.raises(LanguageModelRejected, match="out of vocabulary"):
        model.complete(PROMPTS, ASKED)
    assert len(server.lists()) <= 3


def test_a_prompt_that_breaks_the_server_sinks_none_of_its_neighbours(server):
    model = client(server, batch_size=64, concurrency=1)
    server.rule = lambda path, body: (
        error(500, "Out of range float") if PROMPTS[3] in body.get("prompt", []) else None
    )
    completions = model.complete(PROMPTS, ASKED)
    failed = completions.pop(3)
    assert_all_answered(completions, PROMPTS[:3] + PROMPTS[4:])
    assert "HTTP 500" in failed.failure
    assert not failed.was_refused


def test_a_busy_server_gets_smaller_batches_until_it_can_take_them(server):
    model = client(server, batch_size=64, concurrency=1)
    server.rule = lambda path, body: (
        error(503, "busy") if path == "/v1/completions" and len(prompts_in(body)) > 4 else None
    )
    assert_all_answered(model.complete(PROMPTS * 4, ASKED), PROMPTS * 4)
    taken = [len(prompts) for prompts in server.lists() if len(prompts) <= 4]
    assert max(taken) > 1


def test_batches_grow_again_slowly_when_the_server_has_recovered(server):
    model = client(server, batch_size=16, concurrency=1)
    model.describe()
    server.script.append(error(503, "busy"))
    model.complete(PROMPTS * 20, ASKED)
    lengths = [len(prompts) for prompts in server.lists()]
    assert lengths[:3] == [16, 8, 9]
    assert max(lengths[3:]) == 16


def test_a_server_that_goes_down_in_the_middle_keeps_what_was_answered(server):
    model = client(server, batch_size=2, concurrency=1)
    model.describe()
    server.script.extend([None, None])
    server.rule = lambda path, body: Reply(500, {}) if PROMPTS[-1] in body["prompt"] else None
    completions = model.complete(PROMPTS, ASKED)
    assert_all_answered(completions[:9], PROMPTS[:9])
    assert completions[9].failure is not None


def test_a_hanging_server_does_not_hold_a_call_past_its_deadline(server, model):
    model.describe()
    server.rule = lambda path, body: Reply(hang_s=30)
    started_at = time.monotonic()
    completions = model.complete(PROMPTS, ASKED, deadline_s=0.3)
    assert 0.25 < time.monotonic() - started_at < 1.0
    assert {completion.failure for completion in completions} == {"no answer within 0.3 s"}
    assert not any(completion.was_refused for completion in completions)


def test_what_was_answered_before_the_deadline_is_kept(server):
    model = client(server, batch_size=2, concurrency=1)
    model.describe()
    server.script.extend([None, None, Reply(hang_s=30)])
    completions = model.complete(PROMPTS, ASKED, deadline_s=0.5)
    assert_all_answered(completions[:4], PROMPTS[:4])
    assert {completion.failure for completion in completions[4:]} == {"no answer within 0.5 s"}


def test_batches_are_small_under_a_deadline(server):
    model = client(server, batch_size=64)
    assert_all_answered(model.complete(PROMPTS * 2, ASKED, deadline_s=30), PROMPTS * 2)
    assert max(len(prompts) for prompts in server.lists()) == 8


def test_a_deadline_covers_describing_as_well(server, model):
    server.rule = lambda path, body: Reply(hang_s=30)
    started_at = time.monotonic()
    assert len(model.complete(PROMPTS, ASKED, deadline_s=0.2)) == len(PROMPTS)
    for call in (model.describe, lambda **kw: model.tokenize("x", **kw)):
        with pytest.raises(LanguageModelUnavailable):
            call(deadline_s=0.2)
    assert time.monotonic() - started_at < 2


def test_requests_that_take_too_long_are_given_up_after_a_few(server):
    model = client(server, timeout_s=0.2)
    model.describe()
    server.rule = lambda path, body: Reply(hang_s=30)
    with pytest.raises(LanguageModelUnavailable, match="LLM_TIMEOUT_S"):
        model.complete(PROMPTS, ASKED)


def delay(server: ScriptedLlmServer, s_per_list: float, s_per_prompt: float = 0.0) -> None:
    """Let the server answer honestly, and late."""

    def rule(path: str, body: dict[str, Any]) -> Reply:
        if is_work(path, body):
            time.sleep(s_per_list + s_per_prompt * len(prompts_in(body)))
        return server.honest(path, body)

    server.rule = rule


def test_a_server_that_can_only_take_one_prompt_in_time_answers_them_all(server):
    model = client(server, timeout_s=0.6, batch_size=64, concurrency=3)
    model.describe()
    delay(server, 0.0, 0.35)
    assert_all_answered(model.complete(PROMPTS[:5], ASKED), PROMPTS[:5])


def test_long_answers_start_with_small_batches_that_double(server):
    model = client(server, batch_size=64, concurrency=1)
    model.describe()
    model.complete(PROMPTS * 20, Decoding(max_tokens=64))
    assert [len(prompts) for prompts in server.lists()] == [8, 16, 32, 64, 64, 16]


def test_batches_that_take_half_the_time_limit_do_not_grow(server):
    model = client(server, timeout_s=1.0, batch_size=32, concurrency=1)
    model.describe()
    delay(server, 0.0, 0.14)
    model.complete(PROMPTS[:8], Decoding(max_tokens=64))
    assert {len(prompts) for prompts in server.lists()} == {4}


def test_a_long_answer_has_more_time_than_a_short_one(server):
    model = client(server, timeout_s=0.2)
    model.describe()
    delay(server, 0.3)
    (completion,) = model.complete(PROMPTS[:1], Decoding(max_tokens=384))
    assert completion.failure is None
    with pytest.raises(LanguageModelUnavailable, match="LLM_TIMEOUT_S"):
        model.complete(PROMPTS[:1], ASKED)


def test_a_server_that_takes_single_prompts_gets_many_at_once():
    server = ScriptedLlmServer(dialect=OLLAMA)
    model = client(server)
    try:
        model.describe()
        server.rule = lambda path, body: time.sleep(0.02)
        assert len(model.complete(PROMPTS, Decoding(max_tokens=3))) == len(PROMPTS)
        assert 4 <= server.most_in_flight <= 12
        assert {len(prompts) for prompts in server.lists()} == {1}
    finally:
        model.close()
        server.close()
