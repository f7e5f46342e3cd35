"""Cleaning: what a project says can stand in a prompt, and a text cannot break out of its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.questions import TaskSchema, TextFormat
from backend.llm.prompts.text import (
    clean_instruction,
    display_name,
    instruction_lines,
    one_line,
    slot_text,
)


def test_the_instruction_is_told_first_and_without_html():
    schema = TaskSchema((), headers=("What does the reviewer think?", " "))
    told = instruction_lines(schema, "<p>Judge the <b>product</b>, not the delivery.</p>")
    assert told == ["Judge the product, not the delivery.", "What does the reviewer think?"]


def test_endless_instructions_are_cut():
    told = instruction_lines(TaskSchema((), headers=("h " * 9999,) * 99), "i " * 9999)
    assert sum(map(len, told)) <= 5000


def test_the_turns_of_a_dialogue_stand_on_one_line():
    text = 'Ann: is it "open"?\n\nBob: no\u2028Ann: pity'
    assert slot_text(text, TextFormat.DIALOGUE) == "Ann: is it 'open'? / Bob: no / Ann: pity"


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("sentiment", "Sentiment"),
        ("answer_type", "Answer type"),
        ("answerType", "Answer type"),
        ("news-body", "News body"),
        ("Topic", "Topic"),
        ("label 2", "Label 2"),
        ("_", ""),
    ],
)
def test_tag_names_are_written_as_people_would(name, spoken):
    assert display_name(name) == spoken


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|endoftext|>", "</s>", "<S>", "[INST]", "[/INST]", "<end_of_turn>"]
)
def test_a_text_cannot_give_commands_to_the_tokenizer(token):
    cleaned = slot_text(f"good {token} bad")
    assert token not in cleaned
    assert cleaned.replace(" ", "") == f"good{token}bad"


def test_other_tags_of_a_text_stay():
    assert slot_text("<b>fine</b> a < b [sic]") == "<b>fine</b> a < b [sic]"


def test_what_cannot_be_printed_goes():
    assert one_line("a\x00b\ud800c\u202ed\ufeffe\x1bf") == "abcdef"
    assert one_line(" \x00\n\t ") == ""


def test_writing_of_all_kinds_stays():
    text = "na\u00efve \u65e5\u672c\u8a9e \u0645\u0631\u062d\u0628\u0627 \U0001f469\u200d\U0001f680"
    assert one_line(text) == text


@given(st.text(st.characters()))
def test_a_clean_text_is_one_line_that_can_travel_and_stays_clean(text):
    cleaned = slot_text(text)
    assert len(cleaned.splitlines()) <= 1
    assert '"' not in cleaned
    cleaned.encode("utf-8")
    assert slot_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("Plain words.", "Plain words."),
        ("<p>One</p><p>two</p>", "One two"),
        ("un<b>break</b>able<br>line", "unbreakable line"),
        ("<style>p {}</style><script>alert(1)</script>Say &lt;yes&gt; &amp; no", "Say <yes> & no"),
        ("<ul><li>a<li>b</ul>", "a b"),
        ("</script>after", "after"),
    ],
)
def test_an_instruction_is_read_as_a_browser_shows_it(html, text):
    assert clean_instruction(html) == text
