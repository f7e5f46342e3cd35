"""The whole backend behind Flask's test client, with the LLM and Label Studio in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from backend.services import Adapters, Services, build_services
from backend.setting_values import Secret
from backend.settings import Settings
from backend.web.app import build_app
from model import FreeALBackend
from tests.fakes import FakeLanguageModel, FakePlatform


def thinks(prompt: str) -> dict[str, float]:
    """Probability of each answer word: sure of good texts, sure of bad ones."""
    is_good = "good" in prompt.rsplit("Text:", 1)[-1]
    return {"positive": 0.8 if is_good else 0.1, "negative": 0.1 if is_good else 0.8}


@pytest.fixture
def language_model() -> FakeLanguageModel:
    return FakeLanguageModel(thinks)


@pytest.fixture
def make_services(tmp_path, migrated_url, language_model):
    made: list[Services] = []

    def make(**changes) -> Services:
        settings = replace(Settings(home=tmp_path, database_url=Secret(migrated_url)), **changes)
        made.append(build_services(settings, Adapters(FakePlatform(), language_model)))
        return made[-1]

    yield make
    for services in made:
        services.close()


@pytest.fixture
def services(make_services) -> Services:
    return make_services()


@pytest.fixture
def client_for(monkeypatch):
    def make(services: Services) -> FlaskClient:
        monkeypatch.setattr(FreeALBackend, "services", services)
        monkeypatch.setattr(FreeALBackend, "_services_pid", 0)
        return build_app(services, FreeALBackend).test_client()

    return make


@pytest.fixture
def client(services, client_for) -> Iterator[FlaskClient]:
    yield client_for(services)
