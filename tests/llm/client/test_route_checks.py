"""An optional thing that fails costs itself alone; the checks come out right for odd servers."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from backend.domain.ports import Conversation, Decoding
from backend.errors import LanguageModelError, LanguageModelRejected, LanguageModelUnavailable
from backend.llm.client import capabilities
from backend.llm.client import server as client_module
from tests.llm.client.vllm_client import PROMPTS, client
from tests.llm_server import (
    LLAMA_CPP,
    OPENAI_CHAT,
    VLLM,
    Reply,
    ScriptedLlmServer,
    chat,
    error,
    is_work,
)

ANSWER = Decoding(max_tokens=3)


def is_grammar(body):
    return "grammar" in body.get("structured_outputs", {})


def refuse(*names):
    """A rule that refuses fields; a temperature of 1 is allowed everywhere."""

    def rule(path, body):
        for name in names:
            if name in body and (name, body[name]) != ("temperature", 1):
                return error(400, f"{name} is not supported with this model", name)
        return None

    return rule


@pytest.mark.parametrize(
    "fields",
    [("temperature",), ("max_tokens",), ("max_tokens", "temperature")],
    ids=lambda names: "+".join(names),
)
def test_what_a_model_refuses_is_left_out(server, model, fields):
    server.rule = refuse(*fields)
    (answer,) = model.complete(["say"], ANSWER)
    assert answer.text == " yes"
    body = server.requests[-1][1]
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 3
    assert "temperature" in body or "temperature" in fields


def test_a_limit_that_a_models_thoughts_would_reach_is_raised():
    """As OpenAI's reasoning models: 400 rather than an empty answer."""
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    message = "Could not finish the message because max_tokens or model output limit was reached."
    server.rule = lambda path, body: (
        error(400, message)
        if body.get("max_completion_tokens", 9999) < 900
        else chat("Good")
        if "max_completion_tokens" in body
        else None
    )
    model = client(server)
    assert model.describe().has_chat
    model.close()
    server.close()


@pytest.mark.parametrize("least", [16, 1000])
def test_a_least_limit_is_kept(server, model, least):
    server.rule = lambda path, body: (
        error(400, f"max_tokens must be at least {least}", "max_tokens")
        if body.get("max_tokens", body.get("max_completion_tokens", least)) < least
        else None
    )
    info = model.describe()
    assert (info.reads_token_ids, info.constrains_choices) == (True, True)
    assert [one.text for one in model.complete(["say"], ANSWER)] == [" yes"]


def test_tokens_with_ids_are_told_apart_by_text_where_nothing_makes_ids(server):
    """As llama.cpp behind a gateway that closes /tokenize."""
    server.dialect = replace(LLAMA_CPP, tokenizer=None)
    model = client(server)
    assert not model.describe().names_token_ids
    (answer,) = model.complete([Conversation("", ("say",))], Decoding(n_logprobs=5))
    assert {" yes", " no"} <= answer.text_logprobs.keys()
    model.close()


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500, 502])
@pytest.mark.parametrize("path", ["/tokenize", "/props", "/v1/chat/completions/batch"])
def test_a_closed_route_beside_the_main_ones_costs_itself(server, model, path, status):
    headers = {"Location": "/login", "Retry-After": "60"}
    page = Reply(status, raw=b"<html>no entry</html>", headers=headers)
    server.rule = lambda asked, body: page if asked == path else None
    assert model.describe().has_plain
    (answer,) = model.complete(["say"], ANSWER)
    assert answer.text == " yes"


BROKEN = {
    "logprobs": lambda path, body: body.get("logprobs") is not None,
    "constraints": lambda path, body: "structured_outputs" in body,
    "chat": lambda path, body: "/chat/" in path,
    "plain": lambda path, body: path == "/v1/completions",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("reply", [Reply(500, raw=b"oops"), Reply(raw=b"<html>")])
def test_a_broken_ability_costs_itself(server, model, broken, reply):
    server.rule = lambda path, body: reply if body and broken(path, body) else None
    prompts = PROMPTS[:2] if broken is not BROKEN["plain"] else [Conversation("", ("say",))] * 2
    assert [one.text for one in model.complete(prompts, ANSWER)] == [" yes", " yes"]


def test_what_failed_by_bad_luck_is_checked_again_beside_the_work(server, monkeypatch):
    monkeypatch.setattr(client_module, "_RECHECK_AFTER_S", 0.01)
    model = client(server)
    server.rule = lambda path, body: Reply(500) if body and "structured_outputs" in body else None
    assert not model.describe().constrains_json
    server.rule = lambda path, body: None
    until = time.monotonic() + 5.0
    while not model.describe().constrains_json and time.monotonic() < until:
        time.sleep(0.01)
    assert model.describe().constrains_json


@pytest.mark.parametrize("hangs", ["/tokenize", "/v1/chat/completions", "/v1/completions"])
def test_a_route_that_never_answers_does_not_hold_the_others(server, model, monkeypatch, hangs):
    monkeypatch.setattr(capabilities, "_CHECKS_S", 0.3)
    monkeypatch.setattr(capabilities, "_LATENCIES_PER_CHECKS", 1)
    server.rule = lambda path, body: Reply(hang_s=20.0) if path == hangs else None
    started_at = time.monotonic()
    assert model.describe(deadline_s=15.0).name == "tiny"
    assert time.monotonic() - started_at < 5.0
    server.closing.set()


def test_the_message_is_that_of_the_route_that_exists():
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    server.rule = lambda path, body: (
        error(400, "the budget of this key is used up") if "messages" in body else None
    )
    with pytest.raises(LanguageModelRejected, match="chat/completions.*budget") as caught:
        client(server).describe()
    assert "LLM_BASE_URL" not in str(caught.value)
    server.close()


def test_where_no_route_exists_the_address_is_at_fault(server, model):
    server.rule = lambda path, body: None if path == "/v1/models" else Reply(404, {})
    with pytest.raises(LanguageModelRejected, match="LLM_BASE_URL"):
        model.describe()


def test_a_refused_key_is_said_even_where_the_list_is_public(server, model):
    server.rule = lambda path, body: None if path == "/v1/models" else Reply(401, {})
    with pytest.raises(LanguageModelRejected, match="LLM_API_KEY"):
        model.describe()


@pytest.mark.parametrize("reply", [Reply(raw=b"data: {}\n\n"), Reply(raw=b"<html>Sign in</html>")])
def test_an_answer_that_is_no_json_says_where_it_came_from(server, model, reply):
    server.rule = lambda path, body: reply
    with pytest.raises(LanguageModelError, match="127.0.0.1.*(event stream|web page|list)"):
        model.describe()


def test_a_server_that_is_busy_at_first_is_waited_for(server, model):
    n_asked = []

    def busy_twice(path, body):
        n_asked.append(path)
        return error(429, "slow down") if len(n_asked) in (1, 2, 7, 8) else None

    server.rule = busy_twice
    assert model.describe().constrains_json


def test_a_server_that_stays_busy_is_unavailable(server, model):
    busy = error(429, "slow down")
    busy.headers["Retry-After"] = "60"
    server.rule = lambda path, body: busy
    with pytest.raises(LanguageModelUnavailable, match="busy"):
        model.describe()


WRITTEN = {
    "padded with blanks": "{" + " " * 90 + '"xylophone"' + "\n" * 40 + ": true}",
    "pretty-printed": '{\n  "xylophone": true\n}\n',
    "after thoughts": '<think>A boolean.</think>\n\n{"xylophone":true}',
    "late": '{"xylophone":true}',
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_schema_is_found_to_be_held_however_the_answer_looks(kind):
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)

    def held(path, body):
        if "response_format" not in body or "enum" in json.dumps(body["response_format"]):
            return None
        reply = chat(WRITTEN[kind])
        reply.hang_s = 1.0 if kind == "late" else 0.0
        return reply

    server.rule = held
    model = client(server)
    assert model.describe().constrains_json
    model.close()
    server.close()


def test_a_schema_goes_to_vllm_as_a_grammar_without_blanks():
    """Its own schemas allow any number of blanks, and small models write nothing else."""
    server = ScriptedLlmServer(dialect=VLLM)

    def pads(path, body):
        held = body.get("structured_outputs", {})
        if "json" not in held and "grammar" not in held:
            return None
        text = '{"xylophone":true}' if "grammar" in held else '{"xylophone":' + " " * 100
        return server.honest(path, {**body, "structured_outputs": {"choice": [text]}})

    server.rule = pads
    model = client(server)
    schema = {
        "type": "object",
        "properties": {"xylophone": {"type": "boolean"}},
        "required": ["xylophone"],
    }
    decoding = Decoding(max_tokens=30, json_schema=json.dumps(schema))
    (answer,) = model.complete(["say"], decoding)
    assert answer.text == '{"xylophone":true}'
    assert is_grammar(server.requests[-1][1])
    model.close()
    server.close()


@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_system_role_opens_the_first_turn_of_the_user(server, model, status):
    def alternates(path, body):
        messages = body.get("messages", [{}])
        chats = [messages] if isinstance(messages[0], dict) else messages
        has_system = any(one.get("role") == "system" for talk in chats for one in talk)
        return error(status, "System role not supported") if has_system else None

    server.rule = alternates
    (answer,) = model.complete([Conversation("Be exact.", ("one", "first", "two"))], ANSWER)
    assert answer.text == " yes"
    (talk,) = [body["messages"][0] for path, body in server.requests if is_work(path, body)][-1:]
    assert [(turn["role"], turn["content"]) for turn in talk] == [
        ("user", "Be exact.\n\none"),
        ("assistant", "first"),
        ("user", "two"),
    ]


def test_answers_without_a_number_are_taken_as_they_stand(server, model):
    def unnumbered(path, body):
        reply = server.honest(path, body)
        for choice in reply.body.get("choices", ()) if isinstance(reply.body, dict) else ():
            del choice["index"]
        return reply

    server.rule = unnumbered
    assert [one.text for one in model.complete(PROMPTS, ANSWER)] == [" yes"] * len(PROMPTS)
