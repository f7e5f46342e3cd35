"""The list of models is a help, in whatever shape it comes."""

from __future__ import annotations

import pytest

from backend.domain.ports import Decoding
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.client.model_list import ServedModel, read_models, read_props
from tests.llm.client.vllm_client import client
from tests.llm_server import OPENAI_CHAT, Reply, ScriptedLlmServer, error


@pytest.mark.parametrize(
    ("payload", "models"),
    [
        ({"data": [{"id": "m", "max_model_len": 10}]}, [ServedModel("m", 10)]),
        ([{"id": "m"}, {"id": "n"}], [ServedModel("m"), ServedModel("n")]),
        (["m"], [ServedModel("m")]),
        ({"models": [{"name": "m:latest", "model": "m:latest"}]}, [ServedModel("m:latest")]),
        ({"data": [], "models": [{"model": "m"}]}, [ServedModel("m")]),
        ({"data": [{"id": "m", "context_window": 20}]}, [ServedModel("m", 20)]),
        ({"data": [{"id": "m", "context_length": 30}]}, [ServedModel("m", 30)]),
        (
            {"data": [{"id": "m", "max_context_length": 99, "loaded_context_length": 40}]},
            [ServedModel("m", 40)],
        ),
        ({"data": [{"id": "m", "meta": {"n_ctx_train": 50}}]}, [ServedModel("m", None, 50)]),
        (
            {"data": [{"id": "m", "meta": {"n_ctx": 5, "n_ctx_train": 50}}]},
            [ServedModel("m", 5, 50)],
        ),
        ({"data": [{"id": "m", "max_model_len": True}]}, [ServedModel("m")]),
        ({"data": [{"id": "m", "max_model_len": -1}]}, [ServedModel("m")]),
        (
            {"data": [{"id": "text-embedding-3"}, {"id": "bge-rerank"}, {"id": "m"}]},
            [ServedModel("m"), ServedModel("text-embedding-3"), ServedModel("bge-rerank")],
        ),
        ({"data": [7, {"id": 7}, {}, None]}, []),
        ({}, []),
        ("m", []),
    ],
)
def test_models_and_context_lengths_are_read_in_every_shape(payload, models):
    assert read_models(payload) == models


def test_llama_cpp_tells_the_length_of_a_slot():
    assert read_props({"default_generation_settings": {"n_ctx": 512}}) == 512
    assert read_props({"default_generation_settings": None}) is None


LISTS = {
    "missing": error(404, "Resource not found"),
    "forbidden": Reply(403, {}),
    "broken": Reply(500, {}),
    "empty": Reply(body={"data": []}),
    "of wildcards": Reply(body={"data": [{"id": "vendor/*"}]}),
    "of other names": Reply(body={"data": [{"id": "vendor/tiny"}]}),
    "a web page": Reply(raw=b"<html>"),
}


@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS.keys())
def test_a_model_that_is_set_is_used_whatever_the_list_says(server, listed):
    server.rule = lambda path, body: listed if path == "/v1/models" else None
    model = client(server, model="tiny")
    assert model.describe().name == "tiny"
    model.close()


@pytest.mark.parametrize("name", ["missing", "empty", "of wildcards"])
def test_without_a_model_the_missing_list_names_the_setting(server, model, name):
    server.rule = lambda path, body: LISTS[name] if path == "/v1/models" else None
    with pytest.raises((LanguageModelRejected, LanguageModelUnavailable), match="LLM_MODEL"):
        model.describe()


@pytest.mark.parametrize("names", [["embed-a", "tiny"], ["some-bert", "tiny"]])
def test_models_that_answer_no_question_are_passed_over(names):
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    server.rule = lambda path, body: (
        Reply(body={"data": [{"id": name} for name in names]})
        if path == "/v1/models"
        else error(400, "this model does not support chat")
        if body.get("model") != "tiny"
        else None
    )
    model = client(server)
    assert model.describe().name == "tiny"
    model.close()
    server.close()


def test_models_of_which_none_answers_are_named_with_the_setting(server, model):
    def only_embeds(path, body):
        if path == "/v1/models":
            return Reply(body={"data": [{"id": "bge"}, {"id": "gte"}]})
        return error(400, "this model does not support chat")

    server.rule = only_embeds
    with pytest.raises(LanguageModelRejected, match="'bge', 'gte'.*not support.*LLM_MODEL"):
        model.describe()


def test_a_route_that_does_not_know_chat_models_costs_itself_alone(server, model):
    """As OpenAI's plain route: 404, and it blames the model."""
    message = "This is a chat model and not supported in the v1/completions endpoint."
    server.rule = lambda path, body: (
        error(404, message, "model") if path == "/v1/completions" else None
    )
    info = model.describe()
    assert (info.has_plain, info.has_chat) == (False, True)


def test_a_context_length_that_is_set_counts(server):
    server.n_context_tokens = None
    model = client(server, n_context_tokens=1234)
    info = model.describe()
    assert (info.n_context_tokens, info.tells_context) == (1234, True)
    model.close()


def test_a_context_length_that_nobody_tells_is_learned_from_a_rejection():
    server = ScriptedLlmServer(dialect=OPENAI_CHAT, n_context_tokens=64)
    model = client(server)
    assert model.describe().n_context_tokens == 4096
    good, lost = model.complete(["short", "word " * 100], Decoding())
    assert (good.failure, lost.was_refused) == (None, False)
    assert "64 tokens" in lost.failure
    assert model.describe().n_context_tokens == 64
    (refused,) = model.complete(["word " * 100], Decoding())
    assert refused.was_refused
    model.close()
    server.close()
