"""Labels beside people's: by confidence, by label, and spans by kind of error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.comparison import confusion, counts_by_label, reliability, span_errors


def test_bins_hold_equally_many_labels_in_the_order_of_confidence():
    confidences = np.array([0.9] * 10 + [0.6] * 10)
    is_right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    low, high = reliability(confidences, is_right)
    assert (low["n"], low["confidence"], low["value"]) == (10, pytest.approx(0.6), 0.5)
    assert (high["n"], high["confidence"], high["value"]) == (10, pytest.approx(0.9), 0.9)
    assert low["low"] == pytest.approx(0.187, abs=1e-3)  # Clopper-Pearson of 5 in 10
    assert low["high"] == pytest.approx(0.813, abs=1e-3)


def test_few_labels_make_one_bin_and_none_make_no_bin():
    assert [row["n"] for row in reliability(np.array([0.5, 0.7]), np.array([True, False]))] == [2]
    assert reliability(np.array([]), np.array([], bool)) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200))
def test_no_label_is_lost_and_every_share_lies_in_its_interval(labels):
    confidences, is_right = (np.array(column) for column in zip(*labels, strict=True))
    rows = reliability(confidences, is_right.astype(bool))
    assert sum(row["n"] for row in rows) == len(labels)
    assert sum(row["n"] * row["value"] for row in rows) == pytest.approx(is_right.sum())
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert [row["confidence"] for row in rows] == sorted(row["confidence"] for row in rows)


def test_the_most_frequent_confusion_comes_first_and_no_label_is_none():
    wanted = [frozenset({0}), frozenset({0}), frozenset({1}), frozenset({1}), frozenset({1})]
    found = [frozenset({1}), frozenset({1}), frozenset({1}), frozenset({0}), frozenset()]
    assert confusion(found, wanted) == [(0, 1, 2), (1, 0, 1), (1, 1, 1)]


def test_each_label_is_counted_by_itself():
    found, wanted = [frozenset({0, 1}), frozenset()], [frozenset({1}), frozenset({2})]
    counts = counts_by_label(found, wanted, lambda part: "abc"[part])
    assert counts == {"a": (0, 1, 0), "b": (1, 1, 1), "c": (0, 0, 1)}


def test_every_span_has_one_kind_of_error():
    wanted = [frozenset({(0, 5, "PER"), (10, 15, "LOC"), (20, 25, "ORG"), (30, 35, "PER")})]
    found = [frozenset({(0, 5, "PER"), (11, 15, "LOC"), (20, 25, "LOC"), (40, 45, "PER")})]
    assert span_errors(found, wanted) == {
        "right": 1,
        "wrong border": 1,
        "wrong type": 1,
        "invented": 1,
        "missing": 1,
    }
    assert span_errors([frozenset()], [frozenset()]) == dict.fromkeys(
        ("right", "wrong border", "wrong type", "invented", "missing"), 0
    )


def test_spans_that_touch_do_not_overlap():
    errors = span_errors([frozenset({(0, 5, "PER")})], [frozenset({(5, 9, "PER")})])
    assert (errors["invented"], errors["missing"]) == (1, 1)
