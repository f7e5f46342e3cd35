"""What a listing leaves out is removed only where the listing can be believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from backend.pipeline.sync import LISTING
from tests.pipeline.conftest import House


def problems(house, project_id):
    return [p.message for p in house.jobs.problems(project_id) if p.source == LISTING]


@pytest.fixture
def house(stores) -> House:
    return House(stores, chunk=50)


@pytest.fixture
def project_id(house):
    """A project of 50 tasks that is labeled and published."""
    project_id = house.labeled(50)
    assert house.labels.progress(house.projects.get(project_id)).n_published == 50
    return project_id


def shows(house, monkeypatch, n_tasks):
    """Let Label Studio's listing show the first tasks only."""
    tasks = house.platform.tasks
    monkeypatch.setattr(
        house.platform, "tasks", lambda *args, **more: list(tasks(*args, **more))[:n_tasks]
    )


def counts(house, monkeypatch, n_tasks):
    """Let Label Studio's project claim a number of tasks."""
    project = house.platform.project
    monkeypatch.setattr(
        house.platform, "project", lambda number: replace(project(number), n_tasks=n_tasks)
    )


@pytest.mark.parametrize("n_shown", [0, 30, 49])
def test_a_listing_that_shows_fewer_tasks_than_the_project_counts_removes_none(
    house, project_id, monkeypatch, n_shown
):
    shows(house, monkeypatch, n_shown)
    house.projects.forget_full_sync(project_id)
    house.synchronizer.sync(project_id)
    assert house.tasks.counts(project_id)[0] == 50
    assert house.labels.progress(house.projects.get(project_id)).n_labelled == 50
    assert problems(house, project_id) == [
        f"the listing shows {n_shown} of 50 tasks: nothing is removed"
    ]


def test_many_tasks_are_removed_when_two_listings_minutes_apart_say_so(
    house, project_id, monkeypatch
):
    shows(house, monkeypatch, 20)
    counts(house, monkeypatch, 20)
    for _ in range(3):
        house.projects.forget_full_sync(project_id)
        house.synchronizer.sync(project_id)
    assert house.tasks.counts(project_id)[0] == 50
    assert "30 rows are gone in Label Studio" in problems(house, project_id)[0]
    monkeypatch.setattr("backend.pipeline.sync._SECOND_LOOK", timedelta(0))
    house.projects.forget_full_sync(project_id)
    house.synchronizer.sync(project_id)
    assert house.tasks.counts(project_id)[0] == 20
    assert problems(house, project_id) == []


def test_a_wrong_answer_once_removes_nothing_later(house, project_id, monkeypatch):
    with monkeypatch.context() as wrong:
        shows(house, wrong, 0)
        counts(house, wrong, 0)
        house.synchronizer.sync(project_id)
    house.projects.forget_full_sync(project_id)
    house.synchronizer.sync(project_id)
    assert problems(house, project_id) == []
    monkeypatch.setattr("backend.pipeline.sync._SECOND_LOOK", timedelta(minutes=2))
    shows(house, monkeypatch, 0)
    counts(house, monkeypatch, 0)
    house.synchronizer.sync(project_id)
    assert house.tasks.counts(project_id)[0] == 50


def test_a_few_tasks_are_removed_at_once(house, project_id):
    for task_id in list(house.remote(project_id).tasks)[:20]:
        house.platform.delete_task(task_id)
    house.synchronizer.sync(project_id)
    assert house.tasks.counts(project_id)[0] == 30
