"""Scores of tables of labels: one figure for every kind of question."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.labels import AnnotatorKind, Example, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.label_model.label_tables import Posteriors, SpanTable
from backend.label_model.labels_matrix import LabelsMatrix
from benchmarks.round_scores import (
    annotator_tables,
    gold_label,
    gold_parts,
    net_gain,
    score_table,
)

NAN = float("nan")


def question(kind: QuestionKind) -> Question:
    labels = (LabelDefinition("red", "Red"), LabelDefinition("blue", "Blue"))
    return Question("color", TextField("text", "text"), kind, labels)


def test_gold_answers_of_every_kind_become_parts():
    assert gold_parts(1) == {1}
    assert gold_parts(frozenset({0, 1})) == {0, 1}
    assert gold_parts((Span(2, 5, "red"),)) == {(2, 5, "red")}


@pytest.mark.parametrize(
    ("kind", "gold", "expected"),
    [
        (QuestionKind.SINGLE_CHOICE, 1, (0.0, 1.0)),
        (QuestionKind.MULTIPLE_CHOICE, frozenset({0, 1}), (1.0, 1.0)),
        (QuestionKind.MULTIPLE_CHOICE, frozenset(), (0.0, 0.0)),
    ],
)
def test_a_person_gives_the_gold_answer(kind, gold, expected):
    assert gold_label(question(kind), 7, gold_parts(gold)).probabilities == expected


def test_a_person_gives_the_gold_spans():
    gold = (Span(2, 5, "red"), Span(0, 1, "blue"))
    found = gold_label(question(QuestionKind.SPANS), 7, gold_parts(gold)).spans
    assert [(span.start, span.end, span.label) for span in found] == [(0, 1, "blue"), (2, 5, "red")]


def test_an_accuracy_is_over_rows_with_a_label():
    ids = np.array([1, 2, 3])
    table = Posteriors(ids, np.array([[0.9, 0.1], [0.2, 0.8], [NAN, NAN]]))
    gold = {1: frozenset({0}), 2: frozenset({0}), 3: frozenset({1})}
    assert score_table(table, gold) == 0.5
    assert score_table(table.without(np.ones(3, dtype=bool)), gold) is None


def test_several_labels_are_scored_by_micro_f1():
    ids = np.array([1, 2])
    table = Posteriors(ids, np.array([[0.9, 0.8], [0.1, 0.2]]), is_exclusive=False)
    gold = {1: frozenset({0}), 2: frozenset({1})}
    assert score_table(table, gold) == 0.5  # one of two is right, one of two is found


def test_spans_that_were_not_looked_for_are_missed():
    table = SpanTable(np.array([1, 2]), ((Span(0, 3, "red"),), None))
    gold = {1: frozenset({(0, 3, "red")}), 2: frozenset({(4, 6, "blue")})}
    assert score_table(table, gold) == pytest.approx(2 / 3, abs=1e-4)


def test_annotators_go_by_their_short_names():
    asked = question(QuestionKind.SINGLE_CHOICE)
    examples = [Example(1, {"text": "the sky"})]
    kinds = {
        "qwen": AnnotatorKind.LLM,
        "qwen+shots": AnnotatorKind.LLM_DEMONSTRATIONS,
        "similarity:minilm": AnnotatorKind.SIMILARITY,
    }
    labels = [
        WeakLabel(1, "color", name, "v", (0.3, 0.7), annotator_kind=kind)
        for name, kind in kinds.items()
    ]
    tables = annotator_tables(asked, LabelsMatrix.read(asked, examples, labels))
    assert set(tables) == {"llm", "llm+shots", "similarity"}
    assert score_table(tables["llm"], {1: frozenset({1})}) == 1.0


def test_what_a_change_of_single_labels_gained():
    ids = np.array([1, 2, 3])
    before = Posteriors(ids, np.array([[1.0, 0.0], [1.0, 0.0], [NAN, NAN]]))
    after = Posteriors(ids, np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    gold = {i: frozenset({1}) for i in (1, 2, 3)}
    assert net_gain(before, after, gold) == 2  # the third had no label before
    assert net_gain(after, before, gold) == -2
    assert net_gain(before, before, gold) == 0


def test_what_a_change_of_spans_gained_counts_each_span():
    ids = np.array([1])
    right, wrong, missed = Span(0, 3, "red"), Span(4, 6, "blue"), Span(7, 9, "red")
    gold = {1: frozenset({(0, 3, "red"), (7, 9, "red")})}
    before = SpanTable(ids, ((right, wrong),))
    assert net_gain(before, SpanTable(ids, ((right,),)), gold) == 0.5
    assert net_gain(before, SpanTable(ids, ((right, missed),)), gold) == 1.5
    assert net_gain(before, SpanTable(ids, ((wrong,),)), gold) == -1
