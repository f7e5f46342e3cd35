"""Probable errors are found in every kind of label, ranked, with who says what."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.labels import Span
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.label_model.label_issues import GivenLabels, find_label_issues
from backend.label_model.label_tables import Posteriors, SpanTable

TOPICS = tuple(LabelDefinition(name, name) for name in ("Sport", "Trade", "Arts"))


def question(kind):
    return Question("topic", (TextField("text", "text"),), kind, TOPICS)


def table(*rows, is_exclusive=True):
    return Posteriors(np.arange(len(rows)) + 10, np.array(rows, dtype=float), is_exclusive)


def spans(*rows):
    return SpanTable(np.arange(len(rows)) + 10, tuple(tuple(Span(*s) for s in row) for row in rows))


def found(kind, given, expected, *, people=(), annotators=None):
    is_human = np.isin(np.arange(len(given.ids)), people)
    return find_label_issues(
        GivenLabels(question(kind), given, is_human), expected, annotators or {}
    )


def test_a_label_that_annotators_contradict_is_ranked_by_how_surely():
    given = table((0.9, 0.1, 0.0), (0.9, 0.1, 0.0), (0.9, 0.1, 0.0))
    expected = table((0.4, 0.6, 0.0), (0.9, 0.1, 0.0), (0.1, 0.9, 0.0))
    issues = found(QuestionKind.SINGLE_CHOICE, given, expected)
    assert [(i.example_id, i.given, i.suggested, i.error_probability) for i in issues] == [
        (12, "Sport", "Trade", 0.9),
        (10, "Sport", "Trade", 0.6),
    ]
    assert {str(i.kind) for i in issues} == {"wrong"}


def test_of_a_likely_label_that_is_unsure_the_next_one_is_proposed():
    given, expected = table((0.9, 0.1, 0.0)), table((0.5, 0.2, 0.3))
    (issue,) = found(QuestionKind.SINGLE_CHOICE, given, expected)
    assert (issue.given, issue.suggested) == ("Sport", "Arts")


def test_the_proposal_of_a_contradicted_label_is_the_likeliest():
    (issue,) = found(QuestionKind.SINGLE_CHOICE, table((0.9, 0.1, 0.0)), table((0.2, 0.3, 0.5)))
    assert (issue.given, issue.suggested, issue.error_probability) == ("Sport", "Arts", 0.8)


def test_it_takes_clear_annotators_to_doubt_a_person():
    given = table((1, 0, 0), (1, 0, 0))
    expected = table((0.4, 0.6, 0.0), (0.02, 0.98, 0.0))
    (issue,) = found(QuestionKind.SINGLE_CHOICE, given, expected, people=[0, 1])
    assert (issue.example_id, issue.is_human) == (11, True)
    # nine of ten answers by people are right: 0.98 * 0.1 against 0.02 * 0.9
    assert issue.error_probability == pytest.approx(0.098 / (0.098 + 0.018), abs=1e-4)


def test_every_annotator_is_quoted():
    given, expected = table((0.9, 0.1, 0.0)), table((0.2, 0.8, 0.0))
    annotators = {
        "llm": table((0.7, 0.2, 0.1)),
        "small-model": table((0.05, 0.95, 0.0)),
        "similarity": table((np.nan,) * 3),
    }
    (issue,) = found(QuestionKind.SINGLE_CHOICE, given, expected, annotators=annotators)
    assert issue.says == {"llm": ("Sport", 0.7), "small-model": ("Trade", 0.95)}
    assert issue.to_json()["says"] == {"llm": ["Sport", 0.7], "small-model": ["Trade", 0.95]}
    assert issue.to_json()["task_id"] == 10


def test_labels_of_a_multiple_choice_are_missing_or_wrong():
    given = table((0.9, 0.1, 0.1), is_exclusive=False)
    expected = table((0.2, 0.7, 0.1), is_exclusive=False)
    issues = found(QuestionKind.MULTIPLE_CHOICE, given, expected)
    told = [(str(i.kind), i.given, i.suggested, i.error_probability) for i in issues]
    assert told == [("wrong", "Sport", None, 0.8), ("missing", None, "Trade", 0.7)]


@pytest.mark.parametrize(
    ("given", "expected", "told"),
    [
        ([(0, 4, "Sport")], [(0, 4, "Trade", 0.8)], ("wrong type", "Sport 0-4", "Trade 0-4", 0.8)),
        (
            [(0, 4, "Sport")],
            [(0, 9, "Sport", 0.7)],
            ("wrong border", "Sport 0-4", "Sport 0-9", 0.7),
        ),
        ([], [(0, 4, "Arts", 0.9)], ("missing", None, "Arts 0-4", 0.9)),
        ([(0, 4, "Sport")], [], ("wrong", "Sport 0-4", None, 0.75)),
    ],
)
def test_spans_are_missing_wrong_or_have_another_type_or_border(given, expected, told):
    (issue,) = found(QuestionKind.SPANS, spans(given), spans(expected))
    kind, *rest = told
    assert str(issue.kind) == kind
    assert [issue.given, issue.suggested] == rest[:2]
    assert issue.error_probability == pytest.approx(rest[2])


def test_a_span_that_a_person_found_alone_is_not_doubted():
    given, expected = spans([(0, 4, "Sport")]), spans([])
    assert found(QuestionKind.SPANS, given, expected, people=[0]) == []


def test_annotators_of_spans_are_quoted_on_what_overlaps():
    annotators = {
        "llm": spans([(0, 9, "Sport", 0.6), (20, 25, "Arts", 0.9)]),
        "small-model": spans([]),
    }
    (issue,) = found(
        QuestionKind.SPANS,
        spans([(0, 4, "Sport")]),
        spans([(0, 9, "Sport", 0.7)]),
        annotators=annotators,
    )
    assert issue.says == {"llm": ("Sport 0-9", 0.6)}


def test_texts_without_a_label_have_no_errors():
    nothing = table((np.nan,) * 3)
    assert found(QuestionKind.SINGLE_CHOICE, nothing, table((0.1, 0.9, 0.0))) == []
    assert found(QuestionKind.SINGLE_CHOICE, table((0.1, 0.9, 0.0)), nothing) == []
