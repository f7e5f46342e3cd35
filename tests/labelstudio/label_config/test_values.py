"""Ratings, numbers, comparisons and free texts: what is asked, written and read."""

from __future__ import annotations

import math

import pytest

from backend.domain.labels import Answer, Span
from backend.domain.questions import LabelDefinition, QuestionKind, TextField, TextFormat
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import (
    LABELS,
    TEXT,
    TOPICS,
    config,
    only_question,
    read,
    region_values,
    unsupported,
    weak_label,
    write,
)


class TestNumbers:
    def test_a_rating_has_its_stars_as_labels(self):
        question = only_question(TEXT, '<Rating name="stars" toName="text" maxRating="3"/>')
        assert question.kind is QuestionKind.RATING
        assert [label.value for label in question.labels] == ["1", "2", "3"]
        assert question.bounds == (1.0, 3.0)
        assert len(only_question(TEXT, '<Rating name="stars" toName="text"/>').labels) == 5

    def test_a_rating_is_written_as_a_number_and_read_back(self):
        xml = config(TEXT, '<Rating name="stars" toName="text"/>')
        prediction = write(xml, weak_label("stars", 0.1, 0.1, 0.1, 0.6, 0.1))
        assert region_values(prediction) == [{"rating": 4}]
        assert read_answers(reader.read_schema(xml), prediction.result) == {"stars": Answer(("4",))}

    @pytest.mark.parametrize("value", [0, 6, 2.5, True, "4", None, math.nan, math.inf])
    def test_a_rating_out_of_range_is_no_answer(self, value):
        xml = config(TEXT, '<Rating name="stars" toName="text"/>')
        assert read(xml, {"rating": value}, name="stars") is None

    @pytest.mark.parametrize("most", ["1", "0", "-3", "x", "101", "2.5"])
    def test_a_rating_without_a_usable_range_is_named(self, most):
        (named,) = unsupported(f'<Rating name="x" toName="text" maxRating="{most}"/>')
        assert named == f'Rating "x" (maxRating="{most}": expected 2 to 100)'

    def test_a_number_with_few_possible_values_has_labels(self):
        question = only_question(
            TEXT, '<Number name="n" toName="text" min="0" max="1" step="0.25"/>'
        )
        assert question.kind is QuestionKind.NUMBER
        assert [label.value for label in question.labels] == ["0", "0.25", "0.5", "0.75", "1"]
        assert (question.bounds, question.step) == ((0.0, 1.0), 0.25)

    @pytest.mark.parametrize(("most", "n_labels"), [("20", 21), ("21", 0)])
    def test_up_to_21_values_are_labels(self, most, n_labels):
        question = only_question(TEXT, f'<Number name="n" toName="text" min="0" max="{most}"/>')
        assert len(question.labels) == n_labels
        assert question.bounds == (0.0, float(most))

    def test_a_number_with_labels_is_written_and_read_back(self):
        xml = config(TEXT, '<Number name="n" toName="text" min="0" max="1" step="0.5"/>')
        for index, value in enumerate([0, 0.5, 1]):
            prediction = write(xml, weak_label("n", *(float(index == i) for i in range(3))))
            assert region_values(prediction) == [{"number": value}]
            answer = read_answers(reader.read_schema(xml), prediction.result)
            assert answer == {"n": Answer((str(value),))}

    def test_a_wide_number_is_a_text_within_its_bounds(self):
        xml = config(TEXT, '<Number name="n" toName="text" min="0" max="100"/>')
        prediction = write(xml, weak_label("n", text=" 42.0 ", confidence=0.8))
        assert region_values(prediction) == [{"number": 42}]
        assert prediction.score == 0.8
        assert read_answers(reader.read_schema(xml), prediction.result) == {"n": Answer(text="42")}

    @pytest.mark.parametrize("text", ["101", "-1", "many", "", "nan", "inf", "1e999"])
    def test_a_number_that_cannot_be_is_left_out(self, text):
        schema = reader.read_schema(
            config(TEXT, '<Number name="n" toName="text" min="0" max="100"/>')
        )
        assert reader.write_prediction(schema, [weak_label("n", text=text)], "v1") is None

    def test_a_number_is_put_on_its_step_counted_from_the_least(self):
        xml = config(TEXT, '<Number name="n" toName="text" min="1" max="201" step="5"/>')
        assert region_values(write(xml, weak_label("n", text="47"))) == [{"number": 46}]
        without = config(TEXT, '<Number name="n" toName="text" step="10"/>')
        assert region_values(write(without, weak_label("n", text="-47"))) == [{"number": -50}]

    def test_a_number_without_bounds_takes_any(self):
        question = only_question(TEXT, '<Number name="n" toName="text" max="3"/>')
        assert (question.bounds, question.labels) == ((-math.inf, 3.0), ())
        xml = config(TEXT, '<Number name="n" toName="text"/>')
        assert region_values(write(xml, weak_label("n", text="-2.5"))) == [{"number": -2.5}]

    @pytest.mark.parametrize(
        ("attributes", "why"),
        [
            ('min="5" max="5"', 'min="5" max="5": fewer than two possible values'),
            ('min="5" max="1"', 'min="5" max="1": fewer than two possible values'),
            ('min="low"', 'min="low": expected a number'),
            ('step="0"', 'step="0": expected more than 0'),
        ],
    )
    def test_a_number_that_nobody_can_give_is_named(self, attributes, why):
        (named,) = unsupported(f'<Number name="x" toName="text" {attributes}/>')
        assert named == f'Number "x" ({why})'


class TestFreeText:
    xml = config(TEXT, '<TextArea name="summary" toName="text"/>')

    def test_it_has_no_labels(self):
        question = only_question(TEXT, '<TextArea name="summary" toName="text"/>')
        assert (question.kind, question.labels) == (QuestionKind.FREE_TEXT, ())

    def test_a_text_is_written_and_read_back(self):
        prediction = write(self.xml, weak_label("summary", text="In short.", confidence=0.4))
        assert region_values(prediction) == [{"text": ["In short."]}]
        assert prediction.score == 0.4
        assert read_answers(reader.read_schema(self.xml), prediction.result) == {
            "summary": Answer(text="In short.")
        }

    def test_several_submissions_are_lines_and_blank_ones_are_none(self):
        answer = read(self.xml, {"text": ["a", " "]}, {"text": "b"}, name="summary")
        assert answer == Answer(text="a\nb")
        assert read(self.xml, {"text": [" ", 7]}, name="summary") is None

    def test_a_blank_text_is_no_region(self):
        assert write(self.xml, weak_label("summary", text=" ")).result == ()

    def test_a_text_that_comes_with_the_task_is_named(self):
        (named,) = unsupported('<TextArea name="x" toName="text" value="$draft"/>')
        assert named == 'TextArea "x" (value="$draft": it comes with each task)'


class TestSeveralTexts:
    pair = (
        '<Text name="premise" value="$a"/>',
        '<HyperText name="claim" value="$b"/>',
        '<Image name="image" value="$i"/><!-- freeal: ignore=image -->',
    )
    choice = '<Choices name="q" toName="claim"><Choice value="Yes"/><Choice value="No"/></Choices>'

    def test_a_question_reads_its_own_text_first_and_then_the_others(self):
        question = only_question(*self.pair, self.choice)
        assert [field.name for field in question.fields] == ["claim", "premise"]
        assert question.field == TextField("claim", "b", format=TextFormat.HTML)

    def test_pairwise_asks_for_left_or_right_by_the_texts_names(self):
        xml = config(*self.pair, '<Pairwise name="pw" toName="claim,premise"/>')
        (question,) = reader.read_schema(xml).questions
        assert question.kind is QuestionKind.PAIRWISE
        assert [field.name for field in question.fields] == ["claim", "premise"]
        assert question.labels == (
            LabelDefinition("left", "claim"),
            LabelDefinition("right", "premise"),
        )
        prediction = write(xml, weak_label("pw", 0.3, 0.7))
        assert region_values(prediction) == [{"selected": "right"}]
        assert prediction.result[0]["to_name"] == "claim"
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "pw": Answer(("right",))
        }

    def test_what_the_editor_stores_for_pairwise_is_read(self):
        xml = config(*self.pair, '<Pairwise name="pw" toName="claim,premise"/>')
        stored = {"from_name": "pw", "to_name": "pw", "value": {"selected": "left"}}
        assert read_answers(reader.read_schema(xml), [stored]) == {"pw": Answer(("left",))}
        assert read(xml, {"selected": "none"}, name="pw") is None

    @pytest.mark.parametrize(
        ("tag", "why"),
        [
            ('<Pairwise name="x" toName="text"/>', "not over two tags"),
            (
                '<Image name="i" value="i.png"/><Pairwise name="x" toName="text,i"/>',
                "over Image",
            ),
            (
                '<Text name="b" value="$b"/><Rating name="x" toName="text,b"/>',
                "over several tags",
            ),
        ],
    )
    def test_wrong_numbers_and_kinds_of_texts_are_named(self, tag, why):
        (named,) = unsupported(tag)
        assert named.endswith(f"({why})")

    def test_each_control_has_its_own_result(self):
        xml = config(TEXT, TOPICS, LABELS, '<Rating name="stars" toName="text" maxRating="2"/>')
        labels = [
            weak_label("topics", 0.9, 0.1, 0.1),
            weak_label("ner", spans=(Span(0, 3, "PER", 0.8),)),
            weak_label("stars", 0.25, 0.75),
        ]
        prediction = write(xml, *labels, data={"text": "Ann sings."})
        assert [(r["from_name"], r["type"]) for r in prediction.result] == [
            ("topics", "choices"),
            ("ner", "labels"),
            ("stars", "rating"),
        ]
        assert prediction.score == 0.75
        assert len({region["id"] for region in prediction.result}) == 3

    def test_an_answer_of_another_kind_is_left_out(self):
        schema = reader.read_schema(config(TEXT, TOPICS, LABELS))
        wrong = [
            weak_label("ner", 0.5, 0.5),
            weak_label("topics", spans=()),
            weak_label("topics", text="s"),
        ]
        assert reader.write_prediction(schema, wrong, "v1") is None
