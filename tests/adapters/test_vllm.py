"""VllmServer against a real local server that misbehaves on demand."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from backend.adapters.vllm import VllmServer
from backend.core.ports import Decoding, LanguageModelInfo
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from tests.llm_server import (
    LLAMA_CPP,
    OLLAMA,
    OPENAI_CHAT,
    VLLM,
    Reply,
    ScriptedLlmServer,
    error,
    is_work,
    prompts_in,
)

ASKED = Decoding(token_ids=(11, 12))
DIALECTS = {"vLLM": VLLM, "OpenAI": OPENAI_CHAT, "llama.cpp": LLAMA_CPP, "Ollama": OLLAMA}
PROMPTS = [f"prompt number {number}" for number in range(10)]


@pytest.fixture
def server() -> Iterator[ScriptedLlmServer]:
    server = ScriptedLlmServer()
    yield server
    server.close()


@pytest.fixture
def model(server: ScriptedLlmServer) -> Iterator[VllmServer]:
    model = client(server)
    yield model
    model.close()


def client(server: ScriptedLlmServer, **settings: Any) -> VllmServer:
    defaults: dict[str, Any] = {"timeout_s": 5.0, "batch_size": 4, "first_pause_s": 0.001}
    return VllmServer(server.url, **(defaults | settings))


def expected(prompt: str) -> dict[int, float]:
    return {token: ScriptedLlmServer.logprob(prompt, token) for token in (7, 11, 12)}


def assert_all_answered(completions, prompts=PROMPTS):
    assert [completion.failure for completion in completions] == [None] * len(prompts)
    assert [completion.logprobs for completion in completions] == [expected(p) for p in prompts]


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
    assert model.describe().n_context_tokens == 2048


def test_describing_is_done_once(server, model):
    model.describe()
    n_requests = len(server.requests)
    assert model.describe() is model.describe()
    assert len(server.requests) == n_requests


def test_what_was_measured_before_a_failure_is_not_measured_again(server, model):
    def busy_once(path, body):
        if "structured_outputs" in body and not any(
            "structured_outputs" in asked for _, asked in server.requests[:-1]
        ):
            return error(503, "busy")
        return None

    server.rule = busy_once
    with pytest.raises(LanguageModelUnavailable):
        model.describe()
    n_lists = sum(len(prompts_in(body)) == 2 for path, body in server.requests if body)
    assert model.describe().constrains_choices
    assert n_lists == sum(len(prompts_in(body)) == 2 for path, body in server.requests if body)


def test_a_model_that_is_not_served_is_refused_with_what_is_served(server):
    with pytest.raises(LanguageModelRejected, match="'llama'.*'tiny'.*LLM_MODEL"):
        client(server, model="llama").describe()


def test_a_server_that_lists_no_models_is_no_llm_server(server, model):
    server.rule = lambda path, body: Reply(body={"data": []})
    with pytest.raises(LanguageModelUnavailable, match="no model"):
        model.describe()


def test_the_wrong_address_says_how_to_write_it(server):
    with pytest.raises(LanguageModelRejected, match="404.*LLM_BASE_URL.*/v1"):
        VllmServer(server.url + "/wrong").describe()


def test_no_url_at_all_is_refused():
    with pytest.raises(LanguageModelRejected, match="LLM_BASE_URL"):
        VllmServer("http://").describe()


def test_a_refused_key_names_the_setting(server, model):
    server.rule = lambda path, body: Reply(401, {"error": "Unauthorized"})
    with pytest.raises(LanguageModelRejected, match="401.*LLM_API_KEY"):
        model.complete(PROMPTS, ASKED)
    assert len(server.requests) <= 3


def test_the_key_is_sent_and_shown_nowhere(server, caplog):
    caplog.set_level(logging.DEBUG, logger="backend")
    model = client(server, api_key="s3cret-key")
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert all(headers["Authorization"] == "Bearer s3cret-key" for headers in server.headers)
    assert "s3cret-key" not in caplog.text + repr(model) + repr(vars(model))


def test_a_password_in_the_url_is_left_out_of_messages():
    with pytest.raises(LanguageModelUnavailable) as caught:
        VllmServer("http://me:s3cret@127.0.0.1:9/v1").describe()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_a_redirect_is_not_followed(server, model):
    server.rule = lambda path, body: Reply(302, {}, headers={"Location": "http://127.0.0.1:9/"})
    with pytest.raises(LanguageModelRejected, match="302.*LLM_BASE_URL"):
        model.describe()


def test_tokens_of_a_text_come_without_special_ones(server, model):
    assert model.tokenize("good film") == tuple(server.tokens("good film"))
    path, body = server.requests[-1]
    assert (path, body["add_special_tokens"]) == ("/tokenize", False)


def test_a_server_without_a_tokenizer_route_is_read_by_text(server, model):
    server.dialect = replace(VLLM, tokenizer=None)
    assert model.tokenize("good film") == model.tokenize("good film")
    assert model.truncate("one two three four", 3) == "one two three"
    assert model.describe().reads_token_ids is False


def test_a_long_text_is_cut_to_its_first_tokens(server, model):
    assert model.truncate("one two three four", 3) == "one two three"
    assert model.truncate("one two three four", 0) == ""
    assert model.truncate("one two", 3) == "one two"


def test_a_huge_text_is_cut_before_it_is_sent(server, model):
    assert model.truncate("word " * 200_000, 10).startswith("word word")
    assert all(len(body.get("prompt", "")) <= 120 for _, body in server.requests)


def test_a_tokenizer_that_does_not_give_the_text_back_still_cuts_it(server, model):
    server.rule = lambda path, body: (
        Reply(body={"prompt": "ONE TWO"}) if path == "/detokenize" else None
    )
    assert model.truncate("one two three four", 2) == "one two"


def test_a_token_cut_in_the_middle_of_a_character_leaves_no_stray(server, model):
    server.rule = lambda path, body: (
        Reply(body={"prompt": "one two\N{REPLACEMENT CHARACTER}"})
        if path == "/detokenize"
        else None
    )
    assert model.truncate("one two \N{SNOWMAN} four", 3) == "one two"


def test_prompts_go_out_in_lists_and_come_back_in_order(server, model):
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert sorted(len(prompts) for prompts in server.lists()) == [2, 4, 4]


def test_choices_in_another_order_are_put_right(server, model):
    def reversed_choices(path, body):
        if path != "/v1/completions":
            return None
        reply = server.honest(path, body)
        reply.body["choices"].reverse()
        return reply

    server.rule = reversed_choices
    assert_all_answered(model.complete(PROMPTS, ASKED))


def test_several_lists_are_in_flight_but_not_more_than_allowed(server):
    model = client(server, batch_size=1, concurrency=3)
    model.describe()
    server.rule = lambda path, body: time.sleep(0.02)
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert server.most_in_flight == 3


def test_tokens_are_counted_and_add_up(server, model):
    completions = model.complete(PROMPTS, ASKED)
    n_tokens = sum(len(server.tokens(prompt)) for prompt in PROMPTS)
    assert sum(completion.n_tokens_in for completion in completions) == n_tokens
    assert [completion.n_tokens_out for completion in completions] == [1] * len(PROMPTS)
    usage = model.usage()
    assert (usage.n_tokens_in, usage.n_tokens_out) == (n_tokens, len(PROMPTS))
    assert usage.n_requests == len(server.requests)
    assert usage.n_failed_requests == 0
    assert usage.seconds > 0


def test_a_server_that_counts_nothing_costs_nothing_known(server, model):
    def uncounted(path, body):
        reply = server.honest(path, body)
        reply.body.pop("usage", None)
        return reply

    server.rule = uncounted
    assert_all_answered(model.complete(PROMPTS, ASKED))
    assert model.usage().n_tokens_in == 0


def test_without_asked_tokens_no_probabilities_are_asked(server, model):
    (completion,) = model.complete(["say"], Decoding(max_tokens=5))
    assert (completion.text, completion.logprobs) == (" yes", None)
    assert "logprobs" not in server.requests[-1][1]


def test_likeliest_tokens_are_used_where_named_ones_cannot_be_asked(server, model):
    server.reads_token_ids = False
    (completion,) = model.complete(["say"], ASKED)
    assert completion.logprobs is not None
    assert len(completion.logprobs) == 20


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
    assert model.usage().n_failed_requests <= 2


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


def test_a_busy_server_gets_shorter_lists_until_it_can_take_them(server):
    model = client(server, batch_size=64, concurrency=1)
    server.rule = lambda path, body: (
        error(503, "busy") if path == "/v1/completions" and len(prompts_in(body)) > 4 else None
    )
    assert_all_answered(model.complete(PROMPTS * 4, ASKED), PROMPTS * 4)
    taken = [len(prompts) for prompts in server.lists() if len(prompts) <= 4]
    assert max(taken) > 1


def test_lists_grow_again_slowly_when_the_server_has_recovered(server):
    model = client(server, batch_size=16, concurrency=1)
    model.describe()
    server.script.append(error(503, "busy"))
    model.complete(PROMPTS * 20, ASKED)
    lengths = [len(prompts) for prompts in server.lists()]
    assert lengths[:3] == [16, 8, 9]
    assert max(lengths[3:]) == 16


def test_a_server_that_is_down_is_unavailable_soon_and_says_what_to_do():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        model = VllmServer(
            f"http://127.0.0.1:{unused.getsockname()[1]}/v1", first_pause_s=0.01, batch_size=1
        )
        started_at = time.monotonic()
        with pytest.raises(LanguageModelUnavailable, match="start it, or set LLM_BASE_URL"):
            model.complete(PROMPTS, ASKED)
    assert time.monotonic() - started_at < 2


def test_a_server_that_goes_down_in_the_middle_keeps_what_was_answered(server):
    model = client(server, batch_size=2, concurrency=1)
    model.describe()
    server.script.extend([None, None])
    server.rule = lambda path, body: Reply(500, {}) if PROMPTS[-1] in body["prompt"] else None
    completions = model.complete(PROMPTS, ASKED)
    assert_all_answered(completions[:9], PROMPTS[:9])
    assert completions[9].failure is not None


def test_another_model_at_the_same_address_is_noticed(server, model):
    assert model.describe().name == "tiny"
    server.model = "big"
    with pytest.raises(LanguageModelUnavailable, match="another model"):
        model.complete(PROMPTS, ASKED)
    assert model.describe().name == "big"


def test_token_ids_of_one_model_are_never_asked_of_another(server, model):
    with pytest.raises(LanguageModelUnavailable, match="now serves 'tiny' where 'old'"):
        model.complete(PROMPTS, Decoding(token_ids=(11, 12), model="old"))
    assert server.lists() == []


def test_a_hanging_server_does_not_hold_a_call_past_its_deadline(server, model):
    model.describe()
    server.rule = lambda path, body: Reply(hang_s=30)
    started_at = time.monotonic()
    completions = model.complete(PROMPTS, ASKED, deadline_s=0.3)
    assert 0.25 < time.monotonic() - started_at < 1.0
    assert {completion.failure for completion in completions} == {"no answer within 0.3 s"}
    assert not any(completion.was_refused for completion in completions)


def test_a_busy_server_is_asked_again_no_sooner_than_it_said(server, model):
    model.describe()
    busy = error(429, "slow down")
    busy.headers["Retry-After"] = "1"
    server.script.append(busy)
    started_at = time.monotonic()
    assert_all_answered(model.complete(PROMPTS[:2], ASKED), PROMPTS[:2])
    assert time.monotonic() - started_at >= 1.0


def test_what_was_answered_before_the_deadline_is_kept(server):
    model = client(server, batch_size=2, concurrency=1)
    model.describe()
    server.script.extend([None, None, Reply(hang_s=30)])
    completions = model.complete(PROMPTS, ASKED, deadline_s=0.5)
    assert_all_answered(completions[:4], PROMPTS[:4])
    assert {completion.failure for completion in completions[4:]} == {"no answer within 0.5 s"}


def test_lists_are_short_when_time_is(server):
    model = client(server, batch_size=64)
    assert_all_answered(model.complete(PROMPTS * 2, ASKED, deadline_s=30), PROMPTS * 2)
    assert max(len(prompts) for prompts in server.lists()) == 8


def test_a_server_that_sends_drop_by_drop_does_not_hold_its_thread(server, model):
    model.describe()
    server.rule = lambda path, body: Reply(raw=b" " * 1000, drip_s=0.05)
    model.complete(PROMPTS, ASKED, deadline_s=0.2)
    until = time.monotonic() + 2
    while time.monotonic() < until and any(t.name.startswith("llm") for t in threading.enumerate()):
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name.startswith("llm")]


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


def test_long_answers_start_with_short_lists_that_double(server):
    model = client(server, batch_size=64, concurrency=1)
    model.describe()
    model.complete(PROMPTS * 20, Decoding(max_tokens=64))
    assert [len(prompts) for prompts in server.lists()] == [8, 16, 32, 64, 64, 16]


def test_lists_that_take_half_the_time_limit_do_not_grow(server):
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


def test_a_text_that_cannot_travel_does_not_crash(server, model):
    text = "lone \ud800 surrogate and \0 null"
    assert model.truncate(text, 100) == text
    assert len(model.tokenize(text)) > 3
    assert_all_answered(model.complete([text], ASKED), ["lone ? surrogate and   null"])


def test_many_threads_share_one_model(server):
    model = client(server)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(model.complete(PROMPTS, ASKED)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    for completions in answers:
        assert_all_answered(completions)
    assert [path for path, _ in server.requests].count("/v1/models") == 1


def test_prompts_are_never_logged(server, model, caplog):
    caplog.set_level(logging.DEBUG)
    server.script.extend([error(503, "busy"), error(400, "no")])
    model.complete(PROMPTS, ASKED)
    assert "prompt number" not in caplog.text


def test_a_chat_goes_through_the_template_in_lists(server, model):
    completions = model.complete(PROMPTS, replace(ASKED, is_chat=True))
    assert_all_answered(completions)
    work = [path for path, body in server.requests if is_work(path, body)]
    assert set(work) == {"/v1/chat/completions/batch"}
    assert sorted(len(prompts) for prompts in server.lists()) == [2, 4, 4]


def test_all_of_a_decoding_reaches_the_server(server, model):
    decoding = Decoding(max_tokens=9, temperature=0.7, seed=5, stop=("\n",), n_logprobs=2)
    (completion,) = model.complete(["say"], decoding)
    body = server.requests[-1][1]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.7, 5)
    assert (body["stop"], body["logprobs"]) == (["\n"], 2)
    assert completion.mean_logprob == pytest.approx(ScriptedLlmServer.logprob("say", 7))
    assert completion.finish_reason == "length"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
def test_an_answer_is_held_to_choices_or_a_schema(dialect):
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
        assert info.n_context_tokens == (256 if dialect in (VLLM, LLAMA_CPP) else 2048)
        token_ids = tuple(model.tokenize(word)[0] for word in (" yes", " no"))
        completions = model.complete(PROMPTS, Decoding(token_ids=token_ids))
        assert all(set(token_ids) <= completion.logprobs.keys() for completion in completions)
    finally:
        model.close()
        server.close()


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
