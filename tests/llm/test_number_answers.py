"""Numbers in answers: every notation rightly, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.llm.number_answers import parse_number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (" 7", "7"),
        ("about 7.50 or so", "7.5"),
        ("The price is 30 euros.", "30"),
        ("**8**", "8"),
        ("8, I would say 8", "8"),
        ("8\n\nThere are 2 reasons for it.", "8"),
        ("007", "7"),
        (".5", "0.5"),
        ("1.5e3", "1500"),
        # thousands
        ("2,480", "2480"),
        ("$31,000", "31000"),
        ("4,200,000", "4200000"),
        ("4.200.000", "4200000"),
        ("2.480,00", "2480"),
        ("2,480.50", "2480.5"),
        ("31 000", "31000"),
        ("31\u00a0000,5", "31000.5"),
        ("31\u202f000", "31000"),
        ("2'480", "2480"),
        ("2\u2019480.5", "2480.5"),
        ("2_480", "2480"),
        ("23,45,678", "2345678"),
        # decimals
        ("4,5", "4.5"),
        ("4,25", "4.25"),
        ("0.125", "0.125"),
        ("0,125", "0.125"),
        ("2480.125", "2480.125"),
        # signs
        ("-3", "-3"),
        ("\u22123", "-3"),
        ("\u20133", "-3"),
        ("\uff0d3", "-3"),
        ("minus 3", "-3"),
        ("-2,480", "-2480"),
        ("-$3", "-3"),
        ("+3", "3"),
        # other scripts
        ("\uff13\uff14\uff15", "345"),
        ("\u0663\u0664\u0665", "345"),
        ("\u0967\u0968\u0969", "123"),
        ("\uff12\uff0c\uff14\uff18\uff10", "2480"),
        # units, currencies, magnitudes
        ("12kg", "12"),
        ("12 km/h", "12"),
        ("US$ 12", "12"),
        ("12 \u20ac", "12"),
        ("CHF 12.50", "12.5"),
        ("Rs. 500", "500"),
        ("3k", "3000"),
        ("3.5K", "3500"),
        ("2 million", "2000000"),
        ("3 hundred thousand", "300000"),
        ("2.5 lakh", "250000"),
        ("5 m", "5"),
        ("45 %", "45"),
    ],
)
def test_a_number_is_read_in_every_notation(answer, number):
    assert parse_number(answer) == number


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "none",
        "7 or 8",
        "10-20",
        "1, 2, 3",
        "2.480",  # a thousandth of it, or not
        "1,25.5",
        "1.2.3",
        "2024-05-17",
        "12:30",
        "1/2",
        "2\u00bd",
        "two and a half of 3",
        "> 5",
        "at least 5",
        "40+",
        "- 5",  # a minus or the beginning of a list
        "(5)",  # a bookkeeper's minus or not
        "5-",
        "$5m",
        "5 B",
        "Covid-19",
        "B12",
        "5'10",
        "1e999",
        "9" * 400,
    ],
)
def test_what_is_ambiguous_is_no_number(answer):
    assert parse_number(answer) is None


@pytest.mark.parametrize(
    ("answer", "bounds", "step", "number"),
    [
        ("2.480", (0, 10), None, "2.48"),
        ("2.480", (100, 9000), None, "2480"),
        ("2.480", (0, 9000), 1.0, "2480"),
        ("2.480", (0, 9000), 0.01, None),
        ("- 5", (0, 10), None, "5"),
        ("- 5", (-10, 0), None, "-5"),
        ("(5)", (0, 10), None, "5"),
        ("11", (0, 10), None, None),
        ("45 %", (0, 1), None, "0.45"),
        ("45%", (0, 100), None, "45"),
        ("100 percent", (0, 1), None, "1"),
        ("0.45", (0, 1), None, "0.45"),
        ("8/10", (0, 10), None, "8"),
        ("8 out of 10", (0, 10), None, "8"),
        ("8/10", (0, 100), None, None),
    ],
)
def test_bounds_and_step_decide_between_readings(answer, bounds, step, number):
    assert parse_number(answer, bounds, step) == number


@given(st.text())
def test_reading_never_fails_and_keeps_the_bounds(text):
    number = parse_number(text, (0.0, 10.0), 0.5)
    assert number is None or 0.0 <= float(number) <= 10.0


@given(st.integers(-(10**9), 10**9))
def test_a_whole_number_is_read_back_from_every_grouping(value):
    for mark in (",", " ", "'", "_"):
        assert parse_number(f"{value:,}".replace(",", mark), (-1e9, 1e9)) == str(value)
