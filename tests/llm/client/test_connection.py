"""Addresses, keys, and the errors of a server that is down or rejects a request."""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest

from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.client.concurrency import RequestLimits
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
