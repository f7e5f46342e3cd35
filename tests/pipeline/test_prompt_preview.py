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
    return FakeLanguageModel(lambda prompt: {"positive": 0.8}, n_context_tokens=2048)


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


def connected(house, config=SENTIMENT, data=None):
    number = house.platform.create_project(config, title="Reviews")
    house.platform.import_tasks(number, [data or {"text": TEXT}])
    project_id = house.platform.projects[number].info.id
    house.events.connect(project_id, config)
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


LABELS = '<Labels name="ner" toName="text"><Label value="Person"/><Label value="Place"/></Labels>'
CHOICES = (
    '<Choices name="tone" toName="text"><Choice value="Angry"/><Choice value="Calm"/></Choices>'
)


@pytest.mark.parametrize(
    ("tags", "questions"),
    [
        (LABELS, {"ner"}),
        (CHOICES.replace("toName", 'choice="multiple" toName'), {"tone"}),
        ('<TextArea name="summary" toName="text"/>', {"summary"}),
        ('<Number name="stars" toName="text" min="1" max="100"/>', {"stars"}),
        (LABELS + CHOICES.replace("toName", 'perRegion="true" toName'), {"ner"}),
        (
            CHOICES
            + '<Choices name="why" toName="text" visibleWhen="choice-selected" whenTagName="tone" '
            'whenChoiceValue="Angry"><Choice value="Delay"/><Choice value="Price"/></Choices>',
            {"tone"},
        ),
        ('<Choices name="asked" toName="text" value="$options"/>', {"asked"}),
    ],
)
def test_prompts_of_every_kind_are_masked_and_shown(house, preview, tags, questions):
    config = f'<View><Text name="text" value="$text"/>{tags}</View>'
    data = {"text": TEXT, "options": [{"value": "a hidden one"}, {"value": "another"}]}
    project, task_id = connected(house, config, data)
    masked = preview.prompts(project, task_id, has_text=False)
    assert questions <= {one.question for one in masked}
    assert not any(
        "secret" in text or "hidden" in text for one in masked for _, text in one.messages
    )
    shown = preview.prompts(project, task_id, has_text=True)
    assert any(TEXT in text for one in shown for _, text in one.messages)
    if "$options" in tags:
        assert any("a hidden one" in text for one in shown for _, text in one.messages)


def test_a_question_that_any_answer_shows_is_written_where_the_answer_is_known(house, preview):
    why = (
        '<Choices name="why" toName="text" visibleWhen="choice-selected">'
        '<Choice value="positive"/><Choice value="Price"/></Choices>'
    )
    tone = SENTIMENT.replace("</View>", f"{why}</View>")
    project, task_id = connected(house, tone)
    guidelines = house.guidelines.read(project)
    examples = house.guidelines.examples(guidelines, house.tasks.get(project.id, [task_id]))
    house.ensemble.collect(project, guidelines, examples)
    shown = preview.prompts(project, task_id, has_text=True)
    assert [one.question for one in shown] == ["sentiment", "why"]
