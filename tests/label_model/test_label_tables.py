"""Labels of every kind of question are compared, aligned, stored and shown in the same way."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.labels import AnnotatorKind, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.label_model.label_tables import (
    Posteriors,
    SpanTable,
    answer_of,
    given_table,
    representative_classes,
    stored_table,
)
from backend.label_model.labels_matrix import LabelsMatrix

IDS = np.array([7, 8, 9])
NONE = (np.nan, np.nan)
ONE = Posteriors(IDS, np.array([(0.9, 0.1), (0.4, 0.6), NONE]))
MANY = Posteriors(IDS, np.array([(0.9, 0.8), (0.4, 0.3), NONE]), is_exclusive=False)
SPANS = SpanTable(IDS, ((Span(0, 3, "a", 0.9), Span(5, 8, "b", 0.6)), (), None))
TABLES = {"one": ONE, "many": MANY, "spans": SPANS}


def question(name: str) -> Question:
    kinds = {
        "one": QuestionKind.SINGLE_CHOICE,
        "many": QuestionKind.MULTIPLE_CHOICE,
        "spans": QuestionKind.SPANS,
    }
    labels = tuple(LabelDefinition(value, value) for value in "ab")
    return Question("q", (TextField("text", "text"),), kinds[name], labels)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_stored_without_pickles_and_read_as_it_was(name, tmp_path):
    table = TABLES[name]
    np.savez(tmp_path / "table.npz", **table.arrays)
    with np.load(tmp_path / "table.npz", allow_pickle=False) as stored:
        read = stored_table(question(name), dict(stored))
    assert read.parts == table.parts
    np.testing.assert_array_equal(read.ids, table.ids)
    np.testing.assert_allclose(read.confidences, table.confidences)


@pytest.mark.parametrize(
    ("name", "parts", "confidences"),
    [
        ("one", [{0}, {1}, set()], [0.9, 0.6, 0.0]),
        ("many", [{0, 1}, set(), set()], [0.8, 0.6, 0.0]),
        ("spans", [{(0, 3, "a"), (5, 8, "b")}, set(), set()], [0.6, 1.0, 0.0]),
    ],
)
def test_answers_and_the_least_certain_part_of_each(name, parts, confidences):
    table = TABLES[name]
    assert table.parts == parts
    assert table.has_label.tolist() == [True, True, False]
    assert table.confidences.tolist() == pytest.approx(confidences)


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_aligned_replaced_dropped_and_appended(name):
    table = TABLES[name]
    aligned = table.align(np.array([9, 8, 1]))
    assert aligned.has_label.tolist() == [False, True, False]
    assert aligned.parts[1] == table.parts[1]
    second = np.array([False, True, False])
    turned = table.align(IDS[::-1])
    assert table.overlay(second, table).parts == table.parts
    assert table.without(second).has_label.tolist() == [True, False, False]
    assert table.append(turned).parts == [*table.parts, *table.parts[::-1]]


@pytest.mark.parametrize("name", TABLES)
def test_answers_differ_only_where_both_have_one(name):
    table = TABLES[name]
    other = table.align(np.array([8, 7, 9]))
    assert table.differs(other).tolist() == [True, True, False]
    assert not table.differs(table).any()
    losses = table.losses(table)
    assert (losses[:2] < table.losses(other)[:2]).all()


def test_the_loss_on_an_answer():
    assert ONE.losses(ONE)[:2] == pytest.approx([-np.log(0.9), -np.log(0.6)])
    assert MANY.losses(MANY)[0] == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
    missing = SpanTable(IDS, ((Span(0, 3, "a"),), (), None))
    assert SPANS.losses(missing)[0] == pytest.approx(-np.log(0.9) - np.log(0.4))


def test_a_text_stands_for_its_rarest_label_and_without_any_for_a_class_of_its_own():
    table = Posteriors(
        np.arange(4), np.array([(0.9, 0.9), (0.9, 0.1), (0.9, 0.1), (0.1, 0.1)]), is_exclusive=False
    )
    classes, n_classes = representative_classes(question("many"), table)
    assert (classes.tolist(), n_classes) == ([1, 0, 0, 2], 3)
    classes, n_classes = representative_classes(question("spans"), SPANS)
    assert (classes.tolist(), n_classes) == ([0, 2, 2], 3)
    classes, n_classes = representative_classes(question("one"), ONE.align(IDS[:2]))
    assert (classes.tolist(), n_classes) == ([0, 1], 2)


def test_answers_are_put_in_the_words_of_the_label_space():
    assert answer_of(question("many"), frozenset({1, 0})).labels == ("a", "b")
    found = answer_of(question("spans"), frozenset({(5, 8, "b"), (0, 3, "a")}))
    assert found.spans == (Span(0, 3, "a"), Span(5, 8, "b"))


def test_an_annotator_s_labels_leave_abstentions_and_other_questions_out():
    labels = [
        WeakLabel(1, "q", "llm", spans=(Span(0, 3, "a"),)),
        WeakLabel(1, "other", "llm", spans=()),
        WeakLabel(2, "q", "llm", text="no spans"),
    ]
    table = given_table(question("spans"), labels)
    assert (table.ids.tolist(), table.parts) == ([1], [{(0, 3, "a")}])


@pytest.mark.parametrize("name", TABLES)
def test_a_table_joins_a_matrix_as_one_more_annotator(name):
    matrix = TABLES[name].joined_to(LabelsMatrix(IDS, 2), "student", AnnotatorKind.STUDENT, "r1")
    labels = matrix.weak_labels(question(name))
    assert [(label.example_id, label.annotator) for label in labels] == [
        (7, "student"),
        (8, "student"),
    ]
    assert given_table(question(name), labels).parts == TABLES[name].parts[:2]
    assert not matrix.select(lambda kind: kind is AnnotatorKind.LLM).weak_labels(question(name))
