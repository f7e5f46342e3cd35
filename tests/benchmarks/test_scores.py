"""The figures that benchmarks report."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.labels import Abstention, AbstentionReason, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from benchmarks.scores import accuracy, posteriors, score_posteriors, score_spans


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


def test_spans_are_right_when_they_are_exactly_so():
    answers = [weak(1, spans=(Span(0, 2, "a"), Span(3, 5, "b"))), weak(2)]
    gold = [(Span(0, 2, "a"),), (Span(0, 1, "a"),)]
    assert score_spans(answers, gold).value == pytest.approx(0.5)


def test_an_interval_is_wilsons():
    score = accuracy(8, 10)
    assert (score.low, score.high) == (
        pytest.approx(0.490, abs=1e-3),
        pytest.approx(0.943, abs=1e-3),
    )
    assert accuracy(0, 0).value == 0.0
    assert np.isnan(posteriors([weak(1)], 2)).all()
