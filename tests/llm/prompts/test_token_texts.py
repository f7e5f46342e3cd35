"""Tokens that come by their text: the right label, or an abstention."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.domain.labels import Abstention
from backend.domain.ports import Completion
from backend.llm.prompts.token_texts import TokenReader, begin_alike
from backend.llm.prompts.written_answer import bare


def completion(text: str, finish_reason: str = "stop", **tokens: float) -> Completion:
    logprobs = {token: math.log(p) for token, p in tokens.items()}
    return Completion(text=text, finish_reason=finish_reason, text_logprobs=logprobs)


def read(words, names=(), **answer):
    tokens = answer.pop("tokens")
    text, reason = answer.pop("text", ""), answer.pop("finish_reason", "stop")
    return TokenReader(words, names).read(completion(text, reason, **tokens))


def test_a_whole_word_is_its_label_whatever_its_case_and_blanks():
    tokens = {"Ham": 0.5, " ham": 0.2, "▁Ham": 0.05, "\u0120spam": 0.2, "The": 0.05}
    found = read(("spam", "ham"), text="Ham", tokens=tokens)
    assert found["probabilities"] == pytest.approx((0.2 / 0.95, 0.75 / 0.95))
    assert found["label_mass"] == pytest.approx(0.95)


def test_a_token_that_begins_two_labels_is_settled_by_the_written_answer():
    tokens = {"Un": 0.8, "Yes": 0.2}
    words = ("unclear", "unlikely", "yes")
    found = read(words, text="Unlikely", tokens=tokens)
    assert found["probabilities"].index(max(found["probabilities"])) == 1
    assert found["probabilities"][1] > 0.7


def test_it_is_settled_by_a_longer_token_of_the_other_label_too():
    tokens = {"Un": 0.8, "Unclear": 0.1, "Yes": 0.1}
    found = read(("unclear", "unlikely", "yes"), text="Un", tokens=tokens)
    assert found["probabilities"] == pytest.approx((0.1, 0.8, 0.1))


def test_what_stays_open_is_no_answer():
    found = read(("unclear", "unlikely", "yes"), text="Un", tokens={"Un": 0.8, "Yes": 0.2})
    assert isinstance(found, Abstention)


@pytest.mark.parametrize("first", ["**", "\ufffd", "\\xd0", "<0xE2>", "(", "\n", "Answer", "The"])
def test_a_first_token_that_tells_nothing_is_no_evidence_for_the_others(first):
    tokens = {first: 0.9, "Good": 0.06, "Bad": 0.01}
    assert isinstance(read(("good", "bad"), text=first, tokens=tokens), Abstention)
    written = read(("good", "bad"), text=f"{first} Bad", tokens=tokens)
    if not isinstance(written, Abstention):
        assert written["probabilities"] == pytest.approx((0.2, 0.8))


def test_one_does_not_stand_for_ten():
    words = tuple(map(str, range(11)))
    tokens = {"1": 0.6, "7": 0.3, "8": 0.1}
    assert read(words, text="10", tokens=tokens)["probabilities"][10] == pytest.approx(0.6, abs=0.2)
    assert read(words, text="1", tokens=tokens)["probabilities"][1] == pytest.approx(0.6, abs=0.2)
    cut = read(words, text="1", finish_reason="length", tokens=tokens)
    assert isinstance(cut, Abstention)


def test_letters_and_the_names_that_they_stand_for_count_for_the_same_label():
    tokens = {"B": 0.5, "(B": 0.1, "No": 0.3, "A": 0.1}
    found = read(("A", "B", "C"), ("yes", "no", "not sure"), text="B", tokens=tokens)
    assert found["probabilities"][1] == pytest.approx(0.9, abs=0.05)


def test_an_unreported_label_is_less_likely_than_every_reported_token():
    found = read(("good", "bad"), text="Good", tokens={"Good": 0.9, "The": 0.1})
    assert 0.0 < found["probabilities"][1] < 0.1


def test_words_of_which_one_begins_another_are_noticed():
    assert begin_alike(("No", "yes", "NOT sure"))
    assert begin_alike(("1", "2", "10"))
    assert begin_alike(("да", "Дата"))
    assert not begin_alike(("positive", "negative", "neutral"))


ALPHABETS = (
    "abnoNt",
    "áéêßüñ",
    "абвнетда",
    "αβγδς",
    "ابتثني",
    "אבגד",
    "अआकनहीं",
    "是否不積极",
    "👍👎❤",
)


@st.composite
def servers(draw):
    """A server's words, the label that it means, its answer, and its reported tokens."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    word = st.text(alphabet, min_size=1, max_size=6)
    name = st.lists(word, min_size=1, max_size=2).map(" ".join)
    names = draw(st.lists(name, min_size=2, max_size=5, unique_by=str.casefold))
    right = draw(st.integers(0, len(names) - 1))
    sizes = draw(st.lists(st.integers(1, 4), min_size=8, max_size=8))
    style = draw(st.sampled_from([str, str.upper, str.lower, str.capitalize, str.title]))
    lead = draw(st.sampled_from(["", " ", "\u0120", "▁", "\n"]))
    first = {name: style(name)[: sizes[at]] for at, name in enumerate(names)}  # one cut per form
    sure = draw(st.floats(0.9, 0.999))
    rest = [name for at, name in enumerate(names) if at != right]
    tokens = {lead + first[names[right]]: sure}
    for other in draw(st.lists(st.sampled_from(rest), unique=True, max_size=3)):
        text = lead + first[other]
        tokens[text] = tokens.get(text, 0.0) + (1 - sure) / (2 * len(rest))
    answer = lead.replace("\u0120", " ").replace("▁", " ") + style(names[right])
    return names, right, answer, tokens, lead + first[names[right]]


@given(servers(), st.booleans())
@settings(max_examples=500)
def test_no_wrong_label_is_ever_likely(server, is_cut):
    """Words are cut anywhere, in any script; at least 0.9 lies on the form of one label."""
    names, right, answer, tokens, first = server
    text = first.replace("\u0120", " ").replace("▁", " ") if is_cut else answer
    found = read(names, text=text, finish_reason="length" if is_cut else "stop", tokens=tokens)
    if not isinstance(found, Abstention):
        wrong = [p for at, p in enumerate(found["probabilities"]) if at != right]
        assert max(wrong) <= 0.5, (names, right, answer, tokens)


@given(servers())
@example((["ß", "ßß", "ßßß"], 1, "ßß", {"ß": 0.9375, "ßß": 0.015625}, "ß"))
def test_a_whole_answer_is_read(server):
    names, right, answer, tokens, _ = server
    found = read(names, text=answer, tokens=tokens)
    if len(set(map(bare, names))) == len(names):
        assert max(found["probabilities"]) == found["probabilities"][right]
