"""The prompts that are shown are those that are sent, and masked ones tell no text."""

from __future__ import annotations

import pytest

from backend.errors import InvalidRequest
from backend.llm.annotator import LLMAnnotator
from backend.llm.client.cache import CachedLanguageModel
from backend.pipeline.prompt_preview import PromptPreview
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel
from tests.pipeline.conftest import House

TEXT = "a good secret"


@pytest.fixture
def model() -> FakeLanguageModel:
    return FakeLanguageModel(lambda prompt: {"positive": 0.8, "negative": 0.1})


@pytest.fixture
def house(stores, tmp_path) -> House:
    return House(stores, folder=tmp_path, chunk=20)


@pytest.fixture
def preview(house, model) -> PromptPreview:
    cached = CachedLanguageModel(model, house.stores.llm_cache)
    house.ensemble = house.ensemble.__class__(
        LLMAnnotator(cached), house.similarity, house.ensemble.encoder, house.stores
    )
    return PromptPreview(cached, lambda *_: [(0,)], house.ensemble, house.guidelines)


def connected(house):
    number = house.platform.create_project(SENTIMENT, title="Reviews")
    house.platform.import_tasks(number, [{"text": TEXT}])
    project_id = house.platform.projects[number].info.id
    house.events.connect(project_id, SENTIMENT)
    house.synchronizer.sync(project_id)
    return house.projects.get(project_id), house.tasks.ids(project_id)[0]


def test_the_prompt_that_is_shown_is_the_one_that_is_sent(house, preview, model):
    project, task_id = connected(house)
    (shown,) = preview.prompts(project, task_id, has_text=True)
    assert model.asked == []
    guidelines = house.guidelines.read(project)
    examples = house.guidelines.examples(guidelines, house.tasks.get(project.id, [task_id]))
    house.ensemble.collect(project, guidelines, examples)
    assert (shown.question, [text for _, text in shown.messages]) == ("sentiment", model.prompts)
    assert TEXT in model.prompts[0]


def test_a_masked_prompt_tells_the_length_of_the_text_alone(house, preview):
    project, task_id = connected(house)
    (shown,) = preview.prompts(project, task_id, has_text=False)
    ((_, text),) = shown.messages
    assert "x xxxx xxxxxx" in text
    assert "secret" not in text
    assert "Positive" in text or "positive" in text


def test_a_task_that_is_gone_has_no_prompts(house, preview):
    project, _ = connected(house)
    with pytest.raises(InvalidRequest, match="task 99 is not there"):
        preview.prompts(project, 99, has_text=False)
