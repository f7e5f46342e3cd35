"""Label definitions: each replaces a hint, and what fits nothing is refused."""

from __future__ import annotations

import pytest

from backend.domain.definitions import Definitions, with_definitions
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.errors import UnsuitableDefinitions

LABELS = (LabelDefinition("pos", "Positive", "they like it"), LabelDefinition("neg", "Negative"))
TONE = Question("tone", (TextField("t", "t"),), QuestionKind.SINGLE_CHOICE, LABELS)
SUMMARY = Question("summary", (TextField("t", "t"),), QuestionKind.FREE_TEXT)
SCHEMA = TaskSchema((TONE, SUMMARY), headers=("Read.",), unsupported=("Brush",))


def test_a_definition_replaces_the_hint_and_nothing_else():
    defined = with_definitions(SCHEMA, {"tone": {"neg": "they do not"}})
    assert [label.hint for label in defined.questions[0].labels] == ["they like it", "they do not"]
    assert [label.value for label in defined.questions[0].labels] == ["pos", "neg"]
    assert (defined.questions[1], defined.headers) == (SUMMARY, ("Read.",))
    assert defined.unsupported == ("Brush",)


def test_without_definitions_the_schema_stays_as_it_is():
    assert with_definitions(SCHEMA, {}) == SCHEMA
    assert with_definitions(SCHEMA, {"tone": {}}) == SCHEMA


@pytest.mark.parametrize(
    ("definitions", "found", "expected"),
    [
        ({"mood": {}}, "'mood'", "'tone', 'summary'"),
        ({"tone": {"Positive": "x"}}, "'Positive'", "'pos', 'neg'"),
        ({"summary": {"x": "y"}}, "'x'", "no labels"),
    ],
)
def test_what_is_not_asked_is_refused_with_what_is(definitions, found, expected):
    with pytest.raises(UnsuitableDefinitions) as caught:
        with_definitions(SCHEMA, definitions)
    assert found in str(caught.value)
    assert expected in str(caught.value)


def test_a_long_list_of_labels_is_cut():
    labels = tuple(LabelDefinition(f"l{i}", "x") for i in range(150))
    schema = TaskSchema((Question("q", (), QuestionKind.SINGLE_CHOICE, labels),))
    with pytest.raises(UnsuitableDefinitions, match="and 130 more"):
        with_definitions(schema, {"q": {"other": "x"}})


@pytest.mark.parametrize(
    ("own", "more", "both"),
    [("", "", ""), ("Read.", "", "Read."), ("", "Think.", "Think."), ("A.", "B.", "A.\n\nB.")],
)
def test_its_instruction_follows_the_projects_own(own, more, both):
    assert Definitions(instruction=more).instruct(own) == both
