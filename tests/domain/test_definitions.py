"""Definitions: files are read anew each time, hints replaced, and what fits nothing refused."""

from __future__ import annotations

import pytest

from backend.domain.definitions import Definitions, read_definitions, with_definitions
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


GOOD = """
instruction: Judge the product, not the seller.
definitions:
  sentiment:
    yes: they are content
    1: one star
  topic:
"""


def test_every_name_is_a_text_even_if_yaml_knows_better(tmp_path):
    (tmp_path / "3.yaml").write_text(GOOD, "utf-8")
    assert read_definitions(tmp_path, 3) == Definitions(
        {"sentiment": {"yes": "they are content", "1": "one star"}, "topic": {}},
        "Judge the product, not the seller.",
    )


def test_a_project_without_a_file_has_none_and_an_edit_counts_at_once(tmp_path):
    folder = tmp_path / "not there yet"
    assert read_definitions(folder, 3) == Definitions()
    folder.mkdir()
    (folder / "3.yaml").write_text("instruction: Read.", "utf-8")
    assert read_definitions(folder, 3) == Definitions(instruction="Read.")
    assert read_definitions(folder, 4) == Definitions()


@pytest.mark.parametrize("content", ["", "# nothing yet", "definitions:"])
def test_an_empty_file_defines_nothing(tmp_path, content):
    (tmp_path / "3.yaml").write_text(content, "utf-8")
    assert read_definitions(tmp_path, 3) == Definitions()


@pytest.mark.parametrize(
    "content",
    [
        b"definitions: [",
        b"- sentiment",
        b"labels: {sentiment: {a: b}}",
        b"definitions: text",
        b"definitions: {sentiment: text}",
        b"definitions: {sentiment: {a: [b]}}",
        b"instruction: [a]",
        b"? [a]\n: b",
        b"\xff\xfe",
        b"a: &x [*x]",
        b"!!python/object/apply:os.system [ls]",
    ],
)
def test_what_is_not_understood_is_refused_with_the_files_name(tmp_path, content):
    (tmp_path / "3.yaml").write_bytes(content)
    with pytest.raises(UnsuitableDefinitions, match=r"3\.yaml.*expected `instruction: text`"):
        read_definitions(tmp_path, 3)
