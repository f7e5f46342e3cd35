"""Written answers: how they are asked for, and what models put around them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import AbstentionReason, PromptContext
from backend.domain.ports import Conversation
from backend.domain.questions import Question, QuestionKind, TaskSchema, TextField
from backend.llm.values import clean_text, writing_layout
from tests.llm import annotation
from tests.llm.annotation import TEXT
from tests.llm.writing_model import WritingModel

SUMMARY = Question("summary", (TEXT,), QuestionKind.FREE_TEXT)


@pytest.mark.parametrize(
    "written",
    [
        "It rains.",
        '"It rains."',
        "\u201cIt rains.\u201d",
        "\u00ab It rains. \u00bb",
        "'It rains.'",
        "Summary: It rains.",
        "**Summary:** It rains.",
        "The summary: It rains.",
        "**It rains.**",
        "It **rains**.",
        "Sure! Here is a summary: It rains.",
        'Certainly, here is the summary you asked for: "It rains."',
        "Here's a brief summary of the text:\n\nIt rains.\n\nLet me know if you need more!",
        "Here is the summary:\nSummary: It rains.",
        "```\nIt rains.\n```",
        "```text\nIt rains.\n```\n",
        "Voici le r\u00e9sum\u00e9 : It rains.",
        "Hier ist die Zusammenfassung: It rains.",
    ],
)
def test_what_models_put_around_an_answer_is_left_out(written):
    assert clean_text(written, "Summary") == "It rains."


@pytest.mark.parametrize(
    "written",
    [
        "Here is the thing: people lie.",
        "Of course it rains.",
        "Note: call back.",
        "He said: no.",
        "It rains. Here is the summary: wet.",
        '"Wet" and "cold"',
        "It's wet",
        "'Tis wet",
        'The film "Rain"',
        "2**3**4",
        "Let me know when it rains.",
        "Summary judgment was denied.",
    ],
)
def test_what_belongs_to_an_answer_stays(written):
    assert clean_text(written, "Summary") == written


def test_an_answer_that_was_cut_ends_with_a_whole_sentence():
    assert (
        clean_text(' "It rains. Then it stops. And th', is_cut=True) == "It rains. Then it stops."
    )
    assert clean_text("no end in si", is_cut=True) == "no end in si"


@given(st.text())
def test_cleaning_gives_one_line_and_never_fails(text):
    assert "\n" not in clean_text(text, "Summary")


def test_an_answer_becomes_a_text():
    model = WritingModel(lambda prompt: " Summary: It rains.")
    (weak,) = annotation.annotate(model, SUMMARY, "a long story")
    assert (weak.text, weak.confidence) == ("It rains.", None)
    model.writes = lambda prompt: " \n"
    (nothing,) = annotation.annotate(model, SUMMARY, "a long story")
    assert nothing.abstention.reason is AbstentionReason.UNREADABLE


def test_a_wide_number_is_parsed_and_kept_within_its_bounds():
    price = Question("price", (TEXT,), QuestionKind.NUMBER, bounds=(0.0, 5000.0))
    model = WritingModel(
        lambda p: " \u20ac1,200" if "cheap" in p else " 7000", reads_token_ids=True
    )
    model.mean_logprob = math.log(0.5)
    good, outside = annotation.annotate(model, price, "cheap", "dear")
    assert (good.text, good.confidence) == ("1200", pytest.approx(0.5))
    assert outside.abstention.reason is AbstentionReason.UNREADABLE
    assert model.decodings[0].n_logprobs == 1


def test_a_number_that_may_go_on_is_none():
    price = Question("price", (TEXT,), QuestionKind.NUMBER)
    model = WritingModel(lambda prompt: "The price is 12")
    model.finish_reason = "length"
    (weak,) = annotation.annotate(model, price, "cheap")
    assert weak.abstention.reason is AbstentionReason.UNREADABLE


@pytest.mark.parametrize(
    ("bounds", "line"),
    [
        (None, "a number"),
        ((0.0, 2500.0), "a number from 0 to 2500"),
        ((0.0, math.inf), "a number from 0"),
        ((-math.inf, 9.5), "a number to 9.5"),
    ],
)
def test_a_number_is_asked_within_its_bounds(bounds, line):
    question = Question("price", (TextField("text", "t"),), QuestionKind.NUMBER, bounds=bounds)
    schema = TaskSchema((question,))
    assert writing_layout(schema, question, "", is_chat=False).opening == f"Price: {line}\n"
    chat = writing_layout(schema, question, "", is_chat=True).fill({"text": "dear"})
    assert isinstance(chat, Conversation)
    assert f"Answer with {line} in digits alone" in chat.system
    assert chat.turns == ('Text: "dear"\nPrice:',)


def test_a_chat_is_told_to_write_the_answer_alone():
    layout = writing_layout(TaskSchema((SUMMARY,)), SUMMARY, "Be brief.", is_chat=True)
    assert layout.fill({"text": "x"}).system == (
        "Be brief.\nWrite the summary of the text.\n"
        "Answer with the summary alone: no other words, no introduction."
    )


def test_free_text_shots_show_what_was_written():
    summary = Question("summary", (TEXT,), QuestionKind.FREE_TEXT)
    model = WritingModel(lambda prompt: " Sun.")
    prompt_context = PromptContext(
        shots={"summary": {0: (annotation.shot("it rains all day", answer="Rain."),)}}
    )
    annotation.annotate(model, summary, "a sunny day", prompt_context=prompt_context)
    assert 'Text: "it rains all day"\nSummary: Rain.\n\n' in model.prompts[0]
