"""Identities of projects and rows, and how deep data may be nested."""

from __future__ import annotations

import pytest

from backend.domain.projects import (
    MAX_NESTING,
    is_nested_deeper,
    is_project_id,
    is_row_id,
    parse_project_id,
)
from backend.errors import InvalidRequest


def nested(depth: int):
    value = "text"
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    return value


@pytest.mark.parametrize("text", ["7.1795215594", "1.0", "999999999999999999.1"])
def test_an_id_has_one_writing(text):
    assert parse_project_id(text) == text
    assert is_project_id(text)


@pytest.mark.parametrize(
    "value",
    ["\u00b2.1", "\u0663.1", "1.\u2460", "07.1", "7.01", "7", "7.", ".7", "7.1.1", "-7.1", "7.1\n"]
    + [
        " 7.1",
        "0.0",
        "0.1",
        "7 .1",
        "1e3.1",
        "7.1\x00",
        "9" * 19 + ".1",
        "7." + "9" * 19,
        "",
        "a.b",
        7,
        7.1,
    ]
    + [None, True, ["7.1"], {"id": "7.1"}],
)
def test_another_writing_of_an_id_is_refused(value):
    with pytest.raises(InvalidRequest, match="project"):
        parse_project_id(value)


def test_row_ids_are_whole_positive_and_fit_the_database():
    assert is_row_id(1)
    assert is_row_id(2**63 - 1)
    assert not any(map(is_row_id, (0, -1, 2**63, True, 1.0, "1", None, [1])))


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 960, 100_000])
def test_nesting_is_measured_without_recursion(depth):
    assert is_nested_deeper(nested(depth))


def test_ordinary_data_are_not_nested_too_deep():
    assert not is_nested_deeper(nested(MAX_NESTING))
    assert not is_nested_deeper({"dialogue": [{"author": "a", "text": "b"}] * 50})
