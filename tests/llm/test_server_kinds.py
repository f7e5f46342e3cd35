"""Labels through a real HTTP server of each kind: the right one, or an abstention."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from backend.domain.labels import AbstentionReason
from backend.domain.questions import QuestionKind
from tests.llm.annotation import annotate, question
from tests.llm.client.vllm_client import client
from tests.llm_server import OPENAI_CHAT, ScriptedLlmServer, chat, is_work

TOPICS = ("Sport", "Sports betting", "Weather")


@pytest.fixture
def server() -> Iterator[ScriptedLlmServer]:
    server = ScriptedLlmServer(dialect=OPENAI_CHAT)
    yield server
    server.close()


def says(text, top=None, held=None, finish="stop"):
    """A rule that answers all questions with a text and likely first tokens.

    `held` is the answer where it is held to a schema; without it the schema is ignored.
    """

    def rule(path, body):
        if not is_work(path, body) or "max_tokens" in body:
            return None
        if "response_format" in body:
            return chat(json.dumps({"answer": held}) if held else text)
        return chat(text, top=top if body.get("logprobs") else None, finish=finish)

    return rule


def ask(server, asked, *texts):
    model = client(server)
    try:
        return annotate(model, asked, *(texts or ("one",)))
    finally:
        model.close()


def best(weak, asked):
    assert weak.abstention is None, weak.abstention
    at = weak.probabilities.index(max(weak.probabilities))
    return asked.labels[at].value


def work(server):
    return [body for path, body in server.requests if is_work(path, body)]


@pytest.mark.parametrize(
    ("labels", "answer", "top", "right"),
    [
        (("Yes", "No", "Not sure"), "No", {"No": -0.1, "Yes": -3.5, "Not": -6.0}, "No"),
        (("Yes", "No", "Not sure"), "Not sure", {"No": -0.1, "Yes": -3.5}, "Not sure"),
        (("Normal", "None", "Noise"), "None", {"No": -0.2, "Normal": -2.0}, "None"),
        (TOPICS, "Sports betting", {"Sports": -0.2, "Weather": -2.0}, "Sports betting"),
        (TOPICS, "B", {"B": -0.2, "C": -2.0}, "Sports betting"),
        (("Да", "Дата", "Нет"), "Дата", {"Да": -0.1, "Нет": -3.0}, "Дата"),
        (("好", "不好"), "不好", {"不": -0.1, "好": -3.0}, "不好"),
        (("gut", "gutartig"), "gutartig", {"\ufffd": -0.1, "gut": -3.0}, "gutartig"),
        (("Good", "Bad"), "**Bad**", {"**": -0.1, "Good": -3.0}, "Bad"),
        (("Good", "Bad"), "Answer: Bad", {"Answer": -0.1, "Good": -3.0}, "Bad"),
    ],
)
def test_tokens_that_come_by_their_text_give_the_label_that_was_meant(
    server, labels, answer, top, right
):
    asked = question(QuestionKind.SINGLE_CHOICE, *labels)
    server.rule = says(answer, top)
    (weak,) = ask(server, asked)
    assert best(weak, asked) == right
    assert len(work(server)) == 1


def test_names_of_which_one_begins_another_are_shown_as_letters(server):
    asked = question(QuestionKind.SINGLE_CHOICE, *TOPICS)
    server.rule = says("A", {"A": -0.1, "B": -3.0})
    ask(server, asked)
    shown = json.dumps(work(server)[0]["messages"])
    assert "A: sport" in shown


def test_a_scale_keeps_its_numbers_and_one_is_not_ten(server):
    asked = question(QuestionKind.RATING, *map(str, range(11)))
    server.rule = says("10", {"1": -0.1, "7": -3.0})
    (weak,) = ask(server, asked)
    assert best(weak, asked) == "10"
    assert "A:" not in json.dumps(work(server)[0]["messages"])


def test_what_tokens_leave_open_is_asked_again_held_to_the_labels(server):
    asked = question(QuestionKind.SINGLE_CHOICE, "negative", "neutral", "positive")
    top = {"Ne": -0.1, "Positive": -3.0}
    server.rule = says("Ne", top, held="neutral", finish="length")
    (weak,) = ask(server, asked)
    assert best(weak, asked) == "neutral"
    assert [("response_format" in body) for body in work(server)] == [False, True]
    assert (weak.n_tokens_in, weak.n_tokens_out) == (18, 4)


def test_what_stays_open_is_an_abstention(server):
    asked = question(QuestionKind.SINGLE_CHOICE, "negative", "neutral", "positive")
    server.rule = says("Ne", {"Ne": -0.1, "Positive": -3.0}, finish="length")
    (weak,) = ask(server, asked)
    assert weak.abstention.reason is AbstentionReason.UNREADABLE


def test_each_label_of_a_multiple_choice_is_read_by_text_too(server):
    asked = question(QuestionKind.MULTIPLE_CHOICE, "joy", "fear")
    server.rule = says("Yes", {"Yes": -0.2, " No": -2.0, "yes": -3.0})
    (weak,) = ask(server, asked)
    assert weak.probabilities == pytest.approx((0.87, 0.87), abs=0.02)


def test_an_answer_in_thoughts_alone_says_so(server):
    asked = question(QuestionKind.SINGLE_CHOICE, "good", "bad")
    server.rule = lambda path, body: (
        chat("<think>Okay, good or", finish="length")
        if "messages" in body and "max_tokens" not in body
        else None
    )
    (weak,) = ask(server, asked)
    assert weak.abstention.reason is AbstentionReason.UNREADABLE
    assert "still thinking" in weak.abstention.detail


@pytest.mark.parametrize(
    ("answer", "right"),
    [("Other (please specify)", "Other (please specify)"), ("Price.", "Price"), ("Cost", None)],
)
def test_without_probabilities_the_written_answer_is_matched(server, answer, right):
    asked = question(QuestionKind.SINGLE_CHOICE, "Price", "Other (please specify)")
    server.n_top_logprobs = 0
    server.rule = says(answer)
    (weak,) = ask(server, asked)
    if right is None:
        assert weak.abstention.reason is AbstentionReason.UNREADABLE
    else:
        assert best(weak, asked) == right
