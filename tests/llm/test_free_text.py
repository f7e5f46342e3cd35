"""Written answers: free text, and numbers with too many possible values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import AbstentionReason, PromptContext
from backend.domain.questions import Question, QuestionKind
from backend.llm.free_text import clean_text, parse_number
from tests.llm.annotation import TEXT, annotate, shot
from tests.llm.writing_model import WritingModel


def test_a_wide_number_is_parsed_and_kept_within_its_bounds():
    price = Question("price", (TEXT,), QuestionKind.NUMBER, bounds=(0.0, 5000.0))
    model = WritingModel(lambda p: " 1200 euros" if "cheap" in p else " 7000", reads_token_ids=True)
    model.mean_logprob = math.log(0.5)
    good, outside = annotate(model, price, "cheap", "dear")
    assert (good.text, good.confidence) == ("1200", pytest.approx(0.5))
    assert outside.abstention.reason is AbstentionReason.UNREADABLE
    assert model.decodings[0].n_logprobs == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 7", "7"),
        ("about 7.50 or so", "7.5"),
        ("-3", "-3"),
        ("7, so 7", "7"),
        ("7 or 8", None),
        ("none", None),
        ("", None),
        ("1e999", None),
        ("9" * 400, None),
    ],
)
def test_an_answer_is_one_number_or_none(text, number):
    assert parse_number(text, None) == number


@given(st.text())
def test_reading_a_number_never_fails(text):
    number = parse_number(text, (0.0, 10.0))
    assert number is None or 0.0 <= float(number) <= 10.0


def test_free_text_is_cleaned_and_cut_at_a_whole_sentence():
    summary = Question("summary", (TEXT,), QuestionKind.FREE_TEXT)
    model = WritingModel(lambda prompt: ' "It rains. Then it stops. And th')
    model.finish_reason = "length"
    (weak,) = annotate(model, summary, "a long story")
    assert (weak.text, weak.confidence) == ("It rains. Then it stops.", None)
    model.writes = lambda prompt: " \n"
    (nothing,) = annotate(model, summary, "a long story")
    assert nothing.abstention.reason is AbstentionReason.UNREADABLE
    assert clean_text("no end in si", is_cut=True) == "no end in si"


def test_free_text_shots_show_what_was_written():
    summary = Question("summary", (TEXT,), QuestionKind.FREE_TEXT)
    model = WritingModel(lambda prompt: " Sun.")
    prompt_context = PromptContext(
        shots={"summary": {0: (shot("it rains all day", answer="Rain."),)}}
    )
    annotate(model, summary, "a sunny day", prompt_context=prompt_context)
    assert 'Text: "it rains all day"\nSummary: Rain.\n\n' in model.prompts[0]
