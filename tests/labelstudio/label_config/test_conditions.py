"""Questions that are shown for some answers alone: read, written and read back only there."""

from __future__ import annotations

import pytest

from backend.domain.decisions import is_shown, parents_first
from backend.domain.labels import Answer
from backend.domain.questions import Condition, LabelDefinition
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import TEXT, config, region_values, weak_label, write

TONE = (
    '<Choices name="tone" toName="text"><Choice value="Calm"/>'
    '<Choice value="Angry" alias="angry"/></Choices>'
)
WHY = (
    '<Choices name="why" toName="text" choice="multiple" visibleWhen="choice-selected" '
    'whenTagName="tone" whenChoiceValue="Angry,Furious">'
    '<Choice value="Price"/><Choice value="Delay"/></Choices>'
)
HOW = (
    '<View visibleWhen="choice-selected" whenTagName="why" whenChoiceValue="Delay">'
    '<Rating name="how" toName="text" maxRating="3"/></View>'
)
CHAIN = config(TEXT, TONE, WHY, HOW)
CALM, ANGRY = weak_label("tone", 0.9, 0.1), weak_label("tone", 0.1, 0.9)
DELAY, PRICE = weak_label("why", 0.2, 0.9), weak_label("why", 0.9, 0.2)
STARS = weak_label("how", 0.1, 0.1, 0.8)


def conditions(*tags: str) -> tuple[Condition, ...]:
    return reader.read_schema(config(TEXT, TONE, *tags)).questions[-1].conditions


class TestReading:
    def test_a_chain_of_conditions_is_read(self):
        schema = reader.read_schema(CHAIN)
        assert [question.conditions for question in schema.questions] == [
            (),
            (Condition("tone", ("Angry", "Furious")),),
            (Condition("why", ("Delay",)),),
        ]
        assert schema.unsupported == ()

    @pytest.mark.parametrize(
        ("attributes", "read"),
        [
            ('whenTagName="tone"', ()),
            ('visibleWhen="choice-selected"', (Condition(),)),
            ('visibleWhen="choice-selected" whenTagName="tone"', (Condition("tone"),)),
            (
                'visibleWhen="choice-unselected" whenTagName="tone" whenChoiceValue="Calm"',
                (Condition("tone", ("Calm",), is_selected=False),),
            ),
            ('whenChoiceValue="Calm"', (Condition("", ("Calm",)),)),
            ('visibleWhen="no-region-selected"', ()),
            ('visiblewhen="choice-selected" whentagname="tone"', (Condition("tone"),)),
        ],
    )
    def test_conditions_are_what_the_editor_makes_of_them(self, attributes, read):
        assert conditions(f'<Rating name="x" toName="text" {attributes}/>') == read

    def test_views_around_a_control_all_count(self):
        inner = '<View visibleWhen="choice-selected" whenTagName="why">{}</View>'
        rating = '<Rating name="x" toName="text"/>'
        both = f'<View visibleWhen="choice-selected" whenTagName="tone">{inner}</View>'
        assert conditions(WHY, both.format(rating)) == (Condition("tone"), Condition("why"))

    def test_what_depends_on_something_left_alone_is_named(self):
        xml = CHAIN.replace("</View></View>", "</View><!-- freeal: skip=tone --></View>")
        xml = xml.replace("<View>", '<View><Rating name="fine" toName="text"/>', 1)
        schema = reader.read_schema(xml)
        assert [question.name for question in schema.questions] == ["fine"]
        assert schema.unsupported == (
            'Choices "tone" (left to people: skip)',
            'Choices "why" (shown only for an answer to "tone", which is not asked)',
            'Rating "how" (shown only for an answer to "why", which is not asked)',
        )


class TestWriting:
    def test_hidden_answers_are_not_published(self):
        assert region_values(write(CHAIN, CALM, DELAY, STARS)) == [{"choices": ["Calm"]}]

    def test_shown_answers_are(self):
        assert region_values(write(CHAIN, ANGRY, DELAY, STARS)) == [
            {"choices": ["angry"]},
            {"choices": ["Delay"]},
            {"rating": 3},
        ]

    def test_a_chain_ends_where_its_link_is_hidden(self):
        assert region_values(write(CHAIN, ANGRY, PRICE, STARS))[1:] == [{"choices": ["Price"]}]

    def test_without_an_answer_above_nothing_below_is_published(self):
        schema = reader.read_schema(CHAIN)
        assert reader.write_prediction(schema, [DELAY, STARS], "v1") is None

    def test_the_score_is_that_of_the_shown_answers(self):
        unsure = weak_label("why", 0.5, 0.5)
        assert write(CHAIN, CALM, unsure).score == 0.9


class TestReadingAnswers:
    def answers(self, *regions):
        result = [{"from_name": name, "to_name": "text", "value": value} for name, value in regions]
        return read_answers(reader.read_schema(CHAIN), result, {"text": "a"})

    def test_a_hidden_multiple_choice_says_nothing(self):
        assert self.answers(("tone", {"choices": ["Calm"]})) == {"tone": Answer(("Calm",))}

    def test_a_shown_one_without_a_choice_says_none(self):
        found = self.answers(("tone", {"choices": ["angry"]}))
        assert found == {"tone": Answer(("angry",)), "why": Answer()}


def test_parents_come_first_whatever_the_configs_order():
    xml = config(TEXT, HOW, WHY, TONE)
    ordered = parents_first(reader.read_schema(xml).questions)
    assert [question.name for question in ordered] == ["tone", "why", "how"]


def test_a_circle_of_conditions_hides_all_of_it():
    one = TONE.replace("<Choices", '<Choices visibleWhen="choice-selected" whenTagName="b"', 1)
    two = one.replace('"tone"', '"b"').replace('whenTagName="b"', 'whenTagName="tone"')
    schema = reader.read_schema(config(TEXT, one, two))
    assert len(parents_first(schema.questions)) == 2
    assert not is_shown(schema.questions[0], {})
    label = LabelDefinition("Calm", "Calm")
    assert is_shown(schema.questions[0], {"b": [label]})
