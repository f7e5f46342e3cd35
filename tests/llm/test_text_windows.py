"""Long texts in overlapping windows: nothing is lost, nothing comes twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Span
from backend.llm.text_windows import Window, halve, merge_spans, split_text


def split(text: str, n_chars: int) -> list[Window]:
    return split_text(text, lambda rest: min(len(rest), n_chars))


def test_a_text_that_fits_is_one_window():
    assert split("Ida met Eva.", 100) == [Window(0, 12)]


@pytest.mark.parametrize("between", ["\n\n", "\n", ". ", "\u3002"])
def test_windows_end_at_the_best_break(between):
    text = between.join(["ab cd ef"] * 30)
    pieces = [text[window.start : window.end] for window in split(text, 60)]
    assert len(pieces) > 3
    assert all(piece.rstrip(".\u3002").endswith("ef") for piece in pieces[:-1])
    assert all(len(piece) <= 60 for piece in pieces)


def test_without_a_sentence_windows_end_at_a_blank():
    text = "abcdef " * 50 + "abcdef"
    assert all(text[: window.end].endswith("abcdef") for window in split(text, 60))


def test_each_window_repeats_the_end_of_the_one_before():
    text = " ".join(f"word{at}" for at in range(200))
    windows = split(text, 200)
    overlaps = [one.end - other.start for one, other in zip(windows, windows[1:], strict=False)]
    assert all(15 <= overlap <= 40 for overlap in overlaps)


@given(st.text(alphabet="ab .\n\u0301", max_size=300), st.integers(1, 50))
def test_windows_cover_all_that_can_be_seen(text, n_chars):
    windows = split(text, n_chars)
    covered = {at for window in windows for at in range(window.start, window.end)}
    assert all(at in covered or char.isspace() for at, char in enumerate(text))
    assert all(0 < window.end - window.start <= n_chars for window in windows if text)


def test_halves_overlap_and_stay_within_their_window():
    text = "xx " * 100
    first, second = halve(text, Window(30, 230))
    assert (first.start, second.end) == (30, 230)
    assert first.start < second.start < first.end < second.end


TEXT = "They went to New York City at last"


def test_the_same_span_from_two_windows_comes_once():
    span = Span(13, 26, "LOC")
    assert merge_spans(TEXT, [(Window(0, 29), [span]), (Window(10, 34), [span])]) == (span,)


@pytest.mark.parametrize("label", ["LOC", "ORG"])
def test_a_span_that_an_edge_cut_loses_to_the_whole_one(label):
    whole = Span(13, 26, "LOC", 0.9)
    ends = (Window(0, 21), [Span(13, 21, label)])
    assert merge_spans(TEXT, [ends, (Window(10, 34), [whole])]) == (whole,)
    begins = (Window(17, 34), [Span(17, 26, label)])
    assert merge_spans(TEXT, [(Window(0, 30), [whole]), begins]) == (whole,)


def test_spans_of_one_window_may_lie_in_each_other():
    spans = [Span(13, 26, "LOC"), Span(17, 21, "LOC")]
    assert merge_spans(TEXT, [(Window(0, 34), spans)]) == tuple(spans)


def test_other_labels_within_an_overlap_are_kept():
    windows = [(Window(0, 29), [Span(13, 26, "LOC")]), (Window(8, 34), [Span(17, 21, "ORG")])]
    assert len(merge_spans(TEXT, windows)) == 2
