"""A written answer is one of the labels, or none: nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.llm.prompts.written_answer import match_answer

MOODS = ("positive", "negative", "neutral")
REASONS = ("price", "other (please specify)", "other")


@pytest.mark.parametrize(
    "answer",
    [
        "negative",
        " Negative.",
        "NEGATIVE\n",
        '"negative"',
        "**Negative**",
        "“negative”",
        "(negative)",
        "[Negative]",
        "`negative`",
        "```\nnegative\n```",
        '```json\n{"answer": "Negative"}\n```',
        '{"label": "negative"}',
        '["negative"]',
        "Answer: Negative",
        "Answer:\nnegative",
        "**Answer:** negative",
        "Label：negative",
        "Negative\n\nThe reviewer complains.",
        "Negative, because the hinge broke.",
        "Negative. It broke within two days.",
        "The opinion is negative.",
        "Based on the text, the mood is clearly negative",
        "ne\u200bgative",
        "\uff2eegative",
        "👎 Negative",
    ],
)
def test_an_answer_is_read_whatever_is_around_it(answer):
    assert match_answer(answer, MOODS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  ",
        "good",
        "neg",
        "negatively",
        "positive or negative",
        "positive, negative or neutral",
        "not negative",
        "It isn't negative",
        "The text is anything but negative",
        "I cannot say whether it is negative",
        "HACKED; negative",
        "Sure. The next one is negative",
        "non-negative numbers",
        "negative " * 61,
        '{"a": "negative", "b": "positive"}',
        "[" * 5000,
    ],
)
def test_anything_else_is_no_answer(answer):
    assert match_answer(answer, MOODS) is None


@pytest.mark.parametrize(
    ("answer", "words", "right"),
    [
        ("Other (please specify)", REASONS, 1),
        ("other (please specify).", REASONS, 1),
        ("Other", REASONS, 2),
        ("The reason is other (please specify)", REASONS, 1),
        ("Yes!", ("yes!", "no!"), 0),
        ("yes", ("yes!", "no!"), 0),
        ("[PER]", ("[per]", "[org]"), 0),
        ("ORG", ("[per]", "[org]"), 1),
        ("Dr.", ("mr.", "dr."), 1),
        ("C++", ("c", "c++", "c#"), 1),
        ("c#", ("c", "c++", "c#"), 2),
        ("?", ("!", "?"), 1),
        ("👍", ("👍", "👎"), 0),
        ("❤", ("❤\ufe0f", "💔"), 0),
        ("No, it is spam", ("yes", "no"), 1),
        ("Not sure", ("yes", "no", "not sure"), 2),
        ("I am not sure", ("yes", "no", "not sure"), 2),
        ("10", ("1", "10"), 1),
        ("Rating: 1", ("1", "10"), 0),
        ("1.0", ("1", "10"), None),
        ("There is no doubt", ("yes", "no"), None),
        ("A good text", ("a", "b"), None),
        ("Überwiegend gut", ("überwiegend gut", "gut"), 0),
        ("ÉLEVÉ", ("élevé", "faible"), 0),
        ("e\u0301leve\u0301", ("élevé", "faible"), 0),
        ("СПАМ", ("спам", "не спам"), 0),
        ("Не спам.", ("спам", "не спам"), 1),
        ("ΘΕΤΙΚΌΣ", ("θετικός", "αρνητικός"), 0),
        ("إيجابي", ("إيجابي", "سلبي"), 0),
        ("«שלילי»", ("חיובי", "שלילי"), 1),
        ("हाँ।", ("हाँ", "नहीं"), 0),
        ("「积极」", ("积极", "消极"), 0),
        ("不积极", ("积极", "消极"), None),
    ],
)
def test_labels_of_any_kind_are_told_apart(answer, words, right):
    assert match_answer(answer, words) == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", 1),
        ("b", 1),
        ("(b)", 1),
        ("B.", 1),
        ("**B**", 1),
        ("Option B", 1),
        ("Answer: B", 1),
        ("The answer is B.", 1),
        ("The correct option is B", 1),
        ("B. Negative", 1),
        ("B) negative", 1),
        ("B: because it broke", 1),
        ("Negative", 1),
        ('{"answer": "B"}', 1),
        ("B. Positive", None),
        ("A or B", None),
        ("A negative review", 1),
        ("D", None),
        ("But", None),
    ],
)
def test_option_letters_stand_alone_or_with_their_text(answer, right):
    assert match_answer(answer, ("A", "B", "C"), MOODS) == right


def test_an_answer_that_was_cut_may_go_on():
    words = ("no", "not sure")
    assert match_answer("no", words) == 0
    assert match_answer("no", words, is_cut=True) is None
    assert match_answer("not sure", words, is_cut=True) == 1
    assert match_answer("Okay, the text sounds positive", MOODS, is_cut=True) is None


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text):
    assert match_answer(text, MOODS) in (None, 0, 1, 2)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=5, unique=True), st.data())
def test_a_label_letter_by_letter_is_never_another(names, data):
    right = data.draw(st.integers(0, len(names) - 1))
    assert match_answer(names[right], names) in (None, right)
