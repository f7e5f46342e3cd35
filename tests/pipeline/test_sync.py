"""Connection and webhooks: nothing waits for a model, nothing is lost."""

from __future__ import annotations

import pytest

from backend.domain.projects import Event, ProjectId, ProjectInfo, Task
from backend.errors import UnsupportedLabelConfig
from tests.conftest import SENTIMENT, TOPIC

ONE = ProjectId("1.1795215594")


def info(label_config=SENTIMENT, instruction=""):
    return ProjectInfo(id=ONE, label_config=label_config, instruction=instruction)


def test_connecting_asks_for_a_job_once(house):
    first = house.events.connect(ONE, SENTIMENT)
    assert house.events.connect(ONE, SENTIMENT) == first
    assert [(r[0], r[1]) for r in house.jobs.job_requests()] == [(ONE, "prelabel")]


def test_connecting_with_a_config_that_asks_nothing_is_refused_and_keeps_nothing(house):
    with pytest.raises(UnsupportedLabelConfig):
        house.events.connect(ONE, "<View/>")
    assert house.projects.get(ONE) is None


def test_connecting_again_after_a_removal_goes_on(house):
    house.events.connect(ONE, SENTIMENT)
    house.projects.disconnect(ONE)
    assert house.events.connect(ONE, SENTIMENT).is_connected


@pytest.mark.parametrize("action", ["TASKS_CREATED", "START_TRAINING"])
def test_news_that_calls_for_work_asks_for_it(house, action):
    house.events.connect(ONE, SENTIMENT)
    (request,) = house.jobs.job_requests()
    house.jobs.drop_request(*request)
    house.events.receive(Event(action, info(), tasks=(Task(1, {"text": "a"}),)))
    assert len(house.jobs.job_requests()) == 1


def test_a_changed_config_or_instruction_starts_a_version(house):
    first = house.events.connect(ONE, SENTIMENT)
    house.events.receive(Event("PROJECT_UPDATED", info(TOPIC)))
    second = house.projects.get(ONE)
    house.events.receive(Event("PROJECT_UPDATED", info(TOPIC, "Judge fairly.")))
    third = house.projects.get(ONE)
    assert len({first.model_version, second.model_version, third.model_version}) == 3


def test_an_update_that_changes_nothing_that_is_asked_keeps_the_version(house):
    first = house.events.connect(ONE, SENTIMENT)
    house.events.receive(Event("PROJECT_UPDATED", info()))
    assert house.projects.get(ONE).model_version == first.model_version


def test_a_config_that_cannot_be_labelled_leaves_the_old_one(house):
    house.events.connect(ONE, SENTIMENT)
    house.events.receive(Event("PROJECT_UPDATED", info("<View/>")))
    assert house.projects.get(ONE).label_config == SENTIMENT


def test_news_of_a_project_that_never_connected_is_kept_and_starts_nothing(house):
    house.events.receive(Event("TASKS_CREATED", info(), tasks=(Task(1, {"text": "a"}),)))
    assert house.tasks.counts(ONE) == (1, 0)
    assert house.projects.get(ONE) is None


def test_an_event_without_a_project_is_passed_over(house):
    assert house.events.receive(Event("TASKS_CREATED", None)) is False
