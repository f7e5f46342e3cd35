"""Addresses, keys, and the errors of a server that is down or rejects a request."""

from __future__ import annotations

import logging
import socket
import threading
import time
from email.utils import formatdate

import pytest

from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.client.concurrency import RequestLimits
from backend.llm.client.connection import ToldError, read_error, split_address
from backend.llm.client.server import LLMClient
from tests.llm.client.vllm_client import ASKED, PROMPTS, assert_all_answered, client
from tests.llm_server import Reply, error


def test_the_wrong_address_says_how_to_write_it(server):
    with pytest.raises(LanguageModelRejected, match="404.*LLM_BASE_URL.*/v1"):
        LLMClient(server.url + "/wrong").describe()


def test_no_url_at_all_is_refused():
    with pytest.raises(LanguageModelRejected, match="LLM_BASE_URL"):
        LLMClient("http://").describe()


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
        LLMClient("http://me:s3cret@127.0.0.1:9/v1").describe()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_a_redirect_is_not_followed(server, model):
    server.rule = lambda path, body: Reply(302, {}, headers={"Location": "http://127.0.0.1:9/"})
    with pytest.raises(LanguageModelRejected, match="302.*LLM_BASE_URL"):
        model.describe()


def test_a_server_that_is_down_is_unavailable_soon_and_says_what_to_do():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        model = LLMClient(
            f"http://127.0.0.1:{unused.getsockname()[1]}/v1",
            limits=RequestLimits(first_backoff_s=0.01, batch_size=1),
        )
        started_at = time.monotonic()
        with pytest.raises(LanguageModelUnavailable, match="start it, or set LLM_BASE_URL"):
            model.complete(PROMPTS, ASKED)
    assert time.monotonic() - started_at < 2


def test_a_busy_server_is_asked_again_no_sooner_than_it_said(server, model):
    model.describe()
    busy = error(429, "slow down")
    busy.headers["Retry-After"] = "1"
    server.script.append(busy)
    started_at = time.monotonic()
    assert_all_answered(model.complete(PROMPTS[:2], ASKED), PROMPTS[:2])
    assert time.monotonic() - started_at >= 1.0


def test_a_server_that_sends_drop_by_drop_does_not_hold_its_thread(server, model):
    model.describe()
    server.rule = lambda path, body: Reply(raw=b" " * 1000, drip_s=0.05)
    model.complete(PROMPTS, ASKED, deadline_s=0.2)
    until = time.monotonic() + 2
    while time.monotonic() < until and any(t.name.startswith("llm") for t in threading.enumerate()):
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name.startswith("llm")]


def test_a_query_in_the_address_goes_with_every_request(server):
    """As Azure wants its version; its key has a header of its own."""
    model = LLMClient(f"{server.url}?api-version=2024-10-21", "tiny", api_key="k")
    server.rule = lambda path, body: server.honest(path.partition("?")[0], body)
    assert model.describe().name == "tiny"
    assert all(path.endswith("?api-version=2024-10-21") for path, _ in server.requests)
    assert all(headers["api-key"] == "k" for headers in server.headers)
    assert all(headers["Authorization"] == "Bearer k" for headers in server.headers)
    model.close()


@pytest.mark.parametrize(
    ("address", "base", "query"),
    [
        ("http://h/v1", "http://h/v1", ""),
        (" http://h/v1/ ", "http://h/v1", ""),
        ("https://h/openai/deployments/d?api-version=1", "https://h/openai/deployments/d", 1),
        (
            "https://h/openai/deployments/d/chat/completions?api-version=1",
            "https://h/openai/deployments/d",
            1,
        ),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions", ""),
        ("http://h/v1?", "http://h/v1", ""),
    ],
)
def test_addresses_are_split_into_base_and_query(address, base, query):
    assert split_address(address) == (base, query and f"?api-version={query}")


def test_a_deployment_in_the_address_is_the_model(server):
    def azure(path, body):
        path = path.partition("?")[0].replace("/openai/deployments/tiny", "/v1")
        return Reply(404, {}) if path == "/v1/models" else server.honest(path, body)

    server.rule = azure
    root = server.url.removesuffix("/v1")
    model = LLMClient(f"{root}/openai/deployments/tiny?api-version=1", api_key="k")
    assert model.describe().name == "tiny"
    model.close()


@pytest.mark.parametrize(
    ("path", "better"),
    [("", "/v1"), ("/v1/v1", "/v1"), ("/v1/chat/completions", "/v1"), ("/v1/models", "/v1")],
)
def test_a_usual_mistake_in_the_address_is_named_with_the_right_one(server, path, better):
    root = server.url.removesuffix("/v1")
    with pytest.raises(LanguageModelRejected, match=f"LLM_BASE_URL.*perhaps {root}{better}(;|$)"):
        LLMClient(root + path).describe()


def test_a_date_says_when_to_ask_again(server, model):
    model.describe()
    busy = error(429, "slow down")
    busy.headers["Retry-After"] = formatdate(time.time() + 2, usegmt=True)
    server.script.append(busy)
    started_at = time.monotonic()
    assert_all_answered(model.complete(PROMPTS[:1], ASKED), PROMPTS[:1])
    assert 0.9 < time.monotonic() - started_at < 4.0


@pytest.mark.parametrize("when", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1", "0.5"])
def test_a_strange_time_to_ask_again_does_no_harm(server, model, when):
    model.describe()
    busy = error(503, "busy")
    busy.headers["Retry-After"] = when
    server.script.append(busy)
    assert_all_answered(model.complete(PROMPTS[:1], ASKED), PROMPTS[:1])


def test_an_account_that_is_empty_is_no_busy_server(server, model):
    broke = Reply(429, {"error": {"message": "You exceeded it", "code": "insufficient_quota"}})
    server.rule = lambda path, body: broke
    with pytest.raises(LanguageModelRejected, match="LLM_API_KEY"):
        model.describe()


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"error": {"message": "no", "param": "x", "code": "c"}}, ToldError("no", "x", "c")),
        ({"message": "no"}, ToldError("no")),
        ({"error": "no"}, ToldError("no")),
        ([{"error": {"message": "no"}}], ToldError("no")),
        ({"detail": "no"}, ToldError("no")),
        (
            {"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]},
            ToldError("not permitted (body.seed)", "seed"),
        ),
        (
            {"error": {"message": "maximum context length is 4,097 tokens"}},
            ToldError("maximum context length is 4,097 tokens", n_context_tokens=4097),
        ),
        (
            {"error": {"message": "exceeds the available context size", "n_ctx": 512}},
            ToldError("exceeds the available context size", n_context_tokens=512),
        ),
        (None, ToldError()),
        ({"error": [1]}, ToldError()),
    ],
)
def test_errors_are_read_in_the_usual_shapes(payload, error):
    assert read_error(payload) == error


@pytest.mark.parametrize(
    ("error", "names_model"),
    [
        (ToldError("The model `x` does not exist"), True),
        (ToldError("model 'x' not found"), True),
        (ToldError("gone", code="DeploymentNotFound"), True),
        (ToldError("Not Found"), False),
        (ToldError("not supported in the v1/completions endpoint", param="model"), False),
    ],
)
def test_an_unknown_model_is_told_from_an_unknown_route(error, names_model):
    assert error.names_model is names_model
