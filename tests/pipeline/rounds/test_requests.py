"""However many ask for a round, one is made, and each is told."""

from __future__ import annotations

from functools import partial

import pytest

from backend.domain.audit import act_as
from backend.domain.projects import Disconnection, JobKind
from backend.domain.rounds import RoundState
from backend.errors import InvalidRequest, UnknownModelVersion
from backend.pipeline.rounds.requests import RoundRequests
from tests.pipeline.conftest import House
from tests.pipeline.steps import PlainSteps


@pytest.fixture
def house(stores, tmp_path) -> House:
    return House(stores, folder=tmp_path, orders_queue=True, chunk=20)


@pytest.fixture
def project(house):
    project_id = house.labeled(24)
    return house.projects.get(project_id)


@pytest.fixture
def requests(stores) -> RoundRequests:
    return RoundRequests(stores)


def begin(house, project, *, is_asked=True):
    step = partial(house.round_steps.scheduler.begin, is_asked=is_asked)
    return PlainSteps().run("begin", step, project.id)


def asked_for(house):
    return [one for one in house.jobs.job_requests() if one[1] == JobKind.ROUND_NOW]


def take(house) -> None:
    """Do what the worker does with a request: it is a job from then on."""
    for request in asked_for(house):
        assert house.jobs.drop_request(*request)


def finished(house, project) -> None:
    """Have the first round behind the project, so that none is due by itself."""
    opened = house.rounds.open(project, recipe="default", reason="first", n_human=0)
    house.rounds.finish(opened, RoundState.REFUSED)


def test_a_round_that_label_studio_was_gone_for_is_asked_for_again(house, project, requests):
    finished(house, project)
    requests.start(project)
    take(house)
    house.projects.disconnect(project.id, Disconnection.REFUSED, "no proper answer")
    begin(house, project)
    assert house.rounds.running(project.id) is None
    house.projects.reconnect(project)
    requests.repeat(project)
    assert len(asked_for(house)) == 1
    begin(house, project)
    assert house.rounds.running(project.id).reason == "asked for"


def test_each_wish_of_label_studio_is_repeated_until_its_round_begins(house, project, requests):
    finished(house, project)
    for number in (2, 3):
        requests.note_platform(project.id)
        requests.note_platform(project.id)
        requests.repeat(project)
        assert len(asked_for(house)) == 1
        assert begin(house, project)["round"] == number
        requests.repeat(project)
        assert asked_for(house) == []
        house.rounds.finish(house.rounds.running(project.id), RoundState.REFUSED)


def test_a_round_that_begins_while_it_is_asked_for_again_is_not_made_twice(
    house, project, requests, monkeypatch
):
    finished(house, project)
    requests.start(project)
    take(house)
    request_job = house.jobs.request_job

    def request_late(*args):
        begin(house, project)
        return request_job(*args)

    monkeypatch.setattr(house.jobs, "request_job", request_late)
    requests.repeat(project)
    assert house.rounds.running(project.id).number == 2
    assert asked_for(house) == []


@pytest.mark.parametrize("is_taken", [False, True])
def test_two_who_ask_get_one_round_and_are_told(house, project, requests, is_taken):
    finished(house, project)
    act_as("anna")
    assert requests.start(project).startswith("A round is asked for; no worker runs")
    if is_taken:
        take(house)
    act_as("ben")
    assert "asked for already by anna" in requests.start(project)
    begin(house, project)
    assert requests.asked(project) is None
    assert asked_for(house) == []
    assert "Round 2 runs already" in requests.start(project)
    assert [one.state for one in house.rounds.history(project.id)][1:] == [RoundState.RUNNING]


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_round_that_is_called_off_does_not_begin(house, project, requests, is_taken):
    finished(house, project)
    requests.start(project)
    if is_taken:
        take(house)
    assert requests.cancel(project) == "The round that was asked for is called off."
    assert requests.cancel(project) == "No round is running."
    if is_taken:
        assert begin(house, project)["is_stopped"]
    assert house.rounds.running(project.id) is None
    requests.start(project)  # the next one is wanted
    take(house)
    assert begin(house, project)["round"] == 2


def test_a_round_that_is_called_off_while_it_is_opened_is_cancelled(
    house, project, requests, monkeypatch
):
    finished(house, project)
    requests.start(project)
    take(house)

    def open_late(*args, **values):
        assert requests.cancel(project) == "The round that was asked for is called off."
        return opened(*args, **values)

    opened = house.rounds.open
    monkeypatch.setattr(house.rounds, "open", open_late)
    assert begin(house, project)["is_stopped"]
    assert house.rounds.running(project.id) is None
    assert house.rounds.history(project.id)[-1].state is RoundState.CANCELLED
    monkeypatch.undo()
    requests.start(project)  # the next one is wanted
    take(house)
    assert begin(house, project)["round"] == 3


def test_a_round_that_runs_is_cancelled(house, project, requests):
    house.rounds.open(project, recipe="default", reason="asked for", n_human=0)
    assert requests.cancel(project) == "Round 1 is cancelled."
    assert house.rounds.history(project.id)[0].state is RoundState.CANCELLED


def test_what_is_asked_for_outlives_a_round_that_was_not_due(house, project, requests):
    finished(house, project)
    requests.start(project)
    assert begin(house, project, is_asked=False)["is_stopped"]
    assert requests.asked(project) is not None


def test_no_round_is_started_for_a_project_that_is_gone(house, project, requests):
    house.projects.disconnect(project.id, why="it is deleted")
    gone = house.projects.get(project.id)
    assert requests.start(gone) == "No round is started: it is deleted."
    assert asked_for(house) == []


def test_an_earlier_release_returns_unless_another_is_on_its_way(house, project, requests):
    first = house.stores.releases.history(project)
    assert [one.can_return for one in first] == [False, True]
    earlier = first[1].name
    with pytest.raises(UnknownModelVersion, match="nothing"):
        requests.roll_back(project, "nothing")
    draft = house.stores.releases.draft(project, [], [], {})
    with pytest.raises(InvalidRequest, match=f"{draft.model_version} is being published"):
        requests.roll_back(project, earlier)
    house.stores.releases.promote(draft)
    house.jobs.record_heartbeat("worker")
    says = requests.roll_back(house.projects.get(project.id), earlier)
    assert says == f"The worker publishes {earlier} and then serves it."
    assert house.stores.releases.pending(project).model_version == earlier
