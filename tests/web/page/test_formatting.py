"""Numbers, names and times as people read them."""

from __future__ import annotations

import pytest

from backend.web.page.formatting import (
    annotator,
    count,
    duration,
    interval,
    moment,
    share,
    time_left,
)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("llm:qwen2.5-coder-1.5b", "LLM qwen2.5-coder-1.5b"),
        ("llm", "LLM"),
        ("similarity:all-MiniLM-L6-v2", "similarity all-MiniLM-L6-v2"),
        ("small-model:default", "student"),
        ("human", "human"),
    ],
)
def test_annotators_go_by_the_words_of_the_field(stored, shown):
    assert annotator(stored) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (7, "7 s"),
        (61, "1 min 1 s"),
        (3_700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "time left unknown"), (0, "nothing left"), (3_700, "1 h 1 min left")],
)
def test_the_time_left_is_one_phrase(seconds, shown):
    assert time_left(seconds) == shown


def test_numbers_and_intervals_are_short_and_nothing_is_a_dash():
    assert count(12_345) == "12,345"
    assert share(0.1234) == "12.3%"
    assert interval({"value": 0.8, "low": 0.7, "high": 0.9}) == "80.0% (70.0% to 90.0%)"
    assert {count(None), share(None), interval(None), moment(None)} == {"–"}


def test_a_time_keeps_its_zone():
    assert moment("2026-03-04T05:06:07+00:00") == "2026-03-04 05:06 UTC"
