"""The command line: what people and programs see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.domain.projects import QueuePlace, QueueState, Task
from backend.pipeline.status import QUEUE
from backend.services import Adapters, build_services
from backend.settings import Settings
from backend.settings_table import settings_table
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel, FakePlatform


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("FREEAL_HOME", str(tmp_path))
    monkeypatch.setenv("LLM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")

    def invoke(*words):
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    return invoke


def test_status_without_a_project_names_the_next_steps(run):
    result = run("status")
    assert result.exit_code == 0
    assert "add this backend" in result.stdout
    assert "python -m backend worker" in result.stdout


def test_what_a_command_writes_is_closed_to_other_users(run, tmp_path):
    before = os.umask(0o022)
    try:
        tmp_path.chmod(0o755)
        run("status")
        paths = [tmp_path, *tmp_path.rglob("*")]
        assert [path.name for path in paths if path.stat().st_mode & 0o077] == []
        assert tmp_path / "freeal.db" in paths
    finally:
        os.umask(before)


def test_status_shows_a_project_for_people_and_programs(run, tmp_path):
    services = build_services(
        Settings(home=tmp_path), Adapters(FakePlatform(), FakeLanguageModel())
    )
    services.events.connect("7.1795215594", SENTIMENT)
    services.stores.jobs.note_problem("7.1795215594", "llm", "no answer [from] the server")
    services.close()
    (project,) = json.loads(run("status", "--json").stdout)["projects"]
    assert (project["platform_id"], project["n_tasks"]) == (7, 0)
    assert project["problems"][0]["message"] == "no answer [from] the server"
    assert "no answer [from] the server" in run("status", "7").stdout
    assert json.loads(run("status", "8", "--json").stdout)["projects"] == []


def test_queue_shows_the_next_tasks_with_reasons(run, tmp_path):
    services = build_services(
        Settings(home=tmp_path), Adapters(FakePlatform(), FakeLanguageModel())
    )
    services.events.connect("7.1795215594", SENTIMENT)
    assert "no order yet" in run("queue", "7").stdout
    project = services.stores.projects.get("7.1795215594")
    tasks = [Task(n, {"text": f"good {n}"}) for n in (1, 2, 3)]
    services.stores.tasks.save(project.id, tasks)
    reasons = ("covers 41 [similar] texts", "drawn at random", "LLM unsure")
    places = [
        QueuePlace(task.id, at, reason, is_holdout=at == 1)
        for at, (task, reason) in enumerate(zip(tasks, reasons, strict=True))
    ]
    services.stores.releases.promote(services.stores.releases.draft(project, [], places, {}))
    health = {"n_head": 3, "ascending_share": 1.0, "warnings": ["it counted places"]}
    queue = QueueState(project.question_version, "activellm", 3, 0, (), health)
    services.stores.state.put(project.id, QUEUE, asdict(queue))
    services.close()
    shown = run("queue", "7", "--limit", "2").stdout
    assert "1     1         covers 41 [similar] texts" in shown
    assert "2     2  audit  drawn at random" in shown
    assert "LLM unsure" not in shown
    assert "Warning: it counted places" in shown
    output = json.loads(run("queue", "7", "--json").stdout)
    assert [place["task_id"] for place in output["places"]] == [1, 2, 3]
    assert output["queue"]["warnings"] == ["it counted places"]
    status = run("status", "7").stdout
    assert "activellm ordered 3 tasks" in status
    assert "it counted places" in status


def test_a_round_can_be_followed_where_one_is_started(run, tmp_path):
    services = build_services(
        Settings(home=tmp_path), Adapters(FakePlatform(), FakeLanguageModel())
    )
    services.events.connect("7.1795215594", SENTIMENT)
    assert "Follow it: python -m backend status 7 -f" in run("round", "7").stdout
    services.stores.projects.disconnect("7.1795215594", why="it is deleted")
    services.close()
    refused = run("round", "7").stdout
    assert "No round is started: it is deleted." in refused
    assert "Follow it" not in refused


def test_queue_of_an_unknown_project_is_one_sentence(run):
    result = run("queue", "9")
    assert result.exit_code == 2
    assert "never connected" in result.stderr


def test_doctor_ends_with_one_when_something_fails(run):
    result = run("doctor")
    assert result.exit_code == 1
    assert "LABEL_STUDIO_URL" in result.stdout


def test_a_setting_that_cannot_be_used_is_one_sentence_and_exit_code_two(run, monkeypatch):
    monkeypatch.setenv("PORT", "many")
    result = run("status")
    assert result.exit_code == 2
    assert "PORT" in result.stderr
    assert "Traceback" not in result.output


def test_settings_prints_the_table(run):
    assert run("settings").stdout == settings_table()


@pytest.mark.parametrize("command", ["worker", "status", "doctor", "queue 7"])
@pytest.mark.parametrize("url", ["no url", "postgresql://u:hush@db:port/x"])
def test_a_malformed_database_url_is_one_sentence(run, monkeypatch, command, url):
    monkeypatch.setenv("DATABASE_URL", url)
    result = run(*command.split())
    assert "DATABASE_URL cannot be used" in result.output
    assert "Traceback" not in result.output
    assert "hush" not in result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


def test_a_home_that_cannot_be_written_is_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREEAL_HOME", str(tmp_path / "file"))
    result = run("worker")
    assert result.exit_code == 2
    assert "Error:" in result.output
    assert "Traceback" not in result.output


def test_the_worker_says_in_one_sentence_that_its_jobs_cannot_be_kept(run, tmp_path):
    (tmp_path / "jobs.db").write_text("this is no database, " * 100)
    environment = {**os.environ, "FREEAL_HOME": str(tmp_path)}  # DBOS has one instance a process
    command = [sys.executable, "-m", "backend", "worker"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "the database of jobs failed: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr
