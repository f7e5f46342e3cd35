"""Reasoning models: thoughts are no answers, and are turned off or given room."""

from __future__ import annotations

import pytest

from backend.domain.ports import Conversation, Decoding
from backend.llm.client.route_checks import N_THINKING_TOKENS
from backend.llm.client.thoughts import Answer, read_answer, shows_thinking
from tests.llm.client.vllm_client import client
from tests.llm_server import OPENAI_CHAT, Reply, ScriptedLlmServer, chat, error, is_work

ASKED = [Conversation("", ("How is it?",))]


def message(content, **more):
    return {"message": {"content": content, **more}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        (message("Good"), Answer("Good")),
        (message(None), Answer("")),
        ({"text": " good"}, Answer(" good")),
        (message("<think>It is\nfine.</think>\n\nGood"), Answer("Good", True)),
        (message("It is fine.</think>Good"), Answer("Good", True)),
        (message("<thinking>x</thinking>Good"), Answer("Good", True)),
        (message("[THINK]x[/THINK]Good"), Answer("Good", True)),
        (message("Good", reasoning_content="It is fine."), Answer("Good", True)),
        (message("Good", reasoning="It is fine."), Answer("Good", True)),
        (message("Good", reasoning_content=None, reasoning=""), Answer("Good")),
        (message([{"type": "text", "text": "Go"}, {"type": "text", "text": "od"}]), Answer("Good")),
        (
            message([{"type": "thinking", "thinking": []}, {"type": "text", "text": "Good"}]),
            Answer("Good"),
        ),
        (
            message("<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>Good"),
            Answer("Good", True),
        ),
        (message("analysisThe user asks.assistantfinalGood"), Answer("Good", True)),
        (message("<think>\nOkay, the user gives 2"), Answer("", True, True)),
        (message("", reasoning_content="Okay, the"), Answer("", True, True)),
        (message("<|channel|>analysis<|message|>The user"), Answer("", True, True)),
        ({"message": {"content": 7}}, None),
        ({}, None),
    ],
)
def test_an_answer_comes_without_its_thoughts(choice, answer):
    assert read_answer(choice) == answer


def test_hidden_thoughts_show_in_the_count_of_tokens():
    details = {"completion_tokens_details": {"reasoning_tokens": 64}}
    assert shows_thinking({"choices": [message("Yes")], "usage": details})
    assert shows_thinking({"choices": [{**message(""), "finish_reason": "length"}]})
    assert not shows_thinking({"choices": [message("Yes")]})
    assert not shows_thinking({"choices": [message("Okay, the answer is yes.")]})
    assert not shows_thinking({"choices": [{**message("Yes, snow is"), "finish_reason": "length"}]})
    assert not shows_thinking({"choices": []})


def thinker(switch=None, form="tags"):
    """A server whose model thinks unless a request has the field and value of `switch`."""

    def answer(path, body):
        if path != "/v1/chat/completions" or "max_tokens" in body:
            return None
        if switch and body.get(switch[0]) == switch[1]:
            return chat("Good", top={"Good": -0.1, "Bad": -3.0} if body.get("logprobs") else None)
        limit = body["max_completion_tokens"]
        if limit < 400:
            thoughts = "Okay, the user"
            forms = {
                "tags": chat(f"<think>{thoughts}", finish="length"),
                "field": chat(None, finish="length", reasoning=thoughts),
                "hidden": chat("", finish="length"),
                "aloud": chat(thoughts, finish="length"),
            }
            return forms[form]
        return chat("<think>Okay, the user asks.\n</think>\n\nGood")

    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    server.rule = answer
    return server


@pytest.mark.parametrize("form", ["tags", "field", "hidden", "aloud"])
@pytest.mark.parametrize(
    "switch",
    [
        ("chat_template_kwargs", {"enable_thinking": False, "thinking": False}),
        ("reasoning_effort", "none"),
        ("reasoning_effort", "minimal"),
    ],
)
def test_thinking_is_turned_off_by_the_field_that_has_an_effect(switch, form):
    server = thinker(switch, form)
    model = client(server)
    try:
        info = model.describe()
        assert (info.thinks, info.n_top_logprobs) == (False, 2)
        (answer,) = model.complete(ASKED, Decoding(max_tokens=3, n_logprobs=2))
        assert (answer.text, set(answer.text_logprobs)) == ("Good", {"Good", "Bad"})
        body = server.requests[-1][1]
        assert (body[switch[0]], body["max_completion_tokens"]) == (switch[1], 3)
    finally:
        model.close()
        server.close()


def test_what_is_refused_while_a_model_thinks_is_tried_again_without():
    """As OpenAI's models since gpt-5.1: temperature and log-probabilities without thinking only."""
    server = thinker(("reasoning_effort", "none"))
    lenient = server.rule

    def strict(path, body):
        fields = {"temperature", "logprobs"} & body.keys()
        if fields and body.get("reasoning_effort") != "none":
            return error(400, "not supported with this model", min(fields))
        return lenient(path, body)

    server.rule = strict
    model = client(server)
    try:
        assert model.describe().n_top_logprobs == 2
        model.complete(ASKED, Decoding(max_tokens=3))
        assert server.requests[-1][1]["temperature"] == 0.0
    finally:
        model.close()
        server.close()


def test_where_thinking_cannot_be_turned_off_answers_get_room_for_it():
    server = thinker()
    model = client(server)
    try:
        info = model.describe()
        assert (info.thinks, info.n_top_logprobs, info.reads_token_ids) == (True, 0, False)
        assert info.n_context_tokens == 4096 - N_THINKING_TOKENS
        (answer,) = model.complete(ASKED, Decoding(max_tokens=3, n_logprobs=2, stop=("\n",)))
        assert (answer.text, answer.text_logprobs) == ("Good", None)
        body = server.requests[-1][1]
        assert body["max_completion_tokens"] == 3 + N_THINKING_TOKENS
        assert "stop" not in body
        assert body["reasoning_effort"] == "low"
    finally:
        model.close()
        server.close()


@pytest.mark.parametrize("thoughts", ["<think>There are 2 jackets", "Okay, there are 2 jackets"])
def test_thoughts_that_eat_the_limit_are_no_answer(thoughts):
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    server.rule = lambda path, body: chat(thoughts, finish="length") if "messages" in body else None
    model = client(server)
    try:
        (answer,) = model.complete(ASKED, Decoding(max_tokens=3))
        assert (answer.text, answer.finish_reason) == ("", "thinking")
    finally:
        model.close()
        server.close()


def test_a_switch_that_is_refused_is_not_used():
    def strict(path, body):
        if path == "/v1/chat/completions" and "reasoning_effort" in body:
            return error(400, "Unrecognized request argument", "reasoning_effort")
        return None

    server = thinker(("enable_thinking", False))
    lenient = server.rule
    server.rule = lambda path, body: strict(path, body) or lenient(path, body)
    model = client(server)
    try:
        assert not model.describe().thinks
        model.complete(ASKED, Decoding(max_tokens=3))
        assert server.requests[-1][1]["enable_thinking"] is False
    finally:
        model.close()
        server.close()


def test_a_model_that_does_not_think_gets_no_switch(server, model):
    model.complete(ASKED, Decoding(max_tokens=3))
    fields = {name for path, body in server.requests if is_work(path, body) for name in body}
    assert fields.isdisjoint({"reasoning_effort", "chat_template_kwargs", "thinking"})


def test_an_unusable_answer_to_the_question_about_snow_costs_nothing(server, model):
    def broken(path, body):
        is_question = body and path == "/v1/chat/completions" and body.get("max_tokens", 0) > 200
        return Reply(raw=b"oops") if is_question else None

    server.rule = broken
    assert not model.describe().thinks
