"""Dates and times in answers, one reading or none."""

from __future__ import annotations

import pytest

from backend.llm.date_answers import parse_date

DATE, BOTH, TIME = "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%H:%M"


@pytest.mark.parametrize(
    ("answer", "date_format", "read"),
    [
        ("2021-03-04", DATE, "2021-03-04"),
        ("The date is 2021-3-4.", DATE, "2021-03-04"),
        ("March 4, 2021", DATE, "2021-03-04"),
        ("4th of March 2021", DATE, "2021-03-04"),
        ("4. Sept. 2021", DATE, "2021-09-04"),
        ("2021-03-04 15:30", BOTH, "2021-03-04T15:30"),
        ("March 4, 2021 at 3:30 pm", BOTH, "2021-03-04T15:30"),
        ("2021-03-04", BOTH, "2021-03-04T00:00"),
        ("04.03.2021", "%d.%m.%Y", "04.03.2021"),
        ("at 9:05", TIME, "09:05"),
        ("12:10 a.m.", TIME, "00:10"),
        ("3/4/2021", DATE, None),
        ("2021-02-30", DATE, None),
        ("2021-03-04 or 2021-03-05", DATE, None),
        ("I do not know", DATE, None),
        ("", TIME, None),
    ],
)
def test_an_answer_is_one_date_or_none(answer, date_format, read):
    assert parse_date(answer, date_format) == read
