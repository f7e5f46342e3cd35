"""Second wordings of a round's texts: by the LLM, from the tasks, or none."""

from __future__ import annotations

import pytest

from backend.domain.llm_usage import current_scope
from backend.errors import LanguageModelUnavailable
from backend.pipeline.rounds.context import RoundPlan
from backend.pipeline.rounds.train import Paraphrases
from tests.pipeline.conftest import CHUNK, House

N_TEXTS = 24


class Shouting:
    """Says every text louder; knows on whose account."""

    def __init__(self):
        self.accounts = []
        self.failure = None

    def reword(self, texts):
        if self.failure is not None:
            raise self.failure
        self.accounts.append(current_scope())
        return [text.upper() for text in texts]


@pytest.fixture
def shouting():
    return Shouting()


@pytest.fixture
def build(stores, tmp_path, shouting):
    def make(source, recipe="paper"):
        house = House(
            stores,
            folder=tmp_path,
            plan=RoundPlan(recipe=recipe, chunk=CHUNK),
            paraphrases=Paraphrases(source, shouting.reword),
        )
        return house, house.connected(N_TEXTS)

    return make


def test_the_llm_s_wordings_reach_the_small_model_on_the_project_s_account(build, shouting):
    house, project_id = build("paraphrase")
    house.round(project_id)
    learned = house.student.fits[0]
    assert learned.views == tuple(text.upper() for text in learned.pool.texts)
    assert {(one.project_id, one.purpose) for one in shouting.accounts} == {
        (project_id, "rewording")
    }


def test_a_field_of_the_tasks_holds_wordings_where_it_is_filled(build):
    house, project_id = build("text")
    house.round(project_id)
    learned = house.student.fits[0]
    assert learned.views == learned.pool.texts
    assert Paraphrases("absent", lambda texts: []).of(
        house.aggregator.pool(house.projects.get(project_id)), None
    ) == (None,) * len(learned.pool)


def test_recipes_without_second_views_ask_for_none(build, shouting):
    house, project_id = build("paraphrase", recipe="default")
    house.round(project_id)
    assert house.student.fits[0].views is None
    assert shouting.accounts == []


def test_a_round_waits_while_the_llm_that_words_is_down(build, shouting):
    house, project_id = build("paraphrase")
    shouting.failure = LanguageModelUnavailable("down")
    house.round(project_id)
    assert house.student.fits == []
    assert house.rounds.running(project_id) is not None
    shouting.failure = None
    house.round(project_id)
    assert house.student.fits
