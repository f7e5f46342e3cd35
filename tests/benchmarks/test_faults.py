"""The fault benchmark's own counts of losses, duplicates and double payments, and its proxies."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing
from dataclasses import replace

import pytest

from backend.domain.ports import Decoding
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.client.connection import ServerError
from backend.llm.client.server import LLMClient
from backend.store.database import Database
from backend.store.llm_cache import LLMCache
from benchmarks.faults.cases import N_KILLS, all_cases
from benchmarks.faults.checks import FinalState, check
from benchmarks.faults.http_server import HttpServer
from benchmarks.faults.llm_proxy import LLMProxy
from benchmarks.faults.page import faults_page
from benchmarks.faults.platform_proxy import PlatformProxy
from benchmarks.faults.run import summary
from benchmarks.faults.webhook_proxy import WebhookProxy
from benchmarks.faults.wrong_answers import spoiled
from tests.llm_server import ScriptedLlmServer

SUBMITTED = {1: (10, "Positive"), 2: (11, "Negative")}
OUTCOME = {"weak_labels": {"10": 0.5}, "queue": [10, 11]}
STATE = FinalState(
    submitted=SUBMITTED,
    in_label_studio=SUBMITTED,
    in_backend=SUBMITTED,
    predictions=((10, "v1"), (11, "v1")),
    n_paid_twice=0,
    is_completed=True,
    outcome=OUTCOME,
)


def test_a_round_in_which_nothing_went_wrong_is_clean():
    result = check(STATE, OUTCOME)
    assert result.is_clean
    assert (result.n_lost, result.n_duplicated, result.n_paid_twice) == (0, 0, 0)


@pytest.mark.parametrize(
    "labels",
    [
        {1: (10, "Positive")},  # one is gone
        {1: (10, "Positive"), 2: (11, "Positive")},  # one is altered
        {1: (10, "Positive"), 2: (12, "Negative")},  # one stands at another task
        {**SUBMITTED, 3: (12, "Positive")},  # one that was deleted is still there
    ],
)
def test_a_label_that_is_not_as_last_submitted_is_lost(labels):
    assert check(replace(STATE, in_backend=labels), OUTCOME).n_lost == 1
    assert check(replace(STATE, in_label_studio=labels), OUTCOME).n_lost == 1


def test_two_predictions_of_one_version_are_duplicates_and_of_two_versions_are_not():
    rows = (*STATE.predictions, (10, "v1"), (10, "v2"))
    result = check(replace(STATE, predictions=rows), OUTCOME)
    assert result.n_duplicated == 1
    assert not result.is_clean


def test_a_region_that_a_prediction_holds_twice_is_a_duplicate():
    assert check(replace(STATE, n_doubled_regions=1), OUTCOME).n_duplicated == 1


def test_another_outcome_is_reported_with_the_part_that_differs():
    result = check(replace(STATE, outcome={**OUTCOME, "weak_labels": {"10": 0.50001}}), OUTCOME)
    assert result.is_equal is False
    assert result.differs_in == ("weak_labels",)
    assert not result.is_clean


def test_a_case_that_cannot_be_compared_is_neither_equal_nor_different():
    assert check(replace(STATE, outcome=None), OUTCOME).is_equal is None


def test_a_round_that_did_not_end_is_not_clean():
    assert not check(replace(STATE, is_completed=False), OUTCOME).is_clean


def row(name, **changes):
    good = {
        "question": "choice",
        "case": name,
        "done": "nothing",
        "notes": [],
        "seconds": 1.0,
        "is_completed": True,
        "n_lost": 0,
        "n_duplicated": 0,
        "n_paid_twice": 0,
        "equals_undisturbed": True,
        "differs_in": [],
    }
    return good | changes


def page_of(*rows):
    report = {
        "benchmark": "faults",
        "commit": "abc",
        "parameters": {"llm": "scripted", "n_texts": 80, "seed": 0},
        "machine": {"cores": 2, "processor": "x"},
        "notes": {"undisturbed_s": {"choice": 30.0, "spans": 60.0}},
        "results": summary(list(rows)),
    }
    return faults_page(report, "faults.json")


def test_the_page_shows_every_case_and_every_loss():
    bad = row("bad", n_lost=2, equals_undisturbed=False, differs_in=["weak_labels"])
    page = page_of(row("good"), bad)
    assert "| `bad` | nothing | yes | **2** | 0 | 0 | **no** | 1.0 |" in page
    assert "| `good` | nothing | yes | 0 | 0 | 0 | equal | 1.0 |" in page
    assert "| human labels lost or altered | 2 |" in page
    assert "differs in weak_labels" in page
    assert "The LLM server is scripted" in page
    assert "cases were not run" in page
    assert "`worker-20`" in page
    assert "No case was played with `--question` `spans`" in page


def test_the_page_counts_each_kind_of_project_by_itself():
    cases = [row("web-1"), row("web-2", n_lost=1), row("web-1", question="spans", n_lost=4)]
    page = page_of(*cases)
    assert "| human labels lost or altered | 1 | 4 |" in page
    choice, spans = page.index("## A single choice"), page.index("## Entities")
    assert choice < page.index("| `web-2` |") < spans
    assert spans < page.index("took 60.0 s")
    assert "No case was played" not in page


def test_kills_are_spread_over_the_round_and_are_the_same_for_a_seed():
    cases = all_cases(40.0, 0)
    kills = [case.done for case in cases if case.name.startswith("worker-")]
    assert len(kills) == len(set(kills)) == N_KILLS
    assert kills == [c.done for c in all_cases(40.0, 0) if c.name.startswith("worker-")]
    assert kills != [c.done for c in all_cases(40.0, 1) if c.name.startswith("worker-")]
    assert len({case.name for case in cases}) == len(cases)


@pytest.fixture
def counting(tmp_path):
    with (
        closing(ScriptedLlmServer()) as upstream,
        closing(LLMProxy(port=0, recording=tmp_path / "answers.json")) as proxy,
    ):
        proxy.upstream = upstream.url
        yield proxy


def test_a_prompt_counts_as_paid_twice_only_when_its_answer_was_stored(tmp_path, counting):
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.migrate()
    counting.reset(tmp_path / "freeal.db")
    server = LLMClient(counting.base_url)
    tokens = server.tokenize(" yes no")
    decoding = Decoding(token_ids=tokens[:2], model=server.describe().name)
    with closing(database), closing(server):
        server.complete(["a film", "a book"], decoding)  # asked, and lost before it is stored
        cached = CachedLanguageModel(server, LLMCache(database))
        cached.complete(["a film", "a book"], decoding)
        cached.complete(["a film"], decoding)
        assert counting.n_paid_twice == 0
        server.complete(["a film"], decoding)
        assert counting.n_paid_twice == 1


def test_a_prompt_is_answered_alike_whatever_stands_beside_it(counting):
    def logprobs(prompts):
        body = {"model": "tiny", "prompt": prompts, "max_tokens": 1, "logprobs": 3}
        request = urllib.request.Request(
            f"{counting.base_url}/completions", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request) as reply:
            choices = json.loads(reply.read())["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(prompts)))
        return [choice["logprobs"] for choice in choices]

    first = logprobs(["one", "three"])
    assert logprobs(["two!", "three", "one"])[1:] == [first[1], first[0]]


class Web:
    """The web process behind the proxy, in memory."""

    def __init__(self, monkeypatch, proxy):
        self.seen = []
        monkeypatch.setattr(proxy, "_forward", self.forward)

    def forward(self, method, path, body):
        self.seen.append(json.loads(body)["id"])
        reply = type("Reply", (), {"status_code": 201, "content": b"{}"})()
        reply.raise_for_status = lambda: None
        return reply


def test_the_webhook_proxy_doubles_loses_and_reverses_webhooks(monkeypatch):
    proxy = WebhookProxy(port=0, web_url="")
    with closing(proxy):
        web = Web(monkeypatch, proxy)

        def come(number, action="ANNOTATION_CREATED"):
            body = json.dumps({"id": number, "action": action}).encode()
            assert proxy.respond("POST", "/webhook", body)[0] == 201

        proxy.inject("double")
        come(1)
        proxy.inject("lose", "ANNOTATION_UPDATED")
        come(2)
        come(3, "ANNOTATION_UPDATED")
        proxy.inject("hold")
        come(4)
        come(5)
        assert web.seen == [1, 1, 2]
        proxy.release()
        come(6)
    assert web.seen == [1, 1, 2, 5, 4, 6]


TASKS = {"tasks": [{"id": 5, "project": 7, "data": {"text": "a"}}], "total": 1}
PROJECT = {"id": 7, "label_config": "<View/>", "created_at": "2026-01-01"}
COMPLETION = {"choices": [{"index": 0, "text": "a"}], "usage": {}}


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("empty", TASKS, {}),
        ("foreign", TASKS, {**TASKS, "tasks": [{**TASKS["tasks"][0], "project": 8}]}),
        ("foreign", PROJECT, {**PROJECT, "id": 8}),
        ("foreign", COMPLETION, {**COMPLETION, "choices": 2 * COMPLETION["choices"]}),
    ],
)
def test_a_wrong_answer_is_empty_or_about_others(kind, content, expected):
    assert json.loads(spoiled(kind, json.dumps(content).encode())) == expected


@pytest.mark.parametrize("kind", ["truncated", "html"])
def test_a_wrong_answer_may_be_no_json(kind):
    with pytest.raises(ValueError, match="."):
        json.loads(spoiled(kind, json.dumps(TASKS).encode()))


def test_the_platform_proxy_passes_methods_on_and_spoils_what_comes_back():
    seen = []

    def label_studio(method, path, body):
        seen.append((method, path, json.loads(body or b"null")))
        return 200, json.dumps(TASKS).encode()

    with closing(HttpServer(0, label_studio)) as upstream, closing(PlatformProxy(port=0)) as proxy:
        proxy.upstream, proxy.token = upstream.url, "t"

        def ask(method, body=None):
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(f"{proxy.url}/api/tasks?page=2", data, method=method)
            with urllib.request.urlopen(request) as reply:
                return reply.headers["Content-Type"], reply.read()

        assert ask("PATCH", {"a": 1}) == ("application/json", json.dumps(TASKS).encode())
        proxy.inject("html")
        assert ask("GET")[0] == "text/html"
        assert proxy.n_spoiled == 1
        proxy.inject()
        assert json.loads(ask("DELETE")[1]) == TASKS
    assert [each[0] for each in seen] == ["PATCH", "GET", "DELETE"]
    assert seen[0] == ("PATCH", "/api/tasks?page=2", {"a": 1})


def test_the_llm_proxy_answers_wrongly_while_it_is_told_to(counting):
    server = LLMClient(counting.base_url)
    with closing(server):
        decoding = Decoding(token_ids=server.tokenize(" yes no")[:2], model="tiny")
        counting.wrong = "foreign"
        with pytest.raises(ServerError, match="answered 1 prompts with 2 choices"):
            server.complete(["a film"], decoding)
        assert counting.n_spoiled > 0
        counting.wrong = None
        assert len(server.complete(["a film"], decoding)) == 1
