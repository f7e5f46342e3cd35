"""A round's training: its paraphrases, and the card of the model that it saves."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.llm_usage import current_scope
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.domain.student import TrainingReport
from backend.errors import LanguageModelUnavailable
from backend.pipeline.rounds.context import RoundPlan
from backend.pipeline.rounds.model_card import TrainedOn, model_card, round_section
from backend.pipeline.rounds.train import Paraphrases
from tests.pipeline.conftest import CHUNK, House

N_TEXTS = 24


class UppercaseParaphraser:
    """Returns each text in capitals; keeps the usage scope of each call."""

    def __init__(self):
        self.scopes = []
        self.failure = None

    def paraphrase(self, texts):
        if self.failure is not None:
            raise self.failure
        self.scopes.append(current_scope())
        return [text.upper() for text in texts]


@pytest.fixture
def paraphraser():
    return UppercaseParaphraser()


@pytest.fixture
def build(stores, tmp_path, paraphraser):
    def make(source, recipe="paper"):
        house = House(
            stores,
            folder=tmp_path,
            plan=RoundPlan(recipe=recipe, chunk=CHUNK),
            paraphrases=Paraphrases(source, paraphraser.paraphrase),
        )
        return house, house.connected(N_TEXTS)

    return make


def test_llm_paraphrases_reach_the_student_in_the_project_s_usage_scope(build, paraphraser):
    house, project_id = build("paraphrase")
    house.round(project_id)
    learned = house.student.fits[0]
    assert learned.views == tuple(text.upper() for text in learned.pool.texts)
    assert {(one.project_id, one.purpose) for one in paraphraser.scopes} == {
        (project_id, "rewording")
    }


def test_a_field_of_the_tasks_holds_paraphrases_where_it_is_filled(build):
    house, project_id = build("text")
    house.round(project_id)
    learned = house.student.fits[0]
    assert learned.views == learned.pool.texts
    assert Paraphrases("absent", lambda texts: []).of(
        house.aggregator.pool(house.projects.get(project_id)), learned.pool.texts
    ) == (None,) * len(learned.pool)


def test_recipes_without_second_views_ask_for_none(build, paraphraser):
    house, project_id = build("paraphrase", recipe="default")
    house.round(project_id)
    assert house.student.fits[0].views is None
    assert paraphraser.scopes == []


def test_a_round_waits_while_the_paraphrasing_llm_is_down(build, paraphraser):
    house, project_id = build("paraphrase")
    paraphraser.failure = LanguageModelUnavailable("down")
    house.round(project_id)
    assert house.student.fits == []
    assert house.rounds.running(project_id) is not None
    paraphraser.failure = None
    house.round(project_id)
    assert house.student.fits


@pytest.mark.parametrize(
    ("kind", "words", "task"),
    [
        ("single_choice", "A single choice classifier", "text-classification"),
        ("multiple_choice", "A multiple choice classifier", "text-classification"),
        ("spans", "A span tagger", "token-classification"),
    ],
)
def test_a_card_tells_counts_and_labels_and_no_text(kind, words, task):
    labels = tuple(LabelDefinition(value, value) for value in ("label 0", "label 1"))
    question = Question("topic", (TextField("text", "text"),), QuestionKind(kind), labels)
    has_label, is_human = np.array([True, True, False]), np.array([True, False, False])
    report = TrainingReport("default", {"final": 1.5}, {"held_out_agreement": 0.9}, base="tiny")
    card = model_card(TrainedOn(question, has_label, is_human, 2), report)
    assert card["Data"] == ("3 texts: 1 labelled by people, 1 by an annotator, 1 without a label.")
    assert "- 1: label 1" in card["Labels"]
    assert card["What it is"].startswith(
        f"{words} for the question `topic`, fine-tuned from `tiny`"
    )
    assert "held_out_agreement: 0.9" in card["Figures"]
    assert f'pipeline("{task}"' in card["Use"]


def test_a_round_s_section_tells_what_it_measured():
    found = {"value": 0.8, "low": 0.71, "high": 0.87}
    section = round_section({"accuracies": {"fused": found}, "gate": {"reason": "promoted: why"}})
    assert "- fused: 0.800 right, 95 % interval 0.710 to 0.870" in section
    assert "- promoted: why" in section
    assert "Nothing was measured." in round_section({})
