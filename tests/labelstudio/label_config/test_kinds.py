"""Every kind of question: what is asked, what is written for it, what people's answers say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backend.domain.labels import Abstention, AbstentionReason, Answer, Span, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField, TextFormat
from backend.labelstudio.label_config import LabelConfigReader, read_answers

TEXT = '<Text name="text" value="$text"/>'
TOPICS = (
    '<Choices name="topics" toName="text" choice="multiple"><Choice value="Sport" alias="s"/>'
    '<Choice value="Politics"/><Choice value="Science"/></Choices>'
)
TREE = (
    '<Choice value="Online"><Choice value="Blog" hint="a diary"/><Choice value="Paid" alias="p">'
    '<Choice value="Daily"/><Choice value="Other"/></Choice></Choice><Choice value="Other"/>'
)
NESTED = f'<Choices name="media" toName="text" allowNested="true">{TREE}</Choices>'
TAXONOMY = f'<Taxonomy name="media" toName="text">{TREE}</Taxonomy>'
LEAVES = (
    LabelDefinition("Online / Blog", "Blog", "a diary", ("Online", "Blog")),
    LabelDefinition("Online / p / Daily", "Daily", None, ("Online", "p", "Daily")),
    LabelDefinition("Online / p / Other", "Online / Paid / Other", None, ("Online", "p", "Other")),
    LabelDefinition("Other", "Other", None, ("Other",)),
)
ENTITIES = '<Label value="Person" alias="PER" hint="a human being"/><Label value="Place"/>'
LABELS = f'<Labels name="ner" toName="text">{ENTITIES}</Labels>'


def refuse(url: str) -> str | Abstention:
    return Abstention(AbstentionReason.REMOTE_TEXT, "not allowed")


reader = LabelConfigReader(refuse)


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def only_question(*tags: str) -> Question:
    (question,) = reader.read_schema(config(*tags)).questions
    return question


def unsupported(*tags: str) -> tuple[str, ...]:
    """Return what is named beside a question that can be labelled."""
    fine = '<Rating name="fine" toName="text"/>'
    text = "" if 'name="text"' in "".join(tags) else TEXT
    return reader.read_schema(config(text, fine, *tags)).unsupported


def weak(question: str, *probabilities: float, **answer: Any) -> WeakLabel:
    return WeakLabel(7, question, "llm", "p1", probabilities=probabilities, **answer)


def written(xml: str, *labels: WeakLabel, data: dict[str, Any] | None = None) -> Prediction:
    """Write a prediction that Label Studio's SDK takes."""
    task = None if data is None else Task(7, data)
    prediction = reader.write_prediction(reader.read_schema(xml), labels, "v1", task)
    assert prediction is not None
    assert reader.errors(xml, prediction) == []
    return prediction


def values(prediction: Prediction) -> list[dict[str, Any]]:
    return [region["value"] for region in prediction.result]


def answers(xml: str, *values: dict[str, Any], name: str, data: Any = None) -> Answer | None:
    result = [{"from_name": name, "to_name": "text", "value": value} for value in values]
    return read_answers(reader.read_schema(xml), result, data).get(name)


class TestMultipleChoice:
    xml = config(TEXT, TOPICS)

    def test_it_is_asked_with_all_its_labels(self):
        question = only_question(TEXT, TOPICS)
        assert question.kind is QuestionKind.MULTIPLE_CHOICE
        assert [label.value for label in question.labels] == ["s", "Politics", "Science"]

    def test_labels_from_a_half_on_are_chosen_with_the_least_sure_decision_as_score(self):
        prediction = written(self.xml, weak("topics", 0.9, 0.5, 0.3))
        assert values(prediction) == [{"choices": ["s", "Politics"]}]
        assert prediction.score == prediction.result[0]["score"] == 0.5
        assert read_answers(reader.read_schema(self.xml), prediction.result) == {
            "topics": Answer(("s", "Politics"))
        }

    def test_an_empty_selection_is_an_answer_without_a_region(self):
        prediction = written(self.xml, weak("topics", 0.1, 0.2, 0.3))
        assert (prediction.result, prediction.score) == ((), 0.7)
        assert read_answers(reader.read_schema(self.xml), ()) == {"topics": Answer()}

    def test_unknown_labels_are_left_out_of_an_answer(self):
        answer = answers(self.xml, {"choices": ["Science", "Gone", "s"]}, name="topics")
        assert answer == Answer(("s", "Science"))
        assert answers(self.xml, {"choices": ["Gone"]}, name="topics") is None
        assert answers(self.xml, {"choices": [7, None, {}]}, name="topics") is None


class TestTrees:
    @pytest.mark.parametrize("tag", [NESTED, TAXONOMY])
    def test_leaves_are_the_labels_and_those_with_one_name_are_told_by_their_path(self, tag):
        assert only_question(TEXT, tag).labels == LEAVES

    def test_nested_choices_are_single_by_default_and_a_taxonomy_is_not(self):
        multiple = NESTED.replace("allowNested", 'choice="multiple" allowNested')
        one = TAXONOMY.replace("name=", 'maxUsages="1" name=')
        kinds = [only_question(TEXT, tag).kind for tag in (NESTED, multiple, TAXONOMY, one)]
        assert kinds == [QuestionKind.SINGLE_CHOICE, QuestionKind.MULTIPLE_CHOICE] * 1 + [
            QuestionKind.MULTIPLE_CHOICE,
            QuestionKind.SINGLE_CHOICE,
        ]

    def test_nested_choices_are_written_as_paths_of_aliases_and_read_back(self):
        xml = config(TEXT, NESTED)
        prediction = written(xml, weak("media", 0.1, 0.6, 0.2, 0.1))
        assert values(prediction) == [{"choices": [["Online", "p", "Daily"]]}]
        assert prediction.result[0]["type"] == "choices"
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "media": Answer(("Online / p / Daily",))
        }

    def test_a_path_that_is_not_in_the_config_does_not_fit(self):
        xml = config(TEXT, NESTED)
        prediction = written(xml, weak("media", 0.1, 0.6, 0.2, 0.1))
        assert reader.errors(xml.replace('value="Daily"', 'value="Weekly"'), prediction) != []

    def test_a_taxonomy_is_written_as_a_list_of_paths_and_read_back(self):
        xml = config(TEXT, TAXONOMY)
        prediction = written(xml, weak("media", 0.8, 0.1, 0.2, 0.7))
        assert values(prediction) == [{"taxonomy": [["Online", "Blog"], ["Other"]]}]
        assert prediction.result[0]["type"] == "taxonomy"
        assert prediction.score == 0.7
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "media": Answer(("Online / Blog", "Other"))
        }

    def test_branches_that_people_chose_are_no_leaves_and_left_out(self):
        xml = config(TEXT, TAXONOMY)
        answer = answers(xml, {"taxonomy": [["Online"], ["Online", "Blog"]]}, name="media")
        assert answer == Answer(("Online / Blog",))
        assert answers(xml, {"taxonomy": [["Online"], [7], "x"]}, name="media") is None

    @pytest.mark.parametrize(
        ("tag", "why"),
        [
            (TAXONOMY.replace("name=", 'labeling="true" name='), 'labeling="true"'),
            (
                '<Taxonomy name="x" toName="text" apiUrl="http://127.0.0.1/"/>',
                'value="http://127.0.0.1/": it comes with each task',
            ),
            ('<Taxonomy name="x" toName="text"/>', "fewer than two choices"),
            (
                '<Taxonomy name="x" toName="text"><Choice value="a / b"/><Choice value="a">'
                '<Choice value="b"/></Choice></Taxonomy>',
                'several choices are told by the same path "a / b"',
            ),
        ],
    )
    def test_trees_that_cannot_be_labelled_are_named(self, tag, why):
        (named,) = unsupported(tag)
        assert named.endswith(f"({why})")


class TestScales:
    def test_a_rating_has_its_stars_as_labels(self):
        question = only_question(TEXT, '<Rating name="stars" toName="text" maxRating="3"/>')
        assert question.kind is QuestionKind.RATING
        assert [label.value for label in question.labels] == ["1", "2", "3"]
        assert question.bounds == (1.0, 3.0)
        assert len(only_question(TEXT, '<Rating name="stars" toName="text"/>').labels) == 5

    def test_a_rating_is_written_as_a_number_and_read_back(self):
        xml = config(TEXT, '<Rating name="stars" toName="text"/>')
        prediction = written(xml, weak("stars", 0.1, 0.1, 0.1, 0.6, 0.1))
        assert values(prediction) == [{"rating": 4}]
        assert read_answers(reader.read_schema(xml), prediction.result) == {"stars": Answer(("4",))}

    @pytest.mark.parametrize("value", [0, 6, 2.5, True, "4", None, math.nan, math.inf])
    def test_a_rating_out_of_range_is_no_answer(self, value):
        xml = config(TEXT, '<Rating name="stars" toName="text"/>')
        assert answers(xml, {"rating": value}, name="stars") is None

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
            prediction = written(xml, weak("n", *(float(index == i) for i in range(3))))
            assert values(prediction) == [{"number": value}]
            answer = read_answers(reader.read_schema(xml), prediction.result)
            assert answer == {"n": Answer((str(value),))}

    def test_a_wide_number_is_a_text_within_its_bounds(self):
        xml = config(TEXT, '<Number name="n" toName="text" min="0" max="100"/>')
        prediction = written(xml, weak("n", text=" 42.0 ", confidence=0.8))
        assert values(prediction) == [{"number": 42}]
        assert prediction.score == 0.8
        assert read_answers(reader.read_schema(xml), prediction.result) == {"n": Answer(text="42")}

    @pytest.mark.parametrize("text", ["101", "-1", "many", "", "nan", "inf", "1e999"])
    def test_a_number_that_cannot_be_is_left_out(self, text):
        schema = reader.read_schema(
            config(TEXT, '<Number name="n" toName="text" min="0" max="100"/>')
        )
        assert reader.write_prediction(schema, [weak("n", text=text)], "v1") is None

    def test_a_number_is_put_on_its_step_counted_from_the_least(self):
        xml = config(TEXT, '<Number name="n" toName="text" min="1" max="201" step="5"/>')
        assert values(written(xml, weak("n", text="47"))) == [{"number": 46}]
        without = config(TEXT, '<Number name="n" toName="text" step="10"/>')
        assert values(written(without, weak("n", text="-47"))) == [{"number": -50}]

    def test_a_number_without_bounds_takes_any(self):
        question = only_question(TEXT, '<Number name="n" toName="text" max="3"/>')
        assert (question.bounds, question.labels) == ((-math.inf, 3.0), ())
        xml = config(TEXT, '<Number name="n" toName="text"/>')
        assert values(written(xml, weak("n", text="-2.5"))) == [{"number": -2.5}]

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
        prediction = written(self.xml, weak("summary", text="In short.", confidence=0.4))
        assert values(prediction) == [{"text": ["In short."]}]
        assert prediction.score == 0.4
        assert read_answers(reader.read_schema(self.xml), prediction.result) == {
            "summary": Answer(text="In short.")
        }

    def test_several_submissions_are_lines_and_blank_ones_are_none(self):
        read = answers(self.xml, {"text": ["a", " "]}, {"text": "b"}, name="summary")
        assert read == Answer(text="a\nb")
        assert answers(self.xml, {"text": [" ", 7]}, name="summary") is None

    def test_a_blank_text_is_no_region(self):
        assert written(self.xml, weak("summary", text=" ")).result == ()

    def test_a_text_that_comes_with_the_task_is_named(self):
        (named,) = unsupported('<TextArea name="x" toName="text" value="$draft"/>')
        assert named == 'TextArea "x" (value="$draft": it comes with each task)'


class TestSeveralTexts:
    pair = (
        '<Text name="premise" value="$a"/>',
        '<HyperText name="claim" value="$b"/>',
        '<Image name="image" value="$i"/>',
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
        prediction = written(xml, weak("pw", 0.3, 0.7))
        assert values(prediction) == [{"selected": "right"}]
        assert prediction.result[0]["to_name"] == "claim"
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "pw": Answer(("right",))
        }

    def test_what_the_editor_stores_for_pairwise_is_read(self):
        xml = config(*self.pair, '<Pairwise name="pw" toName="claim,premise"/>')
        stored = {"from_name": "pw", "to_name": "pw", "value": {"selected": "left"}}
        assert read_answers(reader.read_schema(xml), [stored]) == {"pw": Answer(("left",))}
        assert answers(xml, {"selected": "none"}, name="pw") is None

    @pytest.mark.parametrize(
        ("tag", "why"),
        [
            ('<Pairwise name="x" toName="text"/>', "not over two tags"),
            (
                '<Image name="i" value="$i"/><Pairwise name="x" toName="text,i"/>',
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
            weak("topics", 0.9, 0.1, 0.1),
            weak("ner", spans=(Span(0, 3, "PER", 0.8),)),
            weak("stars", 0.25, 0.75),
        ]
        prediction = written(xml, *labels, data={"text": "Ann sings."})
        assert [(r["from_name"], r["type"]) for r in prediction.result] == [
            ("topics", "choices"),
            ("ner", "labels"),
            ("stars", "rating"),
        ]
        assert prediction.score == 0.75
        assert len({region["id"] for region in prediction.result}) == 3

    def test_an_answer_of_another_kind_is_left_out(self):
        schema = reader.read_schema(config(TEXT, TOPICS, LABELS))
        wrong = [weak("ner", 0.5, 0.5), weak("topics", spans=()), weak("topics", text="s")]
        assert reader.write_prediction(schema, wrong, "v1") is None


class TestConditions:
    @pytest.mark.parametrize("name", ["perRegion", "perItem"])
    def test_questions_about_regions_and_items_are_named(self, name):
        for tag in ("Rating", "Number", "TextArea"):
            (named,) = unsupported(f'<{tag} name="x" toName="text" {name}="true"/>')
            assert named == f'{tag} "x" ({name}="true")'

    def test_questions_within_a_conditional_view_are_named(self):
        (named,) = unsupported(
            '<View visibleWhen="region-selected"><View>'
            '<Rating name="x" toName="text"/></View></View>'
        )
        assert named == 'Rating "x" (inside a View with visibleWhen="region-selected")'
