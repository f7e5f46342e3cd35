"""Answers about regions: of spans, of a chat's messages, and relations between spans."""

from __future__ import annotations

import json

import pytest

from backend.domain.labels import Answer, Span
from backend.domain.questions import QuestionKind
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import TEXT, config, weak_label, write

SPANS = '<Labels name="drug" toName="text"><Label value="Drug"/><Label value="Dose"/></Labels>'
SURE = (
    '<Choices name="sure" toName="text" perRegion="true">'
    '<Choice value="yes"/><Choice value="no"/></Choices>'
)
WORDS = "Take 20 mg of aspirin."
DATA = {"text": WORDS}
FOUND = weak_label("drug", spans=(Span(5, 10, "Dose", 0.9), Span(14, 21, "Drug", 0.8)))


def region_question(*tags: str):
    schema = reader.read_schema(config(TEXT, SPANS, *tags))
    return schema.questions[-1], schema.unsupported


class TestSpans:
    def test_a_control_per_region_is_asked_about_each_span(self):
        question, unsupported = region_question(SURE)
        assert question.kind is QuestionKind.REGION
        assert (question.region_of, unsupported) == ("drug", ())
        assert question.inner is not None
        assert question.inner.kind is QuestionKind.SINGLE_CHOICE

    def test_it_may_be_about_some_labels_alone(self):
        view = f'<View visibleWhen="region-selected" whenLabelValue="Dose">{SURE}</View>'
        own = SURE.replace('perRegion="true"', 'perRegion="true" whenLabelValue="Dose"')
        assert region_question(view)[0].only == ("Dose",)
        assert region_question(own)[0].only == ("Dose",)

    def test_its_answers_hang_on_the_spans_that_are_written(self):
        said = weak_label("sure", spans=(Span(14, 21, "no", 0.7), Span(0, 4, "yes", 0.7)))
        prediction = write(config(TEXT, SPANS, SURE), FOUND, said, data=DATA)
        dose, drug, sure = prediction.result
        assert sure["id"] == drug["id"] != dose["id"]
        assert sure["value"] == {"start": 14, "end": 21, "text": "aspirin", "choices": ["no"]}
        assert (sure["from_name"], sure["to_name"], sure["type"]) == ("sure", "text", "choices")

    @pytest.mark.parametrize(
        ("tag", "label", "value"),
        [
            ('<Rating name="x" toName="text" perRegion="true"/>', "4", {"rating": 4}),
            ('<Number name="x" toName="text" perRegion="true"/>', "20", {"number": 20}),
            ('<TextArea name="x" toName="text" perRegion="true"/>', "so", {"text": ["so"]}),
            ('<DateTime name="x" toName="text" only="date" perRegion="true"/>', "2021-03-04",
             {"datetime": "2021-03-04"}),
        ],
    )  # fmt: skip
    def test_any_kind_of_answer_may_be_about_a_region(self, tag, label, value):
        said = weak_label("x", spans=(Span(14, 21, label),))
        (region,) = write(config(TEXT, SPANS, tag), FOUND, said, data=DATA).result[2:]
        assert value.items() <= region["value"].items()

    def test_several_labels_of_a_region_are_one_answer(self):
        several = SURE.replace("<Choices", '<Choices choice="multiple"')
        said = weak_label("sure", spans=(Span(14, 21, "no"), Span(14, 21, "yes")))
        (region,) = write(config(TEXT, SPANS, several), FOUND, said, data=DATA).result[2:]
        assert region["value"]["choices"] == ["yes", "no"]

    def test_what_people_say_about_regions_is_read(self):
        said = weak_label("sure", spans=(Span(14, 21, "no", 0.7),))
        xml = config(TEXT, SPANS, SURE)
        result = write(xml, FOUND, said, data=DATA).result
        answers = read_answers(reader.read_schema(xml), result, DATA)
        assert answers["sure"] == Answer(spans=(Span(14, 21, "no"),))
        assert len(answers["drug"].spans) == 2

    def test_without_spans_in_the_text_it_is_named(self):
        named = reader.read_schema(config(TEXT, SURE, '<Rating name="r" toName="text"/>'))
        assert named.unsupported == (
            'Choices "sure" (perRegion="true", and no regions are marked in its text)',
        )


CHAT = '<Chat name="chat" value="$talk"/>'
TALK = [
    {"role": "user", "content": "My parcel is lost."},
    {"role": "assistant", "content": "Bad luck."},
]
TONE = SURE.replace("sure", "tone").replace('"text"', '"chat"')


class TestMessages:
    def test_messages_are_labeled_by_their_roles(self):
        view = f'<View visibleWhen="region-selected" whenRole="assistant">{TONE}</View>'
        (question,) = reader.read_schema(config(CHAT, view)).questions
        assert (question.region_of, question.only) == ("", ("assistant",))

    def test_the_labels_hang_on_the_messages(self):
        text = "user: My parcel is lost.\nassistant: Bad luck."
        start = text.index("Bad")
        xml, data = config(CHAT, TONE), {"talk": TALK}
        said = weak_label("tone", spans=(Span(start, len(text), "no", 0.7),))
        message, tone = write(xml, said, data=data).result
        assert message["value"] == {"chatmessage": TALK[1]}
        assert message["type"] == "chatmessage"
        assert tone["id"] == message["id"]
        assert tone["value"] == {"choices": ["no"]}
        answers = read_answers(reader.read_schema(xml), [message, tone], data)
        assert answers["tone"] == Answer(spans=(Span(start, len(text), "no"),))


RELATIONS = '<Relations><Relation value="dose of"/><Relation value="dose of"/></Relations>'


class TestRelations:
    def test_they_connect_the_spans_that_are_written(self):
        xml = config(RELATIONS, TEXT, SPANS)
        link = weak_label("relations", text=json.dumps([[5, 10, 14, 21, "dose of"]]))
        dose, drug, relation = write(xml, FOUND, link, data=DATA).result
        assert relation["type"] == "relation"
        assert (relation["from_id"], relation["to_id"]) == (dose["id"], drug["id"])
        assert (relation["labels"], relation["direction"]) == (["dose of"], "right")
        answers = read_answers(reader.read_schema(xml), [dose, drug, relation], DATA)
        assert json.loads(answers["relations"].text or "") == [[5, 10, 14, 21, "dose of"]]

    @pytest.mark.parametrize("text", ["[]", '[[1, 2, 3, 4, "dose of"]]', '[[5,10,14,21,"else"]]'])
    def test_what_connects_nothing_is_left_out(self, text):
        xml = config(RELATIONS, TEXT, SPANS)
        assert len(write(xml, FOUND, weak_label("relations", text=text), data=DATA).result) == 2
