"""What people do on the page: dismiss errors, start, cancel and take back rounds, read prompts."""

from __future__ import annotations

import html as markup
import json
import logging
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest

from backend.domain.labels import HumanLabel
from backend.domain.projects import Event, JobKind, QueuePlace, QueueState, Task
from backend.domain.rounds import RoundState
from backend.errors import LanguageModelUnavailable
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.pipeline.issues import save_issues
from backend.pipeline.status import QUEUE
from tests.web.page.test_site import BROWSER, HOSTILE, OWN, html, token
from tests.web.test_ml_routes import setup_body

N_TASKS = 120


@pytest.fixture
def project(client, services):
    """A connected project whose first texts are hostile."""
    client.post("/setup", json=setup_body())
    project = services.stores.projects.all()[0]
    texts = [f"{HOSTILE} {n}" if n < 4 else f"a good text {n}" for n in range(1, N_TASKS + 1)]
    tasks = [Task(n, {"text": text}) for n, text in enumerate(texts, start=1)]
    services.stores.tasks.save(project.id, tasks)
    return project


def send(client, path: str, **form: str) -> str:
    """Send a form of the page; return the text of the tab that is shown then."""
    data = {"csrf_token": token(client), **form}
    answer = client.post(path, data=data, headers=OWN)
    assert answer.status_code == 303, answer.get_data(as_text=True)
    return markup.unescape(html(client, answer.location))


def find_issues(services, project, *task_ids: int, given: str = "Positive") -> None:
    says = {HOSTILE: ("Negative", 0.8)}
    issues = [
        LabelIssue(i, "sentiment", IssueKind.WRONG, given, "Negative", i == 2, 1 - i / 1000, says)
        for i in task_ids
    ]
    save_issues(services.stores, project, issues)


def ids_on(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'data-issue="(\d+)-', text)]


def audited(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "freeal.audit"]


def test_label_issues_are_listed_page_by_page_as_the_command_lists_them(client, services, project):
    find_issues(services, project, *range(1, 61))
    first, second = (html(client, f"/projects/1/issues?page={number}") for number in (1, 2))
    told = [issue["task_id"] for issue in services.issues.issues(project)]
    assert ids_on(first) + ids_on(second) == told == list(range(1, 61))
    assert "51 to 60 of 60" in second
    assert "<script>alert" not in first
    assert "Positive (by people)" in first
    assert "Negative (80%)" in first


def test_label_issues_are_filtered_by_question(client, services, project):
    find_issues(services, project, 1, 2)
    assert ids_on(html(client, "/projects/1/issues?question=sentiment")) == [1, 2]
    assert ids_on(html(client, "/projects/1/issues?question=another")) == []


def test_an_error_is_dismissed_and_listed_again(client, services, project, caplog):
    find_issues(services, project, 1, 2, 5)
    caplog.set_level(logging.INFO)
    (key, *_) = re.findall(r'data-issue="([^"]+)"', html(client, "/projects/1/issues"))
    shown = send(client, "/projects/1/issues/dismiss?question=sentiment", issue=key)
    assert "Dismissed: the label of task 1" in shown
    assert ids_on(shown) == [2, 5]
    find_issues(services, project, 1, 2, 5)
    assert ids_on(html(client, "/projects/1/issues")) == [2, 5]
    assert ids_on(html(client, "/projects/1/issues?show=dismissed")) == [1]
    shown = send(client, "/projects/1/issues/undo?show=dismissed", issue=key)
    assert "task 1 is listed again" in shown
    assert ids_on(html(client, "/projects/1/issues")) == [1, 2, 5]
    assert f"action=dismissed-issue project={project.id} by=127.0.0.1 issue={key}" in audited(
        caplog
    )
    assert any(line.startswith("action=restored-issue") for line in audited(caplog))


def test_an_error_about_spans_quotes_their_words(client, services, project):
    config = (
        "<View><Text name='text' value='$text'/><Labels name='entity' toName='text'>"
        "<Label value='PER'/><Label value='LOC'/></Labels></View>"
    )
    asking, _ = services.stores.projects.save(project.id, label_config=config)
    wrong = ("PER 2-6", "LOC 7-11", False, 0.9, {})
    save_issues(services.stores, asking, [LabelIssue(5, "entity", IssueKind.WRONG_TYPE, *wrong)])
    text = html(client, "/projects/1/issues")
    assert "PER 2-6 “good”" in text
    assert "LOC 7-11 “text”" in text


def test_dismissing_what_is_gone_is_told_in_words(client, services, project):
    find_issues(services, project, 1)
    (key,) = re.findall(r'data-issue="([^"]+)"', html(client, "/projects/1/issues"))
    services.stores.tasks.apply(project.id, Event("TASKS_DELETED", deleted_task_ids=(1,)), None)
    assert "not there any more" in send(client, "/projects/1/issues/dismiss", issue=key)
    assert "was not dismissed" in send(client, "/projects/1/issues/undo", issue=key)


def test_a_link_opens_the_task_in_label_studio_or_says_that_it_is_gone(client, services, project):
    answer = client.get("/projects/1/issues/task?task=5", headers=BROWSER)
    assert answer.status_code == 302
    assert answer.location == "http://localhost:8080/projects/1/data?task=5"
    for gone in ("999", "x", "9" * 30, ""):
        assert "is not there any more" in html(client, f"/projects/1/issues/task?task={gone}", 404)


def test_the_queue_is_shown_page_by_page_with_reasons_and_health(client, services, project):
    places = [QueuePlace(n, n - 1, f"{HOSTILE} is unsure of {n}") for n in range(1, N_TASKS + 1)]
    releases = services.stores.releases
    releases.promote(releases.draft(project, [], places, {}))
    health = {"n_head": 3, "ascending_share": 1.0, "warnings": ["it counted places"]}
    state = QueueState(project.question_version, "activellm", N_TASKS, 0, (), health)
    services.stores.state.put(project.id, QUEUE, asdict(state))
    label = HumanLabel(7, 2, 3, ({"value": 1},), False, False, datetime.now(UTC))
    services.stores.tasks.apply(project.id, Event("ANNOTATION_CREATED", annotations=(label,)), None)
    text = html(client, "/projects/1/queue")
    upcoming = services.reporter.upcoming(services.stores.projects.get(project.id), 1)
    assert f'<span data-value="n_open">{upcoming.n_open}</span>' in text
    shown = [int(number) for number in re.findall(r'data-task="(\d+)"', text)]
    assert shown == [1, *range(3, 52)]
    last = html(client, "/projects/1/queue?page=999")
    assert [int(n) for n in re.findall(r'data-task="(\d+)"', last)] == list(range(102, 121))
    assert "it counted places" in text
    assert "Answered lately" in text
    assert "user 3" in text
    assert "<script>alert" not in text


def test_a_round_is_started_once_by_two_people(client, services, project, caplog):
    caplog.set_level(logging.INFO)
    first = send(client, "/projects/1/rounds/start")
    second = send(client, "/projects/1/rounds/start")
    assert "A round is asked for; no worker runs" in first
    assert "asked for already by 127.0.0.1" in second
    kinds = [kind for _, kind, _ in services.stores.jobs.job_requests()]
    assert kinds.count(JobKind.ROUND_NOW) == 1
    assert sum(line.startswith("action=started") for line in audited(caplog)) == 2
    shown = send(client, "/projects/1/rounds/cancel")
    assert "called off" in shown
    assert "No round runs." in shown


def test_a_round_shows_its_steps_and_can_be_cancelled(client, services, project):
    rounds = services.stores.rounds
    running = rounds.open(project, recipe="default", reason=HOSTILE, n_human=3)
    progress = {"question": "sentiment", "cycle": 1, "n_done": 256, "n_asked": 2_000}
    rounds.note(running, step="refine 1", progress=progress)
    text = html(client, "/projects/1/rounds")
    assert "ask the LLM again (1): running (sentiment: 256 of 2,000 texts)" in text
    assert "train the student (1): done" in text
    assert "release: to come" in text
    assert "<script>alert" not in text
    assert "<details" in text  # the confirmation, without a script
    assert '<section id="now" data-live="5">' in text
    assert "Round 1 is cancelled." in send(client, "/projects/1/rounds/cancel")
    assert rounds.running(project.id) is None
    assert "Start a round" in html(client, "/projects/1/rounds")


def test_a_round_tells_what_it_decided_as_status_does(client, services, project):
    rounds = services.stores.rounds
    made = rounds.open(project, recipe="default", reason="asked for", n_human=3)
    accuracy = {"value": 0.8, "low": 0.65, "high": 0.9}
    figures = {
        "n_audited": 40,
        "changed": [0.125],
        "n_issues": 7,
        "gate": {"is_promoted": True, "is_better": True, "reason": "better on people's labels"},
        "expected_gain": {"value": 0.031, "low": 0.012, "high": 0.05},
        "accuracies": {"fused": accuracy, "small-model": accuracy | {"value": 0.7}},
    }
    metrics = {"questions": {"sentiment": figures, "other": {"error": "no labels were made"}}}
    rounds.finish(made, RoundState.RELEASED, metrics=metrics, model_version="v9")
    text = html(client, "/projects/1/rounds")
    (told,) = services.reporter.project(project)["rounds"]
    assert f'<dd data-value="state">{told["state"]}' in text
    assert "80.0% (65.0% to 90.0%)" in text
    assert "Expected gain 3.1% of the labels (90 % interval 1.2% to 5.0%)" in text
    assert "better on people&#39;s labels" in text
    assert "changed 12.5% of the labels" in text
    assert "Not learned: no labels were made" in text


def test_a_release_is_rolled_back_to_with_a_confirmation(client, services, project, caplog):
    caplog.set_level(logging.INFO)
    releases = services.stores.releases
    releases.promote(releases.draft(project, [], [], {"kind": "ordering"}))
    earlier = project.model_version
    text = html(client, "/projects/1/rounds")
    assert f'value="{earlier}"' in text
    shown = send(client, "/projects/1/rounds/roll-back", version=earlier)
    assert f"The worker publishes {earlier}" in shown
    assert "(being published)" in shown
    assert releases.pending(project).model_version == earlier
    assert any(f"action=rolled-back project={project.id}" in line for line in audited(caplog))
    for wrong in ("", "nothing", HOSTILE):
        shown = send(client, "/projects/1/rounds/roll-back", version=wrong)
        assert "no version was chosen" in shown or "being published" in shown


def test_nothing_is_started_for_a_deleted_project(client, services, project):
    services.stores.projects.disconnect(project.id, why="Label Studio has deleted it")
    assert "No round is started: Label Studio has deleted it." in send(
        client, "/projects/1/rounds/start"
    )
    for name in ("issues", "queue", "rounds", "settings"):
        assert "Label Studio has deleted it" in html(client, f"/projects/1/{name}")


def test_a_config_that_cannot_be_labeled_is_shown_without_errors(client, services, project):
    find_issues(services, project, 1)
    services.stores.projects.save(project.id, label_config="<View/>")
    for name in ("issues", "queue", "rounds", "settings", "settings?task=1"):
        html(client, f"/projects/1/{name}")


def test_settings_are_shown_without_secrets(make_services, client_for):
    from backend.setting_values import Secret

    services = make_services(llm_api_key=Secret("hush"), llm_base_url="http://a:hush@llm/v1")
    client = client_for(services)
    client.post("/setup", json=setup_body())
    text = html(client, "/projects/1/settings")
    assert "hush" not in text
    assert "LLM_API_KEY" in text
    assert "this backend" in text


def test_what_the_llm_server_offers_is_what_the_worker_saw(client, services, project):
    assert "has not answered the worker yet" in html(client, "/projects/1/settings")
    offered = asdict(replace(services.language_model.describe(), name=HOSTILE, has_chat=True))
    seen = {"seen_at": "2026-11-26T14:16:04+00:00", **offered}
    services.stores.state.put("", "llm_server", seen)
    text = html(client, "/projects/1/settings")
    assert "256 tokens" in text
    assert "conversations" in text
    assert "<script>alert" not in text


def test_prompts_are_masked_unless_asked_for_which_is_logged(client, services, project, caplog):
    caplog.set_level(logging.INFO)
    masked = html(client, "/projects/1/settings?task=5")
    assert "x xxxx xxxx x" in masked
    assert "a good text 5" not in masked
    assert audited(caplog) == []
    shown = html(client, "/projects/1/settings?task=5&text=shown")
    assert "a good text 5" in shown
    line = f"action=showed-text project={project.id} by=127.0.0.1 task=5"
    assert audited(caplog) == [line]
    assert "<script>alert" not in html(client, "/projects/1/settings?task=1&text=shown")


@pytest.mark.parametrize("task", ["999", "x", HOSTILE, "1" * 40])
def test_prompts_about_no_task_are_told_in_words(client, project, task):
    text = html(client, f"/projects/1/settings?task={task}")
    assert "is not there" in text or "named by its number" in text
    assert "<script>alert" not in text


def test_prompts_without_a_server_are_told_in_words(client, project, language_model):
    language_model.failure = LanguageModelUnavailable("connection refused")
    assert "does not answer now" in html(client, "/projects/1/settings?task=5")


def test_the_parts_say_that_no_worker_runs(client, services, project):
    for name in ("issues", "queue", "rounds", "settings"):
        assert "No worker is alive" in html(client, f"/projects/1/{name}")
    services.stores.jobs.record_heartbeat("worker")
    assert "No worker is alive" not in html(client, "/projects/1/rounds")
    assert json.loads(client.get("/health").data)["status"] == "UP"
