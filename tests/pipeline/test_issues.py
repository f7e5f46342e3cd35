"""A round's probable errors are stored, read while they stand, and exported."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend.domain.audit import act_as
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.issues import LABEL_ISSUES, IssueReader, save_issues
from tests.pipeline.conftest import House
from tests.pipeline.people import people_answer


@pytest.fixture
def house(stores, tmp_path) -> House:
    return House(stores, folder=tmp_path, chunk=20)


def issue(task_id, probability, *, is_human=False):
    says = {"fake": ("Negative", 0.8)}
    given = ("Positive", "Negative", is_human, probability, says)
    return LabelIssue(task_id, "sentiment", IssueKind.WRONG, *given)


def ids_of(house, project):
    return [one["task_id"] for one in reader_of(house).issues(project)]


def reader_of(house) -> IssueReader:
    return IssueReader(house.stores, LabelConfigReader(lambda *_: ""))


def test_errors_are_ranked_and_stand_until_the_question_changes(house):
    project_id = house.labeled(6)
    project = house.projects.get(project_id)
    first, second, *_ = house.tasks.ids(project_id)
    save_issues(house.stores, project, [issue(first, 0.5), issue(second, 0.9), issue(99_999, 0.8)])
    assert ids_of(house, project) == [second, first]
    stored = house.stores.state.get(project_id, LABEL_ISSUES)
    house.stores.state.put(project_id, LABEL_ISSUES, stored | {"question_version": "other"})
    assert ids_of(house, project) == []


def test_an_error_that_people_have_looked_at_since_is_gone(house):
    project_id = house.labeled(6)
    project = house.projects.get(project_id)
    answered = list(people_answer(house, project_id, 2))
    house.prelabel(project_id)
    others = [i for i in house.tasks.ids(project_id) if i not in answered]
    issues = [issue(answered[0], 0.9, is_human=True), issue(others[0], 0.6)]
    save_issues(house.stores, project, issues)
    stored = house.stores.state.get(project_id, LABEL_ISSUES)
    newest = max(label.updated_at for label in house.tasks.human_labels(project_id))
    for seconds, standing in ((1, [answered[0], others[0]]), (-1, [others[0]])):
        found_at = (newest + timedelta(seconds=seconds)).astimezone(UTC).isoformat()
        house.stores.state.put(project_id, LABEL_ISSUES, stored | {"found_at": found_at})
        assert ids_of(house, project) == standing
    assert datetime.fromisoformat(stored["found_at"]).tzinfo is not None


def test_an_export_has_the_errors_beside_the_labels(house, tmp_path):
    project_id = house.labeled(6)
    project = house.projects.get(project_id)
    task_id = house.tasks.ids(project_id)[0]
    save_issues(house.stores, project, [issue(task_id, 0.9)])
    house.exporter.export(project, tmp_path / "out")
    lines = (tmp_path / "out" / "labels.jsonl").read_text().splitlines()
    rows = {row["task_id"]: row for row in map(json.loads, lines)}
    assert [one["suggested"] for one in rows[task_id]["issues"]] == ["Negative"]
    assert all(row["issues"] == [] for i, row in rows.items() if i != task_id)
    assert '""error_probability"": 0.9' in (tmp_path / "out" / "labels.csv").read_text()


def test_a_dismissed_error_stays_away_until_it_is_taken_back(house):
    project_id = house.labeled(6)
    project, reader = house.projects.get(project_id), reader_of(house)
    first, second, *_ = house.tasks.ids(project_id)
    save_issues(house.stores, project, [issue(first, 0.9), issue(second, 0.8)])
    found = reader.issues(project)
    act_as("anna")
    assert reader.dismiss(project, found[0]["id"])
    save_issues(house.stores, project, [issue(first, 0.7), issue(second, 0.8)])  # the next round
    assert ids_of(house, project) == [second]
    (dismissed,) = reader.issues(project, is_dismissed=True)
    assert (dismissed["task_id"], dismissed["dismissed_by"]) == (first, "anna")
    assert reader.undo(project, found[0]["id"])
    assert not reader.undo(project, found[0]["id"])
    assert ids_of(house, project) == [second, first]


def test_a_dismissed_error_comes_back_with_another_label_or_text(house):
    project_id = house.labeled(6)
    project, reader = house.projects.get(project_id), reader_of(house)
    first, second, *_ = house.tasks.ids(project_id)
    save_issues(house.stores, project, [issue(first, 0.9), issue(second, 0.8)])
    for each in reader.issues(project):
        assert reader.dismiss(project, each["id"])
    assert ids_of(house, project) == []
    other = replace(issue(first, 0.9), given="Negative", suggested="Positive")
    save_issues(house.stores, project, [other, issue(second, 0.8)])
    assert ids_of(house, project) == [first]
    house.platform.edit_task(second, {"text": "another text"})
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    save_issues(house.stores, project, [other, issue(second, 0.8)])
    assert ids_of(house, project) == [first, second]


def test_an_error_that_is_gone_cannot_be_dismissed(house):
    project_id = house.labeled(6)
    project, reader = house.projects.get(project_id), reader_of(house)
    task_id = house.tasks.ids(project_id)[0]
    save_issues(house.stores, project, [issue(task_id, 0.9)])
    (found,) = reader.issues(project)
    house.platform.delete_task(task_id)
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    assert not reader.dismiss(project, found["id"])
    assert not reader.dismiss(project, "no such id")
    assert reader.issues(project, is_dismissed=True) == []
