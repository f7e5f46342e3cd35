"""Clients, students and query strategies as the settings name them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.active_learning.strategy_interface import QueryStrategy
from backend.errors import SettingsError
from backend.factories import query_strategies, student_factory
from backend.services import Adapters, build_services
from backend.settings import Settings
from tests.fakes import FakeLanguageModel, FakePlatform


def strategy_of(settings: Settings) -> QueryStrategy:
    return query_strategies(settings, FakeLanguageModel())("What is it? Label (A, B).")


@pytest.mark.parametrize("name", ["activellm", "activellm-paper", "random", "badge", "typiclust"])
def test_the_settings_name_the_strategy_of_the_queue(name):
    assert strategy_of(Settings(query_strategy=name)).name == name


def test_the_published_strategy_asks_as_its_mode_says_and_hands_over():
    settings = Settings(
        query_strategy="activellm-paper",
        query_paper_mode="advice, explain, guidelines, texts=100, rounds=4",
        query_paper_then="typiclust",
    )
    strategy = strategy_of(settings)
    asked = strategy._settings
    assert (asked.n_texts, asked.n_picks, asked.n_iterations) == (100, 25, 4)
    assert (asked.has_advice, asked.answer) == (True, "explain")
    assert asked.guidelines == "What is it? Label (A, B)."
    assert strategy._then.name == "typiclust"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query_paper_mode": "texts=1000"}, "50 to 400"),
        ({"query_paper_mode": "list, think"}, "one kind"),
        ({"query_paper_mode": "picks=many"}, "'picks=many' is none of"),
        ({"query_paper_then": "activellm-paper"}, "QUERY_PAPER_THEN"),
    ],
)
def test_a_mode_that_cannot_be_is_refused_when_it_is_read(changes, said):
    with pytest.raises(SettingsError, match=said):
        strategy_of(Settings(query_strategy="activellm-paper", **changes))


def test_the_default_strategy_asks_an_llm_only_when_told_to():
    assert strategy_of(Settings())._scorer is None
    assert strategy_of(replace(Settings(), query_llm_judge=True))._scorer is not None


def test_a_strategy_that_is_not_there_is_one_sentence_with_those_that_are(tmp_path):
    settings = Settings(home=tmp_path, query_strategy="oracle")
    with pytest.raises(SettingsError, match="QUERY_STRATEGY='oracle'.*activellm-paper, random"):
        build_services(settings, Adapters(FakePlatform(), FakeLanguageModel()))


@pytest.mark.parametrize("recipe", ["default", "plain", "probe"])
def test_the_settings_name_the_recipe_and_a_round_as_published_overrules_them(recipe):
    make = student_factory(Settings(student_recipe=recipe), None)
    assert make("default").recipe.name == recipe
    assert make("paper").recipe.name == "paper"
