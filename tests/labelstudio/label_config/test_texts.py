"""Texts as annotators see them: headers from the task, templates, chats, tables and lists."""

from __future__ import annotations

from typing import Any

import pytest

from backend.domain.labels import AbstentionReason, Example
from backend.domain.projects import Task
from backend.errors import UnsupportedLabelConfig
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import TEXT, config

KIND = '<Choices name="kind" toName="text"><Choice value="Fact"/><Choice value="Claim"/></Choices>'


def read(data: dict[str, Any], *tags: str) -> Example:
    return reader.read_example(reader.read_schema(config(*tags)), Task(1, data))


def text_over(value: str, data: dict[str, Any], tag: str = "Text", extra: str = "") -> str | None:
    return read(data, f'<{tag} name="text" value="{value}" {extra}/>', KIND).texts.get("text")


class TestHeaders:
    def test_a_header_with_a_field_is_a_text_of_its_own(self):
        header = '<Header value="$question"/>'
        one = read({"text": "It rains.", "question": "Is it wet?"}, header, TEXT, KIND)
        assert one.texts == {"text": "It rains.", "question": "Is it wet?"}

    def test_the_words_around_the_field_stay(self):
        one = read({"text": "a", "who": "Ann"}, '<Header value="Said by $who"/>', TEXT, KIND)
        assert one.texts["who"] == "Said by Ann"

    def test_a_header_that_repeats_the_text_is_not_read_twice(self):
        assert read({"text": "a"}, '<Header value="$text"/>', TEXT, KIND).texts == {"text": "a"}

    def test_a_header_of_the_same_name_as_a_text_takes_none_of_it(self):
        one = read({"text": "a", "t": "b"}, '<Header value="by $text, $t"/>', TEXT, KIND)
        assert sorted(one.texts.values()) == ["a", "by a, b"]

    def test_a_meaning_that_comes_with_the_task_stands_beside_the_text(self):
        choices = KIND.replace('value="Fact"', 'value="Fact" hint="$meaning"')
        one = read({"text": "a", "meaning": "it can be checked"}, TEXT, choices)
        assert one.texts["meaning of Fact"] == "it can be checked"

    def test_headers_above_a_control_are_its_own(self):
        stars = '<Rating name="stars" toName="text"/>'
        headers = [f'<Header value="{name}"/>' for name in ("All", "Kind", "Stars")]
        schema = reader.read_schema(config(headers[0], TEXT, headers[1], KIND, headers[2], stars))
        assert schema.headers == ("All",)
        assert [question.headers for question in schema.questions] == [("Kind",), ("Stars",)]

    def test_one_question_has_all_headers_however_many(self):
        headers = "".join(f'<Header value="Rule {n}"/>' for n in range(9))
        assert len(reader.read_schema(config(headers, TEXT, KIND)).headers) == 9

    def test_a_text_that_is_the_same_in_every_task_is_an_instruction(self):
        fixed = '<Text name="rules" value="Read the whole text before you answer"/>'
        tag = '<Text name="likes" value="12 likes"/>'
        schema = reader.read_schema(config(fixed, tag, TEXT, KIND))
        assert schema.headers == ("Read the whole text before you answer",)


class TestTemplates:
    def test_several_fields_are_read_as_they_are_shown(self):
        data = {"title": "Goal", "body": "It was late."}
        assert text_over("$title: $body", data) == "Goal: It was late."
        assert text_over("Said: $body", data) == "Said: It was late."
        assert text_over("$body ", data) == "It was late."

    def test_a_field_that_is_not_there_is_blank(self):
        assert text_over("$title: $body", {"body": "b"}) == ": b"
        assert text_over("$title: $body", {}) is None

    @pytest.mark.parametrize(
        "key", ["my field", "текст", "本文", "a.b", "naïve-ness", "Body (short)"]
    )
    def test_fields_may_have_any_name(self, key):
        assert text_over(f"${key}", {key: "found"}) == "found"

    def test_a_field_and_a_word_are_told_from_a_field_with_a_blank(self):
        assert text_over("$my field", {"my": "one"}) == "one field"

    def test_a_page_may_be_a_template(self):
        assert text_over("&lt;b&gt;$a&lt;/b&gt; $b", {"a": "x", "b": "y"}, "HyperText") == "x y"

    def test_spans_are_written_over_one_field_alone(self):
        labels = '<Labels name="l" toName="text"><Label value="X"/></Labels>'
        for value, is_read in (("$a", True), ("$a ", True), ("$a: $b", False), (" $a", False)):
            xml = config(f'<Text name="text" value="{value}"/>', labels)
            if is_read:
                assert reader.read_schema(xml).questions
            else:
                with pytest.raises(UnsupportedLabelConfig, match='not one "\\$field"'):
                    reader.read_schema(xml)


class TestStructures:
    def test_a_chat_is_a_dialogue(self):
        messages = [
            {"role": "user", "content": "My parcel is lost."},
            {"role": "assistant", "content": "A new one is\non its way."},
        ]
        shown = text_over("$talk", {"talk": messages}, "Chat")
        assert shown == "user: My parcel is lost.\nassistant: A new one is on its way."

    def test_a_chat_without_messages_has_no_text(self):
        one = read({"talk": []}, '<Chat name="text" value="$talk"/>', KIND)
        assert one.missing["text"].reason is AbstentionReason.NO_TEXT

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ({"b": 2, "A": "x", "c": {"d": 1}}, 'A: x\nb: 2\nc: {"d": 1}'),
            ([{"a": 1, "b": "x"}, {"b": "y"}], "a: 1; b: x\nb: y"),
            (["x", 2], "x\n2"),
            ('{"a": "x"}', "a: x"),
            ("n,m\n1,x\n2,y", "n: 1; m: x\nn: 2; m: y"),
        ],
    )
    def test_a_table_is_read_as_lines(self, value, shown):
        assert text_over("$rows", {"rows": value}, "Table") == shown

    def test_a_list_is_read_as_lines(self):
        items = [
            {"id": 1, "title": "First", "body": "one"},
            {"id": "b", "html": "<p>two <b>words</b></p>"},
        ]
        assert text_over("$items", {"items": items}, "List") == "First: one\ntwo words"

    @pytest.mark.parametrize("tag", ["Text", "Table", "List"])
    def test_what_cannot_be_read_is_said(self, tag):
        value = {"a": 1} if tag != "Table" else 5
        one = read({"x": value}, f'<{tag} name="text" value="$x"/>', KIND)
        assert one.missing["text"].reason is AbstentionReason.UNSUITABLE


def test_a_question_with_a_text_that_is_none_is_not_asked():
    document = '<Text name="document" value="$document"/>'
    schema = reader.read_schema(config(document, TEXT, KIND))
    (question,) = schema.questions
    one = reader.read_example(schema, Task(1, {"text": "a", "document": ["b", "c"]}))
    why = one.why_not_asked(question)
    assert why is not None
    assert why.detail == "'document' holds a list, not a text"
    assert one.text_of(question) == ""
    without = reader.read_example(schema, Task(1, {"text": "a"}))
    assert without.why_not_asked(question) is None
