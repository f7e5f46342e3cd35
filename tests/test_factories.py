"""Clients, students and query strategies as the settings name them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.active_learning.strategy_interface import QueryStrategy
from backend.errors import EmbeddedModelError, SettingsError
from backend.factories import (
    LazyEncoder,
    model_names,
    pretrained_source,
    query_strategies,
    student_factory,
)
from backend.launcher import model_files
from backend.launcher.embedded_models import MPNET
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


@pytest.fixture
def fetched(monkeypatch):
    """Make folders in place of downloads; return which models were asked for."""
    asked = []

    def ensure(model, *, home, console):
        asked.append(model)
        model.folder(home).mkdir(parents=True)
        return model.folder(home)

    monkeypatch.setattr(model_files, "ensure_encoder", ensure)
    return asked


@pytest.mark.parametrize(
    "name", ["sentence-transformers/all-mpnet-base-v2", "roberta-base", "./my/encoder", ""]
)
def test_folders_and_names_of_a_hub_are_left_as_they_are(name, tmp_path, fetched):
    assert pretrained_source(name, tmp_path) == (name, "")
    assert fetched == []


def test_the_encoder_inside_has_a_name_too(tmp_path, fetched):
    assert pretrained_source("all-MiniLM-L6-v2", tmp_path) == ("", "")
    assert fetched == []


def test_an_embedded_encoder_is_fetched_at_its_first_use(tmp_path, fetched):
    expected = (str(tmp_path / "models" / "all-mpnet-base-v2"), "all-mpnet-base-v2")
    assert pretrained_source("all-mpnet-base-v2", tmp_path) == expected
    assert pretrained_source("all-mpnet-base-v2", tmp_path) == expected
    assert fetched == [MPNET]


def test_the_models_of_rounds_are_named_by_setting(tmp_path):
    names = model_names(Settings(home=tmp_path, student_model="roberta-base"))
    assert names == {
        "ENCODER_MODEL": "all-MiniLM-L6-v2",
        "STUDENT_MODEL": "roberta-base",
        "STUDENT_RECIPE": "default",
    }
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    settings = Settings(home=tmp_path, encoder_model=str(folder))
    before = model_names(settings)["ENCODER_MODEL"]
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert before.startswith("own@")
    assert model_names(settings)["ENCODER_MODEL"] != before


def test_the_web_process_downloads_nothing(tmp_path, fetched):
    settings = Settings(home=tmp_path, encoder_model="all-mpnet-base-v2")
    adapters = Adapters(FakePlatform(), FakeLanguageModel())
    services = build_services(settings, adapters, fetches_models=False)
    with pytest.raises(EmbeddedModelError, match="the worker fetches it"):
        services.encoder.embed(["a text"])
    services.close()
    assert fetched == []


def test_encoder_and_student_are_made_of_the_embedded_model(tmp_path, fetched):
    name = "all-mpnet-base-v2"
    settings = Settings(home=tmp_path, encoder_model=name, student_model=name)
    assert LazyEncoder(settings).name == name
    student = student_factory(settings, None)("default")
    assert student.base == str(tmp_path / "models" / name)
