"""Choices that come with a task, rankings of its items, and dates: read, written, read back."""

from __future__ import annotations

import json

import pytest

from backend.domain.labels import Answer
from backend.domain.projects import Task
from backend.domain.questions import QuestionKind
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import (
    TEXT,
    config,
    only_question,
    read,
    region_values,
    unsupported,
    weak_label,
    write,
)

OWN = (
    '<Choices name="answer" toName="text"><Choice value="$a"/><Choice value="$b" alias="B"/>'
    '<Choice value="Neither"/></Choices>'
)
LISTED = '<Choices name="answer" toName="text" value="$options" choice="multiple"/>'
DATA = {"text": "Capital?", "a": "Paris", "b": "Lyon"}


def own_labels(xml: str, data: dict) -> list[tuple[str, str]]:
    schema = reader.read_schema(xml)
    example = reader.read_example(schema, Task(7, data))
    return [(label.value, label.name) for label in example.options[schema.questions[0].name]]


class TestChoices:
    def test_fields_in_choices_are_filled_in(self):
        assert only_question(TEXT, OWN).kind is QuestionKind.TASK_CHOICE
        assert own_labels(config(TEXT, OWN), DATA) == [
            ("Paris", "Paris"),
            ("B", "Lyon"),
            ("Neither", "Neither"),
        ]

    def test_a_field_that_is_not_there_is_no_choice(self):
        assert own_labels(config(TEXT, OWN), {"text": "x", "b": "Lyon"})[0] == ("B", "Lyon")

    def test_the_chosen_one_is_written_and_read_back(self):
        xml = config(TEXT, OWN)
        prediction = write(xml, weak_label("answer", text="B"), data=DATA)
        assert region_values(prediction) == [{"choices": ["B"]}]
        assert read(xml, {"choices": ["Paris"]}, name="answer", data=DATA) == Answer(text="Paris")

    def test_what_the_task_does_not_bring_is_not_written(self):
        schema = reader.read_schema(config(TEXT, OWN))
        label = weak_label("answer", text="Rome")
        assert reader.write_prediction(schema, [label], "v1", Task(7, DATA)) is None

    def test_a_tasks_list_of_choices_is_read(self):
        options = [
            {"value": "one", "hint": "h"},
            {"value": "two", "alias": "2"},
            {"value": "three", "html": "<b>Three</b> things"},
            {"value": "picture", "html": "<img src='x.png'/>"},
            "no choice",
        ]
        assert own_labels(config(TEXT, LISTED), {"text": "x", "options": options}) == [
            ("one", "one"),
            ("2", "two"),
            ("three", "Three things"),
        ]

    def test_nested_choices_of_a_task_are_stored_as_paths(self):
        xml = config(TEXT, LISTED.replace("/>", ' allowNested="true"/>'))
        options = [{"value": "a", "children": [{"value": "b"}, {"value": "c"}]}, {"value": "d"}]
        data = {"text": "x", "options": options}
        assert own_labels(xml, data) == [("a / b", "b"), ("a / c", "c"), ("d", "d")]
        prediction = write(xml, weak_label("answer", text="a / c\nd"), data=data)
        assert region_values(prediction) == [{"choices": [["a", "c"], ["d"]]}]
        read_back = read(xml, {"choices": [["a", "c"], ["d"]]}, name="answer", data=data)
        assert read_back == Answer(text="a / c\nd")

    def test_none_of_them_is_an_answer_where_several_may_hold(self):
        data = {"text": "x", "options": [{"value": "one"}]}
        assert write(config(TEXT, LISTED), weak_label("answer", text=""), data=data).result == ()

    def test_a_second_level_may_depend_on_them(self):
        second = (
            '<Rating name="stars" toName="text" visibleWhen="choice-selected" '
            'whenTagName="answer" whenChoiceValue="Paris"/>'
        )
        xml = config(TEXT, OWN, second)
        stars = weak_label("stars", *(0.1,) * 4, 0.6)
        paris, lyon = (weak_label("answer", text=one) for one in ("Paris", "B"))
        assert len(write(xml, paris, stars, data=DATA).result) == 2
        assert len(write(xml, lyon, stars, data=DATA).result) == 1

    @pytest.mark.parametrize("tag", ["Labels", "HyperTextLabels", "Taxonomy"])
    def test_other_tags_whose_labels_come_with_a_task_are_named(self, tag):
        (named,) = unsupported(
            f'<HyperText name="h" value="$h"/><{tag} name="x" toName="h" value="$labels"/>'
        )
        assert named == f'{tag} "x" (value="$labels": it comes with each task)'


LIST = '<List name="items" value="$items"/>'
RANKER = '<Ranker name="rank" toName="items"/>'
BUCKETS = (
    '<Ranker name="rank" toName="items"><Bucket name="good" title="Good ones"/>'
    '<Bucket name="bad" title="Bad ones"{}/></Ranker>'
)
ITEMS = {"items": [{"id": 1, "title": "A"}, {"id": "b", "title": "B", "body": "c"}]}


class TestRankings:
    def test_items_are_what_is_ranked(self):
        xml = config(LIST, RANKER)
        assert own_labels(xml, ITEMS) == [("1", "A"), ("b", "B: c")]
        question = only_question(LIST, RANKER)
        assert question.kind is QuestionKind.RANKING
        assert question.inner is not None
        assert len(question.inner.labels) == 5

    def test_an_order_is_written_whole_and_read_back(self):
        xml = config(LIST, RANKER)
        label = weak_label("rank", text='{"rank": ["b", "gone"]}')
        (value,) = region_values(write(xml, label, data=ITEMS))
        assert value == {"ranker": {"rank": ["b", "1"]}}
        answer = read(xml, value, name="rank", data=ITEMS)
        assert answer is not None
        assert json.loads(answer.text or "") == {"rank": ["b", "1"]}

    def test_items_may_be_in_no_bucket(self):
        question = only_question(LIST, BUCKETS.format(""))
        assert question.inner is not None
        assert [label.name for label in question.inner.labels] == [
            "Good ones",
            "Bad ones",
            "none of these",
        ]
        label = weak_label("rank", text='{"good": ["b"], "_": ["1"]}')
        (value,) = region_values(write(config(LIST, BUCKETS.format("")), label, data=ITEMS))
        assert value == {"ranker": {"good": ["b"], "bad": []}}

    def test_with_a_default_bucket_all_are_in_one(self):
        question = only_question(LIST, BUCKETS.format(' default="true"'))
        assert question.inner is not None
        assert len(question.inner.labels) == 2

    def test_a_ranker_over_something_else_is_named(self):
        (named,) = unsupported('<Ranker name="x" toName="text"/>')
        assert named == 'Ranker "x" (over Text)'


class TestDates:
    @pytest.mark.parametrize(
        ("attributes", "stored"),
        [
            ("", "%Y-%m-%dT%H:%M"),
            ('only="date"', "%Y-%m-%d"),
            ('only="time"', "%H:%M"),
            ('only="date,time"', "%Y-%m-%dT%H:%M"),
            ('only="date" format="%d.%m.%Y"', "%d.%m.%Y"),
        ],
    )
    def test_the_format_is_the_editors(self, attributes, stored):
        question = only_question(TEXT, f'<DateTime name="day" toName="text" {attributes}/>')
        assert (question.kind, question.date_format) == (QuestionKind.DATE_TIME, stored)

    def test_a_date_is_written_and_read_back(self):
        xml = config(TEXT, '<DateTime name="day" toName="text" only="date"/>')
        label = weak_label("day", text="2021-03-04")
        assert region_values(write(xml, label)) == [{"datetime": "2021-03-04"}]
        assert read(xml, {"datetime": "2021-03-04"}, name="day") == Answer(text="2021-03-04")

    def test_what_is_no_date_of_the_format_is_not_written(self):
        schema = reader.read_schema(config(TEXT, '<DateTime name="day" toName="text"/>'))
        label = weak_label("day", text="yesterday")
        assert reader.write_prediction(schema, [label], "v1") is None

    def test_a_part_of_a_date_is_named(self):
        (named,) = unsupported('<DateTime name="x" toName="text" only="year"/>')
        assert named == 'DateTime "x" (only="year": a part of a date)'
