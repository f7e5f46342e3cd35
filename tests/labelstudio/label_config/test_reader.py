"""Label configs in: what is asked of which text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.projects import Task
from backend.domain.questions import LabelDefinition, QuestionKind, TextField
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config import LabelConfigReader
from tests.labelstudio.choices_config import CHOICES, SCHEMA, config, reader
from tests.labelstudio.label_config.cases import unsupported


class TestSchema:
    def test_choices_over_a_text_are_one_question(self):
        (question,) = SCHEMA.questions
        assert question.name == "sentiment"
        assert question.kind is QuestionKind.SINGLE_CHOICE
        assert question.field == TextField("text", "text")
        assert SCHEMA.unsupported == ()

    def test_an_alias_is_what_is_stored_and_the_value_is_what_people_read(self):
        assert SCHEMA.questions[0].labels == (
            LabelDefinition("pos", "Positive", "they like it"),
            LabelDefinition("Negative", "Negative"),
            LabelDefinition("Neutral", "Neutral"),
        )

    @pytest.mark.parametrize("choice", ['choice="single"', 'choice="single-radio"', ""])
    def test_single_is_the_default(self, choice: str):
        asked = reader.read_schema(config(CHOICES.replace('choice="single"', choice)))
        assert [question.name for question in asked.questions] == ["sentiment"]

    def test_several_choices_are_several_questions_in_the_configs_order(self):
        second = CHOICES.replace("sentiment", "urgency")
        asked = reader.read_schema(config(second, CHOICES))
        assert [question.name for question in asked.questions] == ["urgency", "sentiment"]

    def test_choices_before_their_text_are_understood(self):
        xml = f'<View>{CHOICES}<Text name="text" value="$text"/></View>'
        assert reader.read_schema(xml).questions == SCHEMA.questions

    def test_choices_in_views_belong_to_the_question(self):
        wrapped = CHOICES.replace("<Choice ", "<View><Choice ").replace(
            "/><View>", "/></View><View>"
        )
        wrapped = wrapped.replace("/></Choices>", "/></View></Choices>")
        assert reader.read_schema(config(wrapped)).questions == SCHEMA.questions

    def test_equal_choices_are_one_label(self):
        twice = CHOICES.replace("</Choices>", '<Choice value="Negative"/></Choices>')
        assert len(reader.read_schema(config(twice)).questions[0].labels) == 3

    def test_headers_are_read_in_order(self):
        headers = '<Header value="First  &amp; foremost"/><Header>Second</Header>'
        asked = reader.read_schema(config(headers, CHOICES, '<Header value="Third"/>'))
        assert asked.headers == ("First & foremost", "Second", "Third")

    def test_a_task_sample_in_a_comment_and_processing_instructions_do_no_harm(self):
        extra = '<!-- {"data": {"text": "x"}} --><?style name="a" toName="b"?><Style>.a{}</Style>'
        assert reader.read_schema(config(CHOICES, extra)).questions == SCHEMA.questions

    @pytest.mark.parametrize(
        ("tag", "named"),
        [
            (
                '<VectorLabels name="x" toName="text"><Label value="a"/></VectorLabels>',
                'VectorLabels "x" (it asks for something else than a label, a span or a text)',
            ),
            (
                '<Relations><Relation value="a"/></Relations>',
                "Relations (no regions are marked in a text)",
            ),
            (
                '<Taxonomy name="x" toName="text" value="$options"/>',
                'Taxonomy "x" (value="$options": it comes with each task)',
            ),
            (
                '<Choices name="x" toName="text"><Choice value="a"><Choice value="b"/></Choice>'
                '<Choice value="c"/></Choices>',
                'Choices "x" (nested choices without allowNested="true", which Label Studio does '
                "not show)",
            ),
            (
                '<Choices name="x" toName="text"><Choice value="a"/></Choices>',
                'Choices "x" (fewer than two choices)',
            ),
            (
                CHOICES.replace('name="sentiment"', 'name="x" perRegion="true"'),
                'Choices "x" (perRegion="true", and no regions are marked in its text)',
            ),
            (
                '<Image name="logo" value="https://site.example/logo.png"/>'
                + CHOICES.replace("sentiment", "x").replace('toName="text"', 'toName="logo"'),
                'Choices "x" (over Image)',
            ),
            (
                '<Text name="more" value="$more" encoding="base64"/>'
                + CHOICES.replace("sentiment", "x").replace('toName="text"', 'toName="more"'),
                'Choices "x" (over a Text with encoding="base64")',
            ),
        ],
    )
    def test_what_is_not_labelled_is_named_and_the_rest_still_is(self, tag: str, named: str):
        asked = reader.read_schema(config(CHOICES, tag))
        assert asked.questions == SCHEMA.questions
        assert asked.unsupported == (named,)

    def test_a_config_that_asks_nothing_for_us_says_what_is_there_and_what_to_do(self):
        xml = config('<VectorLabels name="day" toName="text"><Label value="a"/></VectorLabels>')
        with pytest.raises(UnsupportedLabelConfig) as caught:
            reader.read_schema(xml)
        message = str(caught.value)
        assert 'found: VectorLabels "day"' in message
        assert "Choices, Taxonomy" in message
        assert "docs/label-configs.md" in message

    @pytest.mark.parametrize(
        "broken",
        [
            "",
            " ",
            "no xml",
            "<View>",
            "<View/>",
            "<View>text<View/></View>",
            "<View>" * 5000 + "</View>" * 5000,
            config(CHOICES, CHOICES),
            config(CHOICES.replace('toName="text"', 'toName="nothing"')),
            config('<Choices name="c" toName="text"/>'),
            config('<Choices name="c" toName="text"><Choice value="a"/></Choices>'),
            config('<Choices name="c" toName="text"><Choice/><Choice/></Choices>'),
            config(CHOICES, "&undefined;"),
            config(CHOICES, "\x00"),
            config(CHOICES, "\ud800"),
            None,
            7,
            b"<View/>",
            ["<View/>"],
        ],
    )
    def test_a_broken_config_is_unsupported_and_nothing_else(self, broken):
        for _ in range(2):
            with pytest.raises(UnsupportedLabelConfig):
                reader.read_schema(broken)

    @pytest.mark.parametrize(
        "declaration",
        [
            '<!DOCTYPE View [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
            '<!DOCTYPE View [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
            '<!DOCTYPE View SYSTEM "http://127.0.0.1:9/view.dtd">',
        ],
    )
    def test_entities_are_neither_expanded_nor_fetched(self, declaration: str):
        xml = declaration + config(CHOICES, '<Header value="safe"/>')
        with pytest.raises(UnsupportedLabelConfig, match="document type declaration"):
            reader.read_schema(xml)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    "<View>",
                    "</View>",
                    CHOICES,
                    "<Text ",
                    'name="a"',
                    'toName="a"',
                    "/>",
                    "$",
                    "<?a?>",
                ]
                + ["<Choice value='x'/>", "<!--", "-->", '<Text name="text" value="$text"/>', "&"]
            ),
            max_size=12,
        )
    )
    def test_whatever_is_written_there_it_is_read_or_refused(self, pieces: list[str]):
        try:
            assert reader.read_schema("".join(pieces)).questions
        except UnsupportedLabelConfig as exc:
            assert str(exc).count("\n") == 0


class TestConditionalQuestions:
    def test_questions_about_items_are_named(self):
        for tag in ("Rating", "Number", "TextArea"):
            (named,) = unsupported(f'<{tag} name="x" toName="text" perItem="true"/>')
            assert named == f'{tag} "x" (perItem="true")'

    def test_questions_within_a_conditional_view_are_named(self):
        (named,) = unsupported(
            '<View visibleWhen="region-selected"><View>'
            '<Rating name="x" toName="text"/></View></View>'
        )
        assert named == 'Rating "x" (shown only while a region is selected, and not perRegion)'


class TestExample:
    def test_the_text_is_taken_from_the_tasks_data(self):
        example = reader.read_example(SCHEMA, Task(3, {"text": " Nice. ", "other": 1}))
        assert (example.id, example.texts, example.missing) == (3, {"text": " Nice. "}, {})

    @pytest.mark.parametrize(("value", "text"), [(5, "5"), (2.5, "2.5"), (True, "True")])
    def test_numbers_are_texts(self, value: object, text: str):
        assert reader.read_example(SCHEMA, Task(1, {"text": value})).texts == {"text": text}

    @pytest.mark.parametrize(
        "data",
        [{}, {"text": None}, {"text": ""}, {"text": " \n"}, {"text": float("nan")}],
    )
    def test_a_missing_text_is_explained(self, data: dict[str, object]):
        example = reader.read_example(SCHEMA, Task(1, data))
        assert example.texts == {}
        assert example.missing["text"].reason is AbstentionReason.NO_TEXT
        assert "'text'" in example.missing["text"].detail

    @pytest.mark.parametrize(("value", "kind"), [(["a"], "list"), ({"a": 1}, "dict")])
    def test_what_is_no_text_is_said(self, value: object, kind: str):
        missing = reader.read_example(SCHEMA, Task(1, {"text": value})).missing["text"]
        assert missing == Abstention(
            AbstentionReason.UNSUITABLE, f"'text' holds a {kind}, not a text"
        )

    def test_a_text_is_always_one_that_can_be_stored(self):
        (text,) = reader.read_example(SCHEMA, Task(1, {"text": "a\ud800b"})).texts.values()
        assert text.encode("utf-8") == b"a?b"

    @pytest.mark.parametrize(
        ("key", "data"),
        [
            ("doc.title", {"doc": {"title": "found"}}),
            ("doc.title", {"doc.title": "found", "doc": {"title": "not this"}}),
            ("docs[1].title", {"docs": [{}, {"title": "found"}]}),
        ],
    )
    def test_nested_keys_are_followed_as_label_studio_does(self, key: str, data: dict):
        schema = reader.read_schema(
            config(CHOICES, text=f'<Text name="text" value="${key}"/>'),
        )
        assert reader.read_example(schema, Task(1, data)).texts == {"text": "found"}
        for hollow in ({}, {"doc": "x", "docs": "x"}, {"doc": {}, "docs": [1]}):
            assert "text" in reader.read_example(schema, Task(1, hollow)).missing

    def test_texts_that_are_urls_are_fetched(self):
        url_text = '<Text name="text" value="$url" valueType="url"/>'
        answers = {
            "http://a/": "fetched",
            "http://b/": " ",
            "http://c/": Abstention(AbstentionReason.REMOTE_TEXT, "not allowed"),
        }
        reader = LabelConfigReader(lambda url, _: answers[url])
        schema = reader.read_schema(config(CHOICES, text=url_text))
        assert schema.questions[0].field == TextField("text", "url", is_url=True)

        def read(url: object):
            example = reader.read_example(schema, Task(1, {"url": url}))
            return example.texts.get("text") or example.missing["text"].reason

        assert read(" http://a/ ") == "fetched"
        assert read("http://b/") is AbstentionReason.NO_TEXT
        assert read("http://c/") is AbstentionReason.REMOTE_TEXT
        assert read(None) is AbstentionReason.NO_TEXT

    def test_a_text_that_two_questions_share_is_fetched_once(self):
        fetched = []
        reader = LabelConfigReader(lambda *asked: fetched.append(asked) or "text")
        second = CHOICES.replace("sentiment", "urgency")
        schema = reader.read_schema(
            config(CHOICES, second, text='<Text name="text" value="$u" valueType="url"/>')
        )
        assert reader.read_example(schema, Task(1, {"u": "http://a/"})).texts == {"text": "text"}
        assert fetched == [("http://a/", 1)]
