"""Commands about what is stored: errors are dismissed, projects reported and deleted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from backend.data_commands import app
from backend.domain.projects import Task
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.pipeline.issues import save_issues
from backend.pipeline.tabs import TABS
from backend.services import Adapters, build_services
from backend.settings import Settings
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel, FakePlatform

ONE, TWO = "7.1795215594", "8.1795215595"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("FREEAL_HOME", str(tmp_path))

    def invoke(*words, answer=None):
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"}, input=answer)

    return invoke


@pytest.fixture
def services(tmp_path):
    """Two projects, of which the first was removed in Label Studio."""
    adapters = Adapters(FakePlatform(), FakeLanguageModel())
    services = build_services(Settings(home=tmp_path), adapters)
    for project_id in (ONE, TWO):
        services.events.connect(project_id, SENTIMENT)
        (services.models / project_id / "1").mkdir(parents=True)
    services.stores.projects.disconnect(ONE)
    yield services
    services.close()


def present(services):
    return [project.id for project in services.stores.projects.all()]


def test_a_removed_project_is_deleted_after_a_question(run, services):
    assert run("purge", "7", answer="n\n").exit_code == 1
    assert present(services) == [ONE, TWO]
    assert f"Project {ONE} is deleted" in run("purge", "7", answer="y\n").stdout
    assert present(services) == [TWO]
    assert [folder.name for folder in services.models.iterdir()] == [TWO]


def test_a_connected_project_is_refused_with_what_to_do(run, services):
    result = run("purge", "8", "--yes")
    assert result.exit_code == 2
    assert "Settings > Model" in result.stderr
    assert present(services) == [ONE, TWO]


def test_all_that_were_removed_long_enough_ago_are_deleted(run, services):
    assert "No project was removed" in run("purge", "--all", "--older-than", "30d", "--yes").stdout
    assert present(services) == [ONE, TWO]
    run("purge", "--all", "--yes")
    assert present(services) == [TWO]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say --all"),
        (("7", "--all"), "say --all"),
        (("--all", "--older-than", "long"), "expected days"),
        (("--all", "--older-than", "-1d"), "expected days"),
        (("9", "--yes"), "never connected"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_deletes_nothing(run, services, words, said):
    result = run("purge", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert present(services) == [ONE, TWO]


def test_deleted_tabs_are_asked_back(run, services, monkeypatch):
    project = services.stores.projects.get(TWO)
    services.stores.state.put(TWO, TABS, {"deleted": ["Queue"]})
    assert "within a sync interval" in run("tabs", "8").stdout
    assert services.stores.state.get(TWO, TABS)["deleted"] == []
    assert not services.tabs.is_due(project)  # nothing is served yet
    monkeypatch.setenv("MANAGE_VIEWS", "false")
    assert "MANAGE_VIEWS" in run("tabs", "8").stderr


def test_an_error_is_dismissed_and_listed_again(run, services):
    project = services.stores.projects.get(TWO)
    services.stores.tasks.save(TWO, [Task(1, {"text": "good"})])
    issue = LabelIssue(1, "sentiment", IssueKind.WRONG, "Positive", "Negative", True, 0.9, {})
    save_issues(services.stores, project, [issue])
    (found,) = json.loads(run("issues", "8", "--json").stdout)
    assert found["id"] in run("issues", "8").stdout
    assert json.loads(run("issues", "8", "--dismiss", found["id"], "--json").stdout) == []
    (dismissed,) = json.loads(run("issues", "8", "--dismissed", "--json").stdout)
    assert dismissed["dismissed_by"].startswith("command line")
    assert json.loads(run("issues", "8", "--undo", found["id"], "--json").stdout) == [found]
    unknown = run("issues", "8", "--dismiss", "1-nothing")
    assert unknown.exit_code == 2
    assert "no such error" in unknown.stderr


def test_a_report_is_written_whole_or_not_at_all(run, tmp_path, services):
    file = tmp_path / "report.html"
    assert "The report is in" in run("report", "8", "--html", str(file)).stdout
    assert file.read_text().startswith("<!doctype html>")
    nowhere = run("report", "8", "--html", str(tmp_path / "none" / "report.html"))
    assert nowhere.exit_code == 2
    assert "Error:" in nowhere.stderr
