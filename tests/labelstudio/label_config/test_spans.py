"""Spans: exact to the character in plain texts, HTML and dialogues, there and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Answer, Span, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import LabelDefinition, QuestionKind, TextFormat
from backend.errors import InvalidRequest
from backend.labelstudio.label_config import LabelConfigReader, read_answers
from backend.labelstudio.label_config.offsets import read_dialogue, read_html

ENTITIES = '<Label value="Person" alias="PER" hint="a human being"/><Label value="Place"/>'
PLAIN = f'<View><Text name="t" value="$t"/><Labels name="ner" toName="t">{ENTITIES}</Labels></View>'
HYPER = PLAIN.replace("<Text", "<HyperText")
HYPER_LABELS = HYPER.replace("Labels", "HyperTextLabels")
DIALOGUE = (
    '<View><Paragraphs name="t" value="$t" nameKey="who" textKey="said"/>'
    f'<ParagraphLabels name="ner" toName="t">{ENTITIES}</ParagraphLabels></View>'
)
TURNS = [{"who": "Ann", "said": "I saw 🐘 Bob\nin Rome."}, {"who": "", "said": "Oh, Bob!"}]


def no_fetch(url: str, task_id: int) -> str:
    raise AssertionError(f"fetched {url}")


reader = LabelConfigReader(no_fetch)


def text_of(xml: str, value: Any) -> str:
    return reader.read_example(reader.read_schema(xml), Task(1, {"t": value})).texts["t"]


def write(xml: str, value: Any, *spans: Span, confidence: float | None = None) -> Prediction:
    label = WeakLabel(1, "ner", "llm", "p1", spans=spans, confidence=confidence)
    prediction = reader.write_prediction(
        reader.read_schema(xml), [label], "v1", Task(1, {"t": value})
    )
    assert prediction is not None
    assert reader.errors(xml, prediction) == []
    return prediction


def read(xml: str, value: Any, *values: dict[str, Any]) -> Answer | None:
    result = [{"from_name": "ner", "to_name": "t", "value": v} for v in values]
    return read_answers(reader.read_schema(xml), result, {"t": value}).get("ner")


def span_of(text: str, piece: str, label: str = "PER", **kwargs: Any) -> Span:
    start = text.index(piece)
    return Span(start, start + len(piece), label, **kwargs)


class TestPlain:
    def test_labels_are_spans_with_alias_and_hint(self):
        (question,) = reader.read_schema(PLAIN).questions
        assert question.kind is QuestionKind.SPANS
        assert question.labels == (
            LabelDefinition("PER", "Person", "a human being"),
            LabelDefinition("Place", "Place"),
        )

    def test_a_span_is_written_with_its_text_and_read_back(self):
        text = "🐘 Ann went\r\nto Rome."
        spans = (span_of(text, "Ann", probability=0.9), span_of(text, "Rome", "Place"))
        prediction = write(PLAIN, text, *spans)
        first, second = prediction.result
        assert first["value"] == {"start": 2, "end": 5, "text": "Ann", "labels": ["PER"]}
        assert (first["type"], first["score"], second["value"]["text"]) == ("labels", 0.9, "Rome")
        assert first["id"] != second["id"]
        assert prediction.score == 0.9
        assert read(PLAIN, text, first["value"], second["value"]) == Answer(
            spans=(Span(2, 5, "PER"), span_of(text, "Rome", "Place"))
        )

    def test_spans_may_overlap(self):
        spans = (Span(0, 4, "PER"), Span(0, 4, "Place"), Span(2, 9, "PER"))
        prediction = write(PLAIN, "New York Times", *spans)
        values = [region["value"] for region in prediction.result]
        assert read(PLAIN, "New York Times", *values) == Answer(spans=spans)

    def test_no_spans_are_an_answer_too(self):
        assert write(PLAIN, "x", confidence=0.7).score == 0.7
        prediction = write(PLAIN, "x")
        assert (prediction.result, prediction.score) == ((), 0.5)
        assert read(PLAIN, "x") == Answer()

    @pytest.mark.parametrize(
        "span", [Span(0, 0, "PER"), Span(2, 1, "PER"), Span(-1, 2, "PER"), Span(0, 9, "PER")]
    )
    def test_what_is_no_piece_of_the_text_is_left_out(self, span):
        assert write(PLAIN, "Ann", span, Span(0, 3, "PER")).result[0]["value"]["end"] == 3

    def test_unknown_labels_are_left_out(self):
        assert write(PLAIN, "Ann", Span(0, 3, "Gone")).result == ()
        assert read(PLAIN, "Ann", {"start": 0, "end": 3, "labels": ["Gone"]}) is None

    def test_without_the_task_spans_are_written_without_their_text(self):
        label = WeakLabel(1, "ner", "llm", "p1", spans=(Span(0, 3, "PER"),))
        prediction = reader.write_prediction(reader.read_schema(PLAIN), [label], "v1")
        assert prediction is not None
        assert prediction.result[0]["value"] == {"start": 0, "end": 3, "labels": ["PER"]}

    @pytest.mark.parametrize(
        "value",
        [
            {},
            {"start": 1},
            {"start": "a", "end": 2},
            {"start": 2, "end": 2},
            {"start": 0, "end": 9},
        ],
    )
    def test_a_broken_region_is_no_answer(self, value):
        assert read(PLAIN, "Ann", {**value, "labels": ["PER"]}) is None

    def test_several_labels_on_one_region_are_several_spans(self):
        answer = read(PLAIN, "Ann", {"start": 0, "end": 3, "labels": ["Place", "PER"]})
        assert answer == Answer(spans=(Span(0, 3, "PER"), Span(0, 3, "Place")))


class TestHtml:
    html = "\n<div>\n  <p>Dear <b>Ann</b>&nbsp;&amp; 🐘,</p><p>come<br>to   Rome</p></div>"

    def test_people_read_one_line_per_block(self):
        assert text_of(HYPER, self.html) == "Dear Ann\xa0& 🐘,\ncome\nto Rome"
        (question,) = reader.read_schema(HYPER).questions
        assert question.field.format is TextFormat.HTML

    def test_places_count_every_text_node_and_each_line_break(self):
        text = read_html("<p>a</p> <p>b<br>c</p>")
        assert text.text == "a\nb\nc"
        assert [text.positions[i] for i in (0, 2, 4)] == [0, 2, 4]

    @pytest.mark.parametrize(("xml", "key"), [(HYPER, "labels"), (HYPER_LABELS, "hypertextlabels")])
    def test_a_span_is_written_by_global_offsets_and_read_back(self, xml, key):
        text = text_of(xml, self.html)
        span = span_of(text, "Ann\xa0& 🐘")
        (region,) = write(xml, self.html, span).result
        assert region["type"] == key
        # the spaces before the body do not count, those in the div do
        assert region["value"]["globalOffsets"] == {"start": 8, "end": 15}
        assert (region["value"][key], region["value"]["text"]) == (["PER"], "Ann\xa0& 🐘")
        assert read(xml, self.html, region["value"]) == Answer(spans=(span,))

    def test_a_span_over_several_blocks_is_read_back(self):
        text = text_of(HYPER, self.html)
        span = span_of(text, "🐘,\ncome\nto")
        (region,) = write(HYPER, self.html, span).result
        assert read(HYPER, self.html, region["value"]) == Answer(spans=(span,))

    @pytest.mark.parametrize(
        "html",
        [
            "<style>p {}</style>Ann",
            "<p>Ann</p><textarea>x</textarea>",
            "<table>Ann<tr><td>x</td></tr></table>",
            "<pre>\nAnn</pre>",
            "Ann\0",
            "Ann <![x[Bob",
        ],
    )
    def test_where_places_cannot_be_told_no_span_is_written(self, html):
        label = WeakLabel(1, "ner", "llm", "p1", spans=(Span(0, 1, "PER"),))
        task = Task(1, {"t": html})
        assert reader.write_prediction(reader.read_schema(HYPER), [label], "v1", task) is None

    def test_a_script_is_not_read_and_does_not_count(self):
        text = read_html("<p>a</p><script>var x = '<b>';</script><p>b</p>")
        assert (text.text, text.positions, text.is_exact) == ("a\nb", (0, 0, 1), True)

    def test_what_stands_before_the_body_does_not_count(self):
        text = read_html("<html> <head><title>x</title></head> <body>\n<p>Ann</p></body></html>")
        assert (text.text, text.positions, text.is_exact) == ("Ann", (1, 2, 3), True)

    @pytest.mark.parametrize(
        "head",
        [
            '<meta charset="utf-8">',
            '<link rel="icon" href="a.png"/>\n<title>A &amp; B</title>',
            '<base href="/">\n<style>p > b { color: red }</style>',
            "<script>if (a < b) { write('<p>x</p>') }</script><noscript><p>x</p></noscript>",
            "<!-- <body> --><template><p>x</p></template>",
            '<meta name="a" content="<body>"><meta name="b">',
        ],
    )
    @pytest.mark.parametrize(
        "ending", ["</head><body>", "</head>\n<body class='x'>", "<body>", "</head>"]
    )
    def test_a_page_keeps_its_spans_whatever_is_in_its_head(self, head, ending):
        page = f"<!DOCTYPE html>\r\n<html lang='en'>\n<head>\n{head}{ending}<p>Dear <b>Ann</b></p>"
        span = span_of(text_of(HYPER, page), "Ann")
        assert text_of(HYPER, page) == "Dear Ann"
        (region,) = write(HYPER, page, span).result
        assert region["value"]["globalOffsets"] == {"start": 5, "end": 8}
        assert read(HYPER, page, region["value"]) == Answer(spans=(span,))

    def test_a_head_that_does_not_end_ends_with_the_first_of_the_body(self):
        text = read_html("<html><head><meta name='a'><title>x</title><p>Ann <link>left</p>")
        assert (text.text, text.positions[0], text.is_exact) == ("Ann left", 0, True)

    def test_a_body_that_begins_twice_begins_once(self):
        text = read_html("a<body>b")
        assert (text.text, text.positions) == ("ab", (0, 1))

    def test_old_regions_without_global_offsets_are_no_answer(self):
        old = {"start": "/p[1]/text()[1]", "end": "/p[1]/text()[1]", "labels": ["PER"]}
        assert read(HYPER, self.html, {**old, "startOffset": 0, "endOffset": 2}) is None

    def test_without_the_task_it_is_refused(self):
        label = WeakLabel(1, "ner", "llm", "p1", spans=(Span(0, 3, "PER"),))
        schema = reader.read_schema(HYPER)
        with pytest.raises(InvalidRequest, match="task's data"):
            reader.write_prediction(schema, [label], "v1")

    @given(st.text("ab <>/pbr&;![\n\t🐘é", max_size=40), st.data())
    def test_whatever_it_holds_what_is_written_reads_back(self, html, data):
        text = read_html(html)
        assert len(text.text) == len(text.positions)
        assert list(text.positions) == sorted(text.positions)
        if not text.text:
            return
        start = data.draw(st.integers(0, len(text.text) - 1))
        end = data.draw(st.integers(start + 1, len(text.text)))
        value = text.write_span(start, end)
        if value is not None:
            back = text.read_span(value)
            assert back is not None
            assert text.text[slice(*back)].strip() == text.text[start:end].strip()

    @pytest.mark.parametrize(
        ("attribute", "why"),
        [
            ('inline="true"', 'over a HyperText with inline="true"'),
            ('valueType="url"', 'over a HyperText with valueType="url"'),
        ],
    )
    def test_where_places_are_counted_otherwise_the_tag_is_named(self, attribute, why):
        xml = HYPER.replace("<HyperText", f"<HyperText {attribute}")
        xml = xml.replace("</View>", '<Rating name="stars" toName="t"/></View>')
        assert reader.read_schema(xml).unsupported == (f'Labels "ner" ({why})',)


class TestDialogue:
    def test_it_is_read_with_one_line_per_turn(self):
        assert text_of(DIALOGUE, TURNS) == "Ann: I saw 🐘 Bob in Rome.\nOh, Bob!"
        (question,) = reader.read_schema(DIALOGUE).questions
        assert question.field.format is TextFormat.DIALOGUE
        assert question.field.turn_keys == ("who", "said")

    def test_a_span_is_written_by_turn_and_utf16_offset_and_read_back(self):
        text = text_of(DIALOGUE, TURNS)
        span = span_of(text, "Bob", probability=0.8)
        (region,) = write(DIALOGUE, TURNS, span).result
        assert region["type"] == "paragraphlabels"
        assert region["value"] == {
            "start": "0",
            "end": "0",
            "startOffset": 9,
            "endOffset": 12,
            "text": "Bob",
            "paragraphlabels": ["PER"],
        }
        assert read(DIALOGUE, TURNS, region["value"]) == Answer(
            spans=(Span(span.start, span.end, "PER"),)
        )

    def test_a_span_over_two_turns_leaves_the_names_out(self):
        text = text_of(DIALOGUE, TURNS)
        (region,) = write(DIALOGUE, TURNS, Span(0, len(text), "PER")).result
        value = region["value"]
        assert (value["start"], value["startOffset"]) == ("0", 0)
        assert (value["end"], value["endOffset"]) == ("1", 8)
        assert value["text"] == "I saw 🐘 Bob in Rome.\nOh, Bob!"
        assert read(DIALOGUE, TURNS, value) == Answer(spans=(Span(5, len(text), "PER"),))

    def test_a_span_within_a_name_is_left_out(self):
        assert write(DIALOGUE, TURNS, Span(0, 3, "PER")).result == ()

    def test_turns_without_a_text_keep_their_numbers(self):
        turns = [
            {"who": "Ann"},
            None,
            "x",
            {"who": None, "said": math.nan, "start": 1.5},
            {"who": 7, "said": "It's \N{PACKAGE} now"},
        ]
        text = text_of(DIALOGUE, turns)
        assert text == "Ann: \n\n\n\n7: It's \N{PACKAGE} now"
        (region,) = write(DIALOGUE, turns, span_of(text, "now")).result
        value = region["value"]
        assert (value["start"], value["end"], value["text"]) == ("4", "4", "now")
        assert (value["startOffset"], value["endOffset"]) == (8, 11)  # the parcel counts twice
        assert read(DIALOGUE, turns, value) == Answer(spans=(span_of(text, "now"),))

    @pytest.mark.parametrize(
        "value", [{"start": "2"}, {"end": "-1"}, {"startOffset": None}, {"start": "1", "end": "0"}]
    )
    def test_a_region_elsewhere_is_no_answer(self, value):
        place = {"start": "0", "end": "0", "startOffset": 0, "endOffset": 2}
        assert read(DIALOGUE, TURNS, {**place, **value, "paragraphlabels": ["PER"]}) is None

    @pytest.mark.parametrize(
        "value", [None, "text", [], ["text"], [{"who": "Ann"}], [{"said": " "}], {"said": "x"}]
    )
    def test_what_is_no_dialogue_is_explained(self, value):
        example = reader.read_example(reader.read_schema(DIALOGUE), Task(1, {"t": value}))
        assert "'t'" in example.missing["t"].detail

    @given(
        st.lists(st.text("ab🐘 \n", max_size=6), min_size=1, max_size=4),
        st.data(),
    )
    def test_whatever_is_said_what_is_written_reads_back(self, said, data):
        dialogue = read_dialogue([{"a": "x", "b": text} for text in said], ("a", "b"))
        if dialogue is None:
            return
        start = data.draw(st.integers(0, len(dialogue.text) - 1))
        end = data.draw(st.integers(start + 1, len(dialogue.text)))
        value = dialogue.write_span(start, end)
        if value is not None:
            back = dialogue.read_span(value)
            assert back is not None
            assert start <= back[0] < back[1] <= end

    @pytest.mark.parametrize(
        ("attribute", "why"),
        [
            (
                'contextScroll="true"',
                'over a Paragraphs with contextScroll="true", which sorts the turns',
            ),
            ('valueType="url"', 'over a Paragraphs with valueType="url"'),
        ],
    )
    def test_what_is_shown_otherwise_is_named(self, attribute, why):
        xml = DIALOGUE.replace("<Paragraphs", f"<Paragraphs {attribute}")
        other = '<Text name="o" value="$o"/><Rating name="stars" toName="o"/></View>'
        named = reader.read_schema(xml.replace("</View>", other)).unsupported
        assert named == (f'ParagraphLabels "ner" ({why})',)
