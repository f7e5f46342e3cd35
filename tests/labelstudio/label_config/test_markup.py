"""Configs as people write them: any case, comments with anything in them, notes to the backend."""

from __future__ import annotations

import pytest

from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config import LabelConfigReader
from tests.labelstudio.choices_config import no_fetch, reader
from tests.labelstudio.label_config.cases import TEXT, config

TOPIC = '<Choices name="topic" toName="text"><Choice value="Work"/><Choice value="Home"/></Choices>'
NOTES = '<TextArea name="notes" toName="text"/>'


def names(xml: str, **settings) -> list[str]:
    schema = LabelConfigReader(no_fetch, **settings).read_schema(xml)
    return [question.name for question in schema.questions]


@pytest.mark.parametrize(
    "comment",
    [
        '<!-- { "data": {"text": "<!DOCTYPE html><html></html>"} } -->',
        "<!-- <!DOCTYPE html> -->",
        "<![CDATA[<!DOCTYPE html>]]>",
    ],
)
def test_a_page_in_a_comment_declares_nothing(comment):
    assert names(config(TEXT, TOPIC, comment)) == ["topic"]


@pytest.mark.parametrize("declared", ["<!DOCTYPE View>", '<!DOCTYPE View [<!ENTITY a "b">]>'])
def test_a_declaration_is_refused(declared):
    with pytest.raises(UnsupportedLabelConfig, match="document type declaration"):
        reader.read_schema(f"<?xml version='1.0'?><!-- c -->{declared}{config(TEXT, TOPIC)}")


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_tags_and_attributes_may_have_any_case(change):
    xml = (
        '<View><Text name="a" value="$a"/><Choices name="b" toName="a" choice="single">'
        '<Choice value="c" hint="d"/><Choice value="e" alias="f"/></Choices>'
        '<Rating name="r" toName="a" maxRating="3"/></View>'
    )
    for word in ("View", "Text", "Choices", "Choice", "Rating", "toName", "maxRating", "hint"):
        for around in ("<{} ", "<{}>", "</{}>", " {}="):
            xml = xml.replace(around.format(word), around.format(change(word)))
    first, second = reader.read_schema(xml).questions
    assert [(label.value, label.name, label.hint) for label in first.labels] == [
        ("c", "c", "d"),
        ("f", "e", None),
    ]
    assert len(second.labels) == 3


class TestNotes:
    def test_a_control_is_left_to_people_by_a_comment(self):
        xml = config(TEXT, TOPIC, '<Rating name="my stars" toName="text"/>')
        noted = xml.replace("</View>", "<!-- freeal: skip=my stars, other --></View>")
        assert names(xml) == ["topic", "my stars"]
        schema = reader.read_schema(noted)
        assert [question.name for question in schema.questions] == ["topic"]
        assert schema.unsupported == ('Rating "my stars" (left to people: skip)',)

    def test_a_control_is_left_to_people_by_a_setting(self):
        xml = config(TEXT, TOPIC, '<Rating name="Stars" toName="text"/>')
        assert names(xml, skip=["stars"]) == ["topic"]

    @pytest.mark.parametrize(
        "name", ["comments", "comment", "Notes", "reviewer_remarks", "myComment", "Kommentar"]
    )
    def test_a_box_for_remarks_is_left_to_people(self, name):
        xml = config(TEXT, TOPIC, f'<TextArea name="{name}" toName="text"/>')
        schema = reader.read_schema(xml)
        assert [question.name for question in schema.questions] == ["topic"]
        assert "left to people" in schema.unsupported[0]
        assert names(xml.replace("</View>", f"<!--freeal: ask={name}--></View>")) == ["topic", name]

    @pytest.mark.parametrize("name", ["summary", "commentary", "footnote", "annotation"])
    def test_other_boxes_are_filled(self, name):
        assert names(config(TEXT, f'<TextArea name="{name}" toName="text"/>')) == [name]

    def test_a_box_that_has_to_be_filled_is_no_box_for_remarks(self):
        required = NOTES.replace("/>", ' required="true"/>')
        assert names(config(TEXT, required)) == ["notes"]

    def test_what_annotators_do_not_see_is_not_filled(self):
        hidden = f'<View style="color: red; display: none">{NOTES.replace("notes", "book")}</View>'
        (named,) = reader.read_schema(config(TEXT, TOPIC, hidden)).unsupported
        assert named == 'TextArea "book" (hidden from annotators: display:none)'

    def test_how_sure_annotators_are_is_theirs(self):
        sure = TOPIC.replace('"topic"', '"labeling_confidence"')
        (named,) = reader.read_schema(config(TEXT, TOPIC, sure)).unsupported
        assert "how sure they are themselves" in named

    def test_a_picture_beside_the_text_is_not_passed_over(self):
        picture = '<Image name="photo" value="$photo"/>'
        with pytest.raises(UnsupportedLabelConfig, match='beside Image "photo", which is not read'):
            reader.read_schema(config(TEXT, picture, TOPIC))
        assert names(config(TEXT, picture, TOPIC, "<!-- freeal: ignore=photo -->")) == ["topic"]

    def test_a_picture_that_is_the_same_everywhere_is_decoration(self):
        assert names(config(TEXT, '<Image name="logo" value="/static/l.png"/>', TOPIC)) == ["topic"]

    def test_a_recording_beside_its_transcript_is_not_needed(self):
        xml = config(
            '<Audio name="sound" value="$sound" sync="talk"/>',
            '<Paragraphs name="talk" value="$talk" sync="sound"/>',
            TOPIC.replace('"text"', '"talk"'),
        )
        assert names(xml) == ["topic"]
