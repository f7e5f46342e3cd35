"""Words as a model writes them are found in the text as it is, with exact places."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Span
from backend.llm.text_search import align


def found(text: str, *words: str) -> list[str]:
    """Return the pieces of the text that carry a label, from the left."""
    spans, _ = align(text, [("X", each) for each in words])
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("ESB and ES", "ES", (8, 10)),
        ("Lyon,  \n France", "Lyon, France", (0, 15)),
        ("Lyon,\r\nFrance", "Lyon, France", (0, 13)),
        ('the "Star" film', "'Star'", (4, 10)),
        ("the \u00abStar\u00bb film", '"Star"', (4, 10)),
        ("O\u2019Hara came", "O'Hara", (0, 6)),
        ("O'Hara came", "O\u2019Hara", (0, 6)),
        ("Mont\u2011Blanc peak", "Mont-Blanc", (0, 10)),
        ("from 3\u22125 on", "3-5", (5, 8)),
        ("to the North\xa0Sea", "North Sea", (7, 16)),
        ("in Mu\u0308nchen now", "M\u00fcnchen", (3, 11)),
        ("in M\u00fcnchen now", "Mu\u0308nchen", (3, 10)),
        ("Don\u00adau\u200bschiff", "Donauschiff", (0, 13)),
        ("\ufeffIda spoke", "Ida", (1, 4)),
        ("IDA LOVELACE spoke", "Ida Lovelace", (0, 12)),
        ("the o\ufb03ce", "office", (4, 8)),
        ("\uff21\uff22\uff23 Inc", "ABC Inc", (0, 7)),
        ("Gro\u00dfe Stra\u00dfe 3", "GROSSE STRASSE", (0, 12)),
        ("vitamin B - 12 helps", "vitamin B-12", (0, 14)),
        ("Alzheimer ' s disease", "Alzheimer's disease", (0, 21)),
        ("Jos\u00e9 sings", "Jose", (0, 4)),
        ("Jose\u0301 sings", "Jose", (0, 5)),
        ("saw Ida today", '"Ida."', (4, 7)),
        ("a+b", "a+b", (0, 3)),
        ("unannounced", "ann", (2, 5)),
        ("\u6771\u4eac\u90fd\u306b\u4f4f\u3080", "\u6771\u4eac", (0, 2)),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 Lyon", "Lyon", (9, 13)),
    ],
)
def test_a_piece_is_found_as_a_reader_would_see_it(text, words, place):
    spans, n_lost = align(text, [("X", words)])
    assert ([(span.start, span.end) for span in spans], n_lost) == ([place], 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ida spoke", "Eva"),
        ("Ida spoke", "  "),
        ("Ida spoke", ""),
        ("the long and winding road", "the long ... road"),
        ("the long and winding road", "the long\u2026"),
        ("\ud55c\uad6d", "\ud558"),  # the first two of the three letters of a syllable
        ("\u0915\u093f\u0924\u093e\u092c", "\u0915"),  # without its vowel
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468"),  # one of a family
        ("\U0001f44d\U0001f3fd", "\U0001f44d"),  # without its color
    ],
)
def test_what_does_not_stand_in_the_text_is_lost(text, words):
    assert align(text, [("X", words)]) == ((), 1)


def test_a_place_never_cuts_a_letter_from_its_accent():
    text = "re\u0301sume\u0301, resume"
    assert found(text, "resume") == ["resume"]
    assert found("re\u0301sume\u0301", "resume") == ["re\u0301sume\u0301"]
    assert found("ne\u0301 e", "e") == ["e"]


def test_the_same_words_again_are_their_next_occurrence():
    text = "Rome, Roman, rome and Rome"
    spans, n_lost = align(text, [("X", "Rome")] * 5)
    assert [(span.start, span.end) for span in spans] == [(0, 4), (13, 17), (22, 26)]
    assert n_lost == 0


def test_the_form_as_written_comes_first():
    assert align("ANN, Ann", [("X", "Ann")])[0] == (Span(5, 8, "X"),)
    assert align("unannounced ANN", [("X", "ann")])[0] == (Span(12, 15, "X"),)


def test_two_spellings_of_one_name_take_two_places():
    assert found("Ann saw Ann", "Ann", "ANN") == ["Ann", "Ann"]


def test_pieces_may_overlap_and_labels_do_not_take_each_others_places():
    spans, _ = align("Bank of Rome", [("ORG", "Bank of Rome"), ("LOC", "Rome"), ("ORG", "Rome")])
    assert spans == (Span(0, 12, "ORG"), Span(8, 12, "LOC"), Span(8, 12, "ORG"))


def test_each_lost_name_counts_once():
    mentions = [("X", "Eva"), ("X", "Eva"), ("X", "Ida"), ("Y", "Eva")]
    assert align("Ida", mentions)[1] == 2


def test_long_texts_take_no_longer_than_they_are():
    text = ("Ida met \u00c9mile in K\u00f6ln \u2014 \u00abso\u00bb. " * 6500)[:200_000]
    absent = [("X", f"Nobody {at}") for at in range(100)]
    started = time.process_time()
    spans, n_lost = align(text, [*absent, *[("X", "\u00e9mile")] * 50])
    aaa = align("a" * 200_000, [("X", "b aa"), ("X", "A"), ("X", "aaa" * 9)])
    assert time.process_time() - started < 5.0  # a quarter of a second each on a usual machine
    assert (len(spans), n_lost, aaa[1]) == (50, 100, 1)


@given(st.text(), st.lists(st.tuples(st.sampled_from(["PER", "LOC"]), st.text()), max_size=8))
def test_spans_lie_in_the_text_and_each_mention_has_at_most_one(text, mentions):
    spans, n_lost = align(text, mentions)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    assert len(set(spans)) == len(spans) <= len(mentions)
    assert 0 <= n_lost <= len(set(mentions))


@given(st.text(alphabet="ab \u00e9'-\n", min_size=1), st.data())
def test_every_piece_of_a_text_is_found_in_it(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    words = text[start : data.draw(st.integers(start + 1, len(text)))]
    spans, n_lost = align(text, [("X", words)])
    assert (len(spans), n_lost) == ((1, 0) if words.strip() else (0, 1))
