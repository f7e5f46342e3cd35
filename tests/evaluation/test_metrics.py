"""Calibration error and span scores, by hand and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Span
from backend.evaluation.metrics import (
    SpanScores,
    cohens_kappa,
    expected_calibration_error,
    span_scores,
)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # two texts at 0.9 of which half are right, two at 0.6 that are all right
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4)


def test_no_texts_have_no_calibration_error():
    assert expected_calibration_error(np.zeros((0, 2)), np.zeros(0, dtype=int)) == 0.0


@given(st.lists(st.floats(0.5, 1.0), min_size=1), st.data())
def test_the_calibration_error_lies_between_0_and_1(confidences, data):
    probabilities = np.array([[p, 1 - p] for p in confidences])
    labels = np.array([data.draw(st.integers(0, 1)) for _ in confidences])
    assert 0.0 <= expected_calibration_error(probabilities, labels) <= 1.0


def test_spans_count_only_with_exact_ends_and_label():
    gold = [[Span(0, 4, "PER"), Span(9, 12, "LOC")], []]
    predicted = [[Span(0, 4, "PER", 0.3), Span(9, 13, "LOC")], [Span(1, 2, "LOC")]]
    scores = span_scores(predicted, gold)
    assert scores.precision == pytest.approx(1 / 3)
    assert scores.recall == pytest.approx(1 / 2)
    assert scores.f1 == pytest.approx(0.4)


def test_no_spans_at_all_score_zero():
    assert span_scores([[]], [[]]) == SpanScores(0.0, 0.0, 0.0)


def test_kappa_is_agreement_beyond_chance():
    first = np.array([0] * 50 + [1] * 50)
    second = np.array([0] * 40 + [1] * 60)
    assert cohens_kappa(first, second) == pytest.approx((0.9 - 0.5) / 0.5)


def test_kappa_is_undefined_without_examples_or_with_a_single_class():
    assert cohens_kappa(np.zeros(0, dtype=int), np.zeros(0, dtype=int)) is None
    assert cohens_kappa(np.ones(5, dtype=int), np.ones(5, dtype=int)) is None
