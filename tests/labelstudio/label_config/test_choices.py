"""Choices and taxonomies: their labels, the results written for them, the answers read."""

from __future__ import annotations

import pytest

from backend.domain.labels import Answer
from backend.domain.questions import QuestionKind
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import reader
from tests.labelstudio.label_config.cases import (
    LEAVES,
    NESTED,
    TAXONOMY,
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


class TestMultipleChoice:
    xml = config(TEXT, TOPICS)

    def test_it_is_asked_with_all_its_labels(self):
        question = only_question(TEXT, TOPICS)
        assert question.kind is QuestionKind.MULTIPLE_CHOICE
        assert [label.value for label in question.labels] == ["s", "Politics", "Science"]

    def test_labels_from_a_half_on_are_chosen_with_the_least_sure_decision_as_score(self):
        prediction = write(self.xml, weak_label("topics", 0.9, 0.5, 0.3))
        assert region_values(prediction) == [{"choices": ["s", "Politics"]}]
        assert prediction.score == prediction.result[0]["score"] == 0.5
        assert read_answers(reader.read_schema(self.xml), prediction.result) == {
            "topics": Answer(("s", "Politics"))
        }

    def test_an_empty_selection_is_an_answer_without_a_region(self):
        prediction = write(self.xml, weak_label("topics", 0.1, 0.2, 0.3))
        assert (prediction.result, prediction.score) == ((), 0.7)
        assert read_answers(reader.read_schema(self.xml), ()) == {"topics": Answer()}

    def test_unknown_labels_are_left_out_of_an_answer(self):
        answer = read(self.xml, {"choices": ["Science", "Gone", "s"]}, name="topics")
        assert answer == Answer(("s", "Science"))
        assert read(self.xml, {"choices": ["Gone"]}, name="topics") is None
        assert read(self.xml, {"choices": [7, None, {}]}, name="topics") is None


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
        prediction = write(xml, weak_label("media", 0.1, 0.6, 0.2, 0.1))
        assert region_values(prediction) == [{"choices": [["Online", "p", "Daily"]]}]
        assert prediction.result[0]["type"] == "choices"
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "media": Answer(("Online / p / Daily",))
        }

    def test_a_path_that_is_not_in_the_config_does_not_fit(self):
        xml = config(TEXT, NESTED)
        prediction = write(xml, weak_label("media", 0.1, 0.6, 0.2, 0.1))
        assert reader.errors(xml.replace('value="Daily"', 'value="Weekly"'), prediction) != []

    def test_a_taxonomy_is_written_as_a_list_of_paths_and_read_back(self):
        xml = config(TEXT, TAXONOMY)
        prediction = write(xml, weak_label("media", 0.8, 0.1, 0.2, 0.7))
        assert region_values(prediction) == [{"taxonomy": [["Online", "Blog"], ["Other"]]}]
        assert prediction.result[0]["type"] == "taxonomy"
        assert prediction.score == 0.7
        assert read_answers(reader.read_schema(xml), prediction.result) == {
            "media": Answer(("Online / Blog", "Other"))
        }

    def test_branches_that_people_chose_are_no_leaves_and_left_out(self):
        xml = config(TEXT, TAXONOMY)
        answer = read(xml, {"taxonomy": [["Online"], ["Online", "Blog"]]}, name="media")
        assert answer == Answer(("Online / Blog",))
        assert read(xml, {"taxonomy": [["Online"], [7], "x"]}, name="media") is None

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
