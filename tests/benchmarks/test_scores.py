"""The figures that benchmarks report."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Abstention, AbstentionReason, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from benchmarks.scores import (
    accuracy,
    expected_calibration_error,
    posteriors,
    score_posteriors,
    score_spans,
    span_f1,
    span_precision_recall,
)


def question(kind: QuestionKind) -> Question:
    labels = tuple(LabelDefinition(name, name) for name in ("a", "b"))
    return Question("q", (TextField("text", "text"),), kind, labels)


def weak(number: int, **answer: object) -> WeakLabel:
    if not answer:
        answer = {"abstention": Abstention(AbstentionReason.UNREADABLE)}
    return WeakLabel(number, "q", "llm", "v1", **answer)


def test_a_text_without_an_answer_counts_as_wrong():
    answers = [weak(1, probabilities=(0.9, 0.1)), weak(2), weak(3, probabilities=(0.2, 0.8))]
    single = question(QuestionKind.SINGLE_CHOICE)
    score = score_posteriors(posteriors(answers, 2), [0, 0, 0], single)
    assert score.value == pytest.approx(1 / 3)
    assert score.low < score.value < score.high


def test_several_labels_have_micro_and_macro_f1():
    answers = [weak(1, probabilities=(0.9, 0.9)), weak(2, probabilities=(0.1, 0.6)), weak(3)]
    gold = [frozenset({0}), frozenset({1}), frozenset({0})]
    score = score_posteriors(posteriors(answers, 2), gold, question(QuestionKind.MULTIPLE_CHOICE))
    assert score.value == pytest.approx(2 * 2 / (3 + 3))
    assert score.macro == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_only_exact_spans_are_correct():
    answers = [weak(1, spans=(Span(0, 2, "a"), Span(3, 5, "b"))), weak(2)]
    gold = [(Span(0, 2, "a"),), (Span(0, 1, "a"),)]
    assert score_spans(answers, gold).value == pytest.approx(0.5)
    answers[1] = weak(2, spans=())
    assert span_precision_recall(answers, gold) == (0.5, 0.5)
    assert span_precision_recall([weak(1, spans=())], [()]) == (0.0, 0.0)


def test_an_interval_is_wilsons():
    score = accuracy(8, 10)
    assert (score.low, score.high) == (
        pytest.approx(0.490, abs=1e-3),
        pytest.approx(0.943, abs=1e-3),
    )
    assert accuracy(0, 0).value == 0.0
    assert np.isnan(posteriors([weak(1)], 2)).all()


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # two texts at 0.9 of which half are correct, two at 0.6 that are all correct
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
    # precision 1 / 3, recall 1 / 2
    assert span_f1(predicted, gold) == pytest.approx(0.4)


def test_no_spans_at_all_score_zero():
    assert span_f1([[]], [[]]) == 0.0
