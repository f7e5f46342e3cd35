"""JSON is found in an answer and read in spite of small mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.llm.loose_json import json_blocks


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2]}', {"a": [1, 2]}),
        ('```json\n{"a": "b"}\n```', {"a": "b"}),
        ('Of course! Here it is: ["a"]. Anything else?', ["a"]),
        ('As [asked] for: {"a": "b"}', {"a": "b"}),
        ("{'a': 'Macy's', 'b': 'c',}", {"a": "Macy's", "b": "c"}),
        ("['say \"hi\"', 'it\\'s']", ['say "hi"', "it's"]),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}),
        ('{"a": "C:\\data"}', {"a": "C:\\data"}),
        ('{\n  "a": [\n    "b"\n  ]\n}', {"a": ["b"]}),
    ],
)
def test_a_whole_block_is_read(text, value):
    assert list(json_blocks(text)) == [(value, True)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": ["b", "c', {"a": ["b"]}),
        ('{"a": ["b"], "d', {"a": ["b"]}),
        ('[{"a": "b"}, {"a": "c"', [{"a": "b"}, {"a": "c"}]),
        ('[{"a": "b}"}, {"a":', [{"a": "b}"}]),
    ],
)
def test_of_a_block_that_breaks_off_its_whole_parts_are_kept(text, value):
    assert list(json_blocks(text)) == [(value, False)]


@pytest.mark.parametrize("text", ["", "no list", "[" * 5000, "{" * 5000, "[sic]", "{a: b}", '{"a'])
def test_what_is_no_json_has_no_blocks(text):
    assert list(json_blocks(text)) == []


def test_all_blocks_are_read_in_their_order():
    assert list(json_blocks('{"a": 1}\n{"a": 2} and [3]')) == [
        ({"a": 1}, True),
        ({"a": 2}, True),
        ([3], True),
    ]


@given(st.text(alphabet="[]{},:\"'\\ab1 \n", max_size=60))
def test_reading_never_fails(text):
    assert all(isinstance(value, dict | list) for value, _ in json_blocks(text))
