"""Results out, and people's answers in: what Label Studio would take, and what is read back."""

from __future__ import annotations

import threading

import pytest

from backend.domain.labels import Abstention, AbstentionReason, Answer, WeakLabel
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import CHOICES, SCHEMA, config, reader


def weak_label(*probabilities: float, question: str = "sentiment", cut: bool = False) -> WeakLabel:
    return WeakLabel(
        example_id=7,
        question=question,
        annotator="llm",
        prompt_version="p1",
        probabilities=probabilities,
        abstention=None if probabilities else Abstention(AbstentionReason.UNREADABLE),
        is_truncated=cut,
    )


class TestPrediction:
    def test_the_likeliest_label_becomes_a_region(self):
        prediction = reader.write_prediction(SCHEMA, [weak_label(0.7, 0.2, 0.1)], "v1")
        assert prediction is not None
        assert (prediction.task_id, prediction.model_version, prediction.score) == (7, "v1", 0.7)
        (region,) = prediction.result
        region_id = region.pop("id")
        assert region == {
            "from_name": "sentiment",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": ["pos"]},
            "score": 0.7,
        }
        again = reader.write_prediction(SCHEMA, [weak_label(0.1, 0.8, 0.1)], "v2")
        assert again is not None
        assert again.result[0]["id"] == region_id

    def test_ties_go_to_the_label_that_the_config_names_first(self):
        prediction = reader.write_prediction(SCHEMA, [weak_label(0.2, 0.4, 0.4)], "v1")
        assert prediction is not None
        assert prediction.result[0]["value"] == {"choices": ["Negative"]}

    def test_a_cut_text_is_noted_on_the_region(self):
        prediction = reader.write_prediction(SCHEMA, [weak_label(1.0, 0.0, 0.0, cut=True)], "v1")
        assert prediction is not None
        (note,) = prediction.result[0]["meta"]["text"]
        assert "a part of it is missing" in note
        assert reader.errors(config(CHOICES), prediction) == []

    def test_the_score_is_that_of_the_least_sure_answer(self):
        xml = config(CHOICES, CHOICES.replace("sentiment", "urgency"))
        labels = [weak_label(0.9, 0.1, 0.0), weak_label(0.3, 0.6, 0.1, question="urgency")]
        prediction = reader.write_prediction(reader.read_schema(xml), labels, "v1")
        assert prediction is not None
        assert prediction.score == 0.6
        assert [region["score"] for region in prediction.result] == [0.9, 0.6]
        assert len({region["id"] for region in prediction.result}) == 2
        assert reader.errors(xml, prediction) == []

    def test_abstentions_leave_their_question_out(self):
        schema = reader.read_schema(config(CHOICES, CHOICES.replace("sentiment", "urgency")))
        labels = [weak_label(), weak_label(0.3, 0.6, 0.1, question="urgency")]
        prediction = reader.write_prediction(schema, labels, "v1")
        assert prediction is not None
        assert [region["from_name"] for region in prediction.result] == ["urgency"]

    @pytest.mark.parametrize(
        "labels",
        [[], [weak_label()], [weak_label(0.5, 0.5)], [weak_label(1, 0, 0, question="other")]],
    )
    def test_without_an_answer_to_what_is_asked_there_is_no_prediction(self, labels):
        assert reader.write_prediction(SCHEMA, labels, "v1") is None


class TestErrors:
    prediction = reader.write_prediction(SCHEMA, [weak_label(0.7, 0.2, 0.1)], "v1")

    def test_our_own_predictions_fit(self):
        assert reader.errors(config(CHOICES), self.prediction) == []

    def test_a_prediction_for_another_config_does_not_fit(self):
        for other in (
            CHOICES.replace("sentiment", "other"),
            CHOICES.replace('alias="pos"', ""),
        ):
            assert reader.errors(config(other), self.prediction) != []

    @pytest.mark.parametrize("broken", ["", None, "<View/>"])
    def test_under_a_broken_config_nothing_fits(self, broken):
        (error,) = reader.errors(broken, self.prediction)
        assert "label config" in error

    def test_one_config_can_be_used_by_many_threads(self):
        found: list[list[str]] = []

        def work():
            for _ in range(20):
                found.append(reader.errors(config(CHOICES), self.prediction))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[]] * 80


class TestAnswers:
    @staticmethod
    def region(choices: object, name: str = "sentiment") -> dict:
        return {
            "from_name": name,
            "to_name": "text",
            "type": "choices",
            "value": {"choices": choices},
        }

    def test_a_persons_choice_is_read_back(self):
        result = [self.region(["pos"]), {"from_name": "ner", "type": "labels", "value": {}}]
        assert read_answers(SCHEMA, result) == {"sentiment": Answer(("pos",))}

    def test_what_we_write_reads_back(self):
        prediction = reader.write_prediction(SCHEMA, [weak_label(0.1, 0.2, 0.7)], "v1")
        assert prediction is not None
        assert read_answers(SCHEMA, prediction.result) == {"sentiment": Answer(("Neutral",))}

    @pytest.mark.parametrize(
        "choices", [["Positive"], ["gone"], [], ["pos", "Negative"], None, "pos", [["pos"]], [1]]
    )
    def test_what_is_no_answer_to_the_question_is_left_out(self, choices: object):
        assert read_answers(SCHEMA, [self.region(choices)]) == {}

    def test_odd_regions_are_passed_over(self):
        odd = [{}, {"from_name": "sentiment"}, {"from_name": "sentiment", "value": []}]
        assert read_answers(SCHEMA, odd) == {}
