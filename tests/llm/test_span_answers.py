"""Answers that name pieces: how they are asked for, and what is read from how models write them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Answer, Demonstration, Span
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.llm.client.json_grammar import compact_grammar
from backend.llm.span_answers import MAX_REQUIRED_LABELS, SpanFormat

QUESTION = Question(
    "entity",
    (TextField("post", "post"),),
    QuestionKind.SPANS,
    (LabelDefinition("PER", "Person"), LabelDefinition("LOC", "Place of birth")),
)
FORMAT = SpanFormat(QUESTION)
BOTH = (("PER", "Ida"), ("LOC", "Lyon"))


def mentions(answer: str):
    parsed = FORMAT.parse(answer)
    return None if parsed is None else parsed.mentions


@pytest.mark.parametrize(
    "answer",
    [
        '{"Person": ["Ida"], "Place of birth": ["Lyon"]}',
        '{\n  "Person": [\n    "Ida"\n  ],\n  "Place of birth": [\n    "Lyon"\n  ]\n}',
        '```json\n{"Person":["Ida"],"Place of birth":["Lyon"]}\n```',
        'Here are the pieces:\n\n{"Person":["Ida"],"Place of birth":["Lyon"]}\nTell me more.',
        "{'Person': ['Ida',], 'Place of birth': ['Lyon'],}",
        '{"PERSON": ["Ida"], "place_of_birth": "Lyon"}',
        '{"PER": ["Ida"], "LOC": ["Lyon"]}',
        '{"Person": [{"text": "Ida"}], "Place of birth": [{"word": "Lyon", "score": 1}]}',
        '{"Person": ["Ida"]}\n{"Place of birth": ["Lyon"]}',
        '[{"Person": "Ida"}, {"Place of birth": "Lyon"}]',
        '{"answer": {"Person": ["Ida"], "Place of birth": ["Lyon"]}}',
        '{"entities": [{"type": "Person", "text": "Ida"}, {"type": "LOC", "text": "Lyon"}]}',
        '[{"label": "Person", "span": "Ida"}, {"label": "Place of birth", "span": "Lyon"}]',
        '[{"entity": "Ida", "type": "Person"}, {"entity": "Lyon", "type": "Place of birth"}]',
        '{"type": "Person", "text": "Ida"}\n{"type": "Place of birth", "text": "Lyon"}',
        '[["Person", "Ida"], ["Lyon", "Place of birth"]]',
        '{"Ida": "Person", "Lyon": "Place of birth"}',
    ],
)
def test_every_usual_form_of_a_list_is_read(answer):
    assert mentions(answer) == BOTH
    assert not FORMAT.parse(answer).is_partial


@pytest.mark.parametrize(
    "answer",
    [
        '{"Person": ["Ida"], "Place of birth": ["Lyon"], "Year": ["1815"]}',
        '{"Person": ["Ida", 7, null, ["x"]], "Place of birth": ["Lyon", {"at": 3}]}',
        '{"entities": [{"type": "Person", "text": "Ida"}, {"type": "Ship", "text": "Argo"}, 3, '
        '{"type": "Person"}, {"type": "LOC", "text": "Lyon"}]}',
        '{"Person": ["Ida"], "Place of birth": ["Lyon", " "]}',
    ],
)
def test_an_unknown_label_or_a_malformed_piece_costs_itself_alone(answer):
    assert mentions(answer) == BOTH


@pytest.mark.parametrize(
    "answer",
    [
        '{"Person":[],"Place of birth":[]}',
        "[]",
        "{}",
        '{"entities": []}',
        '{"Person": "none", "Place of birth": null}',
        '{"Person": ["None"], "Place of birth": ["N/A"]}',
        '{"Ship": ["Argo"]}',
        '[{"type": "Ship", "text": "Argo"}]',
    ],
)
def test_naming_nothing_is_an_answer(answer):
    assert mentions(answer) == ()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Ida, Lyon",
        "There are no such pieces.",
        '{"entities": 3}',
        '{"entities": [3, 4]}',
        '["Ida", "Lyon"]',
        '{"Person": [7]}',
        "[" * 5000,
    ],
)
def test_what_is_no_list_of_pieces_is_no_answer(answer):
    assert FORMAT.parse(answer) is None


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ('{"Person":["Ida","Eva","O', (("PER", "Ida"), ("PER", "Eva"))),
        ('{"Person":["Ida"],"Place of', (("PER", "Ida"),)),
        ('{"entities": [{"type": "Person", "text": "Ida"}, {"type": "LOC", "te', BOTH[:1]),
        ('{"entities": [{"type": "Person", "text": "Ida"}, {"type": "LOC", "text": "Lyon"}', BOTH),
    ],
)
def test_what_breaks_off_counts_up_to_its_last_whole_piece(answer, read):
    parsed = FORMAT.parse(answer)
    assert (parsed.mentions, parsed.is_partial) == (read, True)


def test_an_answer_given_twice_counts_once():
    twice = '{"Person": ["Ida", "Ida"]}\nFinal answer: {"Person": ["Ida", "Ida"]}'
    assert mentions(twice) == (("PER", "Ida"), ("PER", "Ida"))


def test_a_bare_list_belongs_to_the_only_label():
    only = SpanFormat(replace(QUESTION, labels=QUESTION.labels[:1]))
    assert only.parse('["Ida", "Eva"]').mentions == (("PER", "Ida"), ("PER", "Eva"))


def test_labels_may_be_called_like_parts_of_an_answer():
    labels = (LabelDefinition("T", "Text"), LabelDefinition("N", "Name"))
    odd = SpanFormat(replace(QUESTION, labels=labels))
    assert odd.parse('{"Text": ["a"], "Name": ["b"]}').mentions == (("T", "a"), ("N", "b"))


def test_labels_that_differ_in_case_alone_are_called_by_their_values():
    labels = (LabelDefinition("a", "X"), LabelDefinition("b", "x"))
    assert SpanFormat(replace(QUESTION, labels=labels)).names == ("a", "b")


def test_what_a_demonstration_shows_is_read_back():
    text = "Ida of \u201cNew\nYork\u201d: the city"
    answer = Answer(spans=(Span(8, 16, "LOC"), Span(0, 3, "PER"), Span(3, 5, "GONE")))
    shot = Demonstration({"post": text}, answer, "human")
    written = FORMAT.demonstration(shot)
    assert written == '{"Person":["Ida"],"Place of birth":["New York"]}'
    assert mentions(written) == (("PER", "Ida"), ("LOC", "New York"))
    assert FORMAT.demonstration(Demonstration({"other": "x"}, answer, "human")) is None


def test_the_schema_holds_as_many_pieces_as_there_are():
    schema = json.loads(FORMAT.json_schema())
    words = schema["properties"]["Person"]
    assert (words["type"], words["items"]["type"]) == ("array", "string")
    assert "maxItems" not in words
    grammar = compact_grammar(schema)
    assert grammar is not None and "char{" not in grammar  # counting is slow at every token
    assert schema["required"] == ["Person", "Place of birth"]
    assert FORMAT.form() == '{"Person":[],"Place of birth":[]}'


def test_with_many_labels_only_those_with_pieces_are_listed():
    labels = tuple(LabelDefinition(f"L{at}", f"L{at}") for at in range(MAX_REQUIRED_LABELS + 1))
    many = SpanFormat(replace(QUESTION, labels=labels))
    assert json.loads(many.json_schema())["required"] == []
    shot = Demonstration({"post": "Ida"}, Answer(spans=(Span(0, 3, "L4"),)), "human")
    assert (many.form(), many.demonstration(shot)) == ("{}", '{"L4":["Ida"]}')


@given(st.recursive(st.none() | st.text(), lambda each: st.lists(each) | st.dictionaries(
    st.sampled_from(["Person", "type", "text", "x"]), each)))  # fmt: skip
def test_reading_never_fails(value):
    FORMAT.parse(json.dumps(value))
