"""Dismissals belong to a task's text, and issues stand until people answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.domain.labels import HumanLabel
from backend.domain.projects import Event, Task
from backend.store import IssueStore, TaskStore


@pytest.fixture
def issues(database) -> IssueStore:
    return IssueStore(database)


@pytest.fixture
def tasks(database) -> TaskStore:
    return TaskStore(database)


def test_a_dismissal_is_kept_with_its_first_author_and_undone(issues, tasks, project):
    tasks.save(project.id, [Task(1, {"text": "one"})])
    assert issues.dismiss(project.id, 1, "1-ab", "anna")
    assert issues.dismiss(project.id, 1, "1-ab", "ben")
    assert issues.dismissed(project.id)["1-ab"].by == "anna"
    assert issues.undo(project.id, "1-ab")
    assert not issues.undo(project.id, "1-ab")
    assert issues.dismissed(project.id) == {}


def test_a_dismissal_ends_with_the_text_and_with_the_task(issues, tasks, project):
    tasks.save(project.id, [Task(n, {"text": "one"}) for n in (1, 2)])
    assert issues.dismiss(project.id, 1, "1-ab", "anna")
    assert issues.dismiss(project.id, 2, "2-ab", "anna")
    tasks.save_listing(project.id, [Task(1, {"text": "another"})], datetime.now(UTC))
    tasks.apply(project.id, Event("TASKS_DELETED", deleted_task_ids=(2,)), None)
    assert issues.dismissed(project.id) == {}
    assert not issues.dismiss(project.id, 2, "2-ab", "anna")
    assert issues.dismiss(project.id, 1, "1-ab", "ben")
    assert issues.dismissed(project.id)["1-ab"].by == "ben"


def test_an_issue_stands_until_people_answer_after_it_was_found(issues, tasks, project):
    moment = datetime.now(UTC)
    given = (None, ({"value": 1},), False, False)
    labels = (
        HumanLabel(7, 1, *given, moment),
        HumanLabel(8, 2, *given, moment),
        HumanLabel(9, 3, *given, moment, is_copied=True),
    )
    tasks.save(project.id, [Task(n, {"text": "one"}) for n in (1, 2, 3)])
    tasks.apply(project.id, Event("ANNOTATION_CREATED", annotations=labels), None)
    ids = [1, 2, 3, 99]
    assert issues.standing(project.id, ids, moment) == {1, 2, 3}
    assert issues.standing(project.id, ids, moment - timedelta(seconds=1)) == {3}
