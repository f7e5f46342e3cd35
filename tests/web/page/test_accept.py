"""The Accept tab: what is certified, the forms that accept and undo, and the download."""

from __future__ import annotations

import json
import logging

import pytest

from backend.domain.projects import JobKind
from tests.web.page.test_quality import figures_of
from tests.web.page.test_site import BROWSER, OWN, html, token
from tests.web.test_ml_routes import setup_body

ROW = {
    "max_error": 0.05,
    "threshold": 0.91,
    "n_certified": 1234,
    "reason": "0 of 90 holdout labels <b>",
    "expected_after": {"50": 1500, "100": 1700},
}
REPORT = {
    "n_checked": 90,
    "n_wrong": 3,
    "n_labels": 4000,
    "n_accepted": 0,
    "next_task_ids": [7, 9],
    "why_not": "",
    "at": [ROW],
}


@pytest.fixture
def project(client, services):
    client.post("/setup", json=setup_body())
    found = services.stores.projects.all()[0]
    report = {"question_version": found.question_version, **REPORT}
    services.stores.state.put(found.id, "certificate", report)
    return found


def test_what_is_certified_is_shown_as_status_tells_it(client, project):
    text = html(client, "/projects/1/accept")
    for expected in ("1,234", "0.910", "1,700", "answered 90 tasks", "7, 9", "labels &lt;b&gt;"):
        assert expected in text
    assert "Take accepted labels back" not in text


def test_the_plot_names_its_axes_and_keeps_its_rates_apart(client, project):
    (figure,) = figures_of(html(client, "/projects/1/accept"))
    assert [trace["y"] for trace in figure["data"]] == [[1234], [1500], [1700]]
    layout = figure["layout"]
    assert layout["xaxis"] == {"title": {"text": "wrong at most"}, "type": "category"}
    assert layout["yaxis"]["title"] == {"text": "labels"}


def test_where_nothing_is_certified_nor_expected_no_empty_plot_is_drawn(client, services, project):
    nothing = ROW | {"n_certified": 0, "threshold": None, "expected_after": {"50": 0, "100": 0}}
    report = {"question_version": project.question_version, **REPORT, "at": [nothing]}
    services.stores.state.put(project.id, "certificate", report)
    text = html(client, "/projects/1/accept")
    assert figures_of(text) == []
    assert "0 of 90 holdout labels" in text


def test_accept_and_undo_ask_the_worker(client, services, project, caplog):
    caplog.set_level(logging.INFO)
    form = {"csrf_token": token(client), "percent": "2"}
    answer = client.post("/projects/1/accept/accept", data=form, headers=OWN)
    assert answer.status_code == 303
    assert services.acceptor.request(project.id).max_error == 0.02
    kinds = [kind for _, kind, _ in services.stores.jobs.job_requests()]
    assert JobKind.ACCEPT in kinds
    assert "Take accepted labels back" in html(client, "/projects/1/accept")
    client.post("/projects/1/accept/undo", data=form, headers=OWN)
    assert services.acceptor.request(project.id).state == "undoing"
    told = [line.getMessage() for line in caplog.records if line.name == "freeal.audit"]
    by = f"project={project.id} by=127.0.0.1"
    assert told == [f"action=accepted {by} max_error=0.02", f"action=taken-back {by}"]


@pytest.mark.parametrize("action", ["accept", "undo"])
def test_nothing_is_asked_for_a_project_that_is_not_connected(client, services, project, action):
    services.stores.projects.disconnect(project.id, why="Label Studio has deleted it")
    form = {"csrf_token": token(client), "percent": "2"}
    client.post(f"/projects/1/accept/{action}", data=form, headers=OWN)
    assert services.acceptor.request(project.id) is None
    text = html(client, "/projects/1/accept")
    assert "nothing is accepted or taken back: Label Studio has deleted it" in text


@pytest.mark.parametrize("percent", ["", "much", "0", "100", "nan"])
def test_what_is_no_error_rate_is_refused_in_words(client, services, project, percent):
    form = {"csrf_token": token(client), "percent": percent}
    client.post("/projects/1/accept/accept", data=form, headers=OWN)
    assert services.acceptor.request(project.id) is None
    assert "expected a number of percent" in html(client, "/projects/1/accept")


def test_a_form_without_its_token_accepts_nothing(client, services, project):
    answer = client.post("/projects/1/accept/accept", data={"percent": "5"}, headers=OWN)
    assert answer.status_code in (400, 403)
    assert services.acceptor.request(project.id) is None


def test_the_certified_labels_can_be_taken_home(client, project):
    answer = client.get("/projects/1/accept/certified.jsonl", headers=BROWSER)
    assert answer.status_code == 200
    assert [json.loads(line) for line in answer.get_data(as_text=True).splitlines()] == []
