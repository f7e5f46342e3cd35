"""What differs between two versions of a question's labels, decision by decision."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.labels import Span
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.label_model.changes import changed_decisions
from backend.label_model.label_tables import Posteriors, SpanTable

FIELDS = (TextField("text", "text"),)
TOPICS = tuple(LabelDefinition(name, name) for name in ("Sport", "Trade", "Arts"))
NAN = (np.nan, np.nan, np.nan)


def question(kind):
    return Question("topic", FIELDS, kind, TOPICS)


def table(*rows, is_exclusive=True):
    return Posteriors(np.arange(len(rows)), np.array(rows, dtype=float), is_exclusive)


def test_a_single_label_is_one_decision_of_the_texts_that_both_label():
    served = table((0.8, 0.1, 0.1), (0.8, 0.1, 0.1), NAN, (0.1, 0.1, 0.8))
    found = table((0.1, 0.7, 0.2), (0.6, 0.3, 0.1), (0.1, 0.8, 0.1), NAN)
    changed = changed_decisions(
        question(QuestionKind.SINGLE_CHOICE), served, found, [found, served]
    )
    assert changed.texts.tolist() == [0]
    assert changed.n_decisions == 2
    assert changed.found == pytest.approx(np.array([[0.7], [0.1]]))
    assert changed.served == pytest.approx(np.array([[0.1], [0.8]]))


def test_a_referee_without_an_answer_knows_nothing():
    served, found = table((0.8, 0.1, 0.1)), table((0.1, 0.8, 0.1))
    changed = changed_decisions(question(QuestionKind.SINGLE_CHOICE), served, found, [table(NAN)])
    assert changed.found == pytest.approx(changed.served)
    assert changed.leads == pytest.approx([0.0])


def test_each_label_of_a_multiple_choice_is_a_decision():
    served = table((0.9, 0.2, 0.8), (0.1, 0.1, 0.1), is_exclusive=False)
    found = table((0.9, 0.7, 0.4), (0.1, 0.1, 0.1), is_exclusive=False)
    changed = changed_decisions(question(QuestionKind.MULTIPLE_CHOICE), served, found, [found])
    assert changed.texts.tolist() == [0, 0]
    assert changed.n_decisions == 6
    assert changed.found == pytest.approx(np.array([[0.7, 0.6]]))
    assert changed.served == pytest.approx(np.array([[0.3, 0.4]]))


def test_each_span_that_either_version_has_is_a_decision():
    served = SpanTable(np.arange(2), ((Span(0, 4, "Sport", 0.9), Span(6, 9, "Arts", 0.6)), None))
    found = SpanTable(np.arange(2), ((Span(0, 4, "Sport", 0.9), Span(10, 12, "Arts", 0.8)), ()))
    spans = question(QuestionKind.SPANS)
    changed = changed_decisions(spans, served, found, [found])
    assert changed.texts.tolist() == [0, 0]
    assert changed.n_decisions == 3
    assert changed.found == pytest.approx(np.array([[0.75, 0.8]]))  # the span at 6 was left out


def test_equal_labels_change_nothing():
    same = table((0.8, 0.1, 0.1), (0.1, 0.8, 0.1))
    changed = changed_decisions(question(QuestionKind.SINGLE_CHOICE), same, same, [same] * 4)
    assert changed.found.shape == (4, 0)
    assert changed.n_decisions == 2
