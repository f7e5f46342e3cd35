"""Texts and tokens of one model, which many threads share and nothing logs."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import pytest

from backend.domain.ports import Decoding
from backend.errors import LanguageModelUnavailable
from tests.llm.client.vllm_client import ASKED, PROMPTS, assert_all_answered, client
from tests.llm_server import VLLM, Reply, error


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


def test_a_text_that_cannot_travel_does_not_crash(server, model):
    text = "lone \ud800 surrogate and \0 null"
    assert model.truncate(text, 100) == text
    assert len(model.tokenize(text)) > 3
    assert_all_answered(model.complete([text], ASKED), ["lone ? surrogate and   null"])


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
