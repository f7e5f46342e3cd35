"""The owner acts on the page, in a real browser beside a real Label Studio."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.domain.rounds import RoundState
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.launcher.environments import PROJECT_FOLDER
from backend.pipeline.issues import save_issues
from tests.end_to_end.browser import open_browser
from tests.end_to_end.data import reviews
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_main_job import SENTIMENT, texts
from tests.end_to_end.test_round import ordered_release, wait_for_version

pytestmark = pytest.mark.e2e

N_ROWS = 40


@pytest.fixture(scope="module")
def project(stack: Stack) -> LiveProject:
    """A project whose queue has an order, with probable errors in its first labels."""
    project = stack.new_project("Page", SENTIMENT, texts(reviews(N_ROWS)))
    ordered_release(project)
    stored = stack.services.stores.projects.get(project.id())
    assert stored is not None
    ids = [task["id"] for task in project.tasks()][:3]
    issues = [
        LabelIssue(i, "sentiment", IssueKind.WRONG, "Positive", "Negative", False, 1 - at / 10, {})
        for at, i in enumerate(ids, start=1)
    ]
    save_issues(stack.services.stores, stored, issues)
    return project


@pytest.fixture
def page(stack: Stack) -> Iterator[Page]:
    with open_browser(stack.settings.own_url) as browser:
        yield browser.page


def told(project: LiveProject, command: str, *options: str) -> Any:
    """Return what a command tells programs."""
    done = subprocess.run(
        [sys.executable, "-m", "backend", command, str(project.number), *options, "--json"],
        cwd=PROJECT_FOLDER,
        env=project.stack.settings.to_env(),
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return json.loads(done.stdout)


def open_part(page: Page, project: LiveProject, name: str) -> None:
    page.goto(f"{project.stack.settings.own_url}/projects/{project.number}/{name}")
    expect(page.locator("nav [aria-current=page]").last).to_be_visible()


def shown_issues(page: Page) -> list[str]:
    return [str(card.get_attribute("data-issue")) for card in page.locator("[data-issue]").all()]


def confirm(page: Page, button: str) -> None:
    """Open a confirmation and agree to it."""
    page.locator("summary", has_text=button).first.click()
    page.get_by_role("button", name=f"Yes, {button[0].lower()}{button[1:]}").first.click()


def test_an_error_is_dismissed_and_its_task_opens_in_label_studio(page, project):
    open_part(page, project, "issues")
    assert shown_issues(page) == [issue["id"] for issue in told(project, "issues")]
    first = shown_issues(page)[0]
    link = page.locator("[data-issue] h2 a").first
    task_id = first.partition("-")[0]
    target = f"/projects/{project.number}/data?task={task_id}"
    opened = page.request.get(f"{project.stack.settings.own_url}{link.get_attribute('href')}")
    assert target in opened.url or "login" in opened.url
    page.get_by_role("button", name="Dismiss: the label is right").first.click()
    expect(page.get_by_role("status")).to_contain_text(f"the label of task {task_id}")
    assert first not in shown_issues(page)
    assert shown_issues(page) == [issue["id"] for issue in told(project, "issues")]
    page.get_by_label("Show").select_option("dismissed")
    page.get_by_role("button", name="Show").click()
    assert shown_issues(page) == [first]
    page.get_by_role("button", name="List it again").click()
    expect(page.get_by_role("status")).to_contain_text("is listed again")
    assert first in [issue["id"] for issue in told(project, "issues")]


def test_the_queue_on_the_page_is_that_of_the_command(page, project):
    open_part(page, project, "queue")
    rows = page.locator("tr[data-task]").all()
    queue = told(project, "queue", "--limit", "50")
    assert [int(str(row.get_attribute("data-task"))) for row in rows] == [
        place["task_id"] for place in queue["places"]
    ]
    expect(page.locator("[data-value=n_open]")).to_have_text(str(queue["n_open"]))
    assert queue["places"][0]["reason"] in rows[0].inner_text()


def test_a_round_is_started_by_two_people_once_and_cancelled(page, project):
    open_part(page, project, "rounds")
    with page.context.new_page() as second:
        open_part(second, project, "rounds")
        for window, words in ((page, "A round is asked for"), (second, "already")):
            window.get_by_role("button", name="Start a round").click()
            expect(window.get_by_role("status")).to_contain_text(words)
    rounds = project.stack.services.stores.rounds
    wait_for(lambda: rounds.running(project.id()) is not None, what="a round")
    open_part(page, project, "rounds")
    expect(page.locator("[aria-current=step], .steps li").first).to_be_visible()
    confirm(page, "Cancel the round")
    expect(page.get_by_role("status")).to_contain_text("Round 1 is cancelled")
    (made,) = rounds.history(project.id())
    assert made.state is RoundState.CANCELLED
    (status,) = told(project, "status")["projects"]
    shown = page.locator("[data-round='1'] [data-value=state]").inner_text()
    assert shown.split(":")[0] == status["rounds"][0]["state"]


def test_an_earlier_release_is_rolled_back_to(page, project):
    open_part(page, project, "rounds")
    version = page.locator("[data-release]", has=page.locator("form")).first
    name = str(version.get_attribute("data-release"))
    confirm(page, "Roll back to it")
    expect(page.get_by_role("status")).to_contain_text(f"The worker publishes {name}")
    assert wait_for_version(project, is_version=name) == name
    open_part(page, project, "rounds")
    expect(page.locator(f"[data-release='{name}'] h3")).to_contain_text("(served)")


def test_prompts_are_masked_and_a_report_needs_nothing_else(page, project, tmp_path):
    first = project.tasks()[0]
    open_part(page, project, f"settings?task={first['id']}")
    words = first["data"]["text"]
    assert words not in page.content()
    page.get_by_role("link", name="Show the text").click()
    expect(page.locator("#prompts")).to_contain_text(words[:40])
    file = tmp_path / "report.html"
    subprocess.run(
        [sys.executable, "-m", "backend", "report", str(project.number), "--html", str(file)],
        cwd=PROJECT_FOLDER,
        env=project.stack.settings.to_env(),
        check=True,
        timeout=300,
    )
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    expect(page.get_by_role("heading", level=1)).to_contain_text("Page")
    assert requested == [file.as_uri()]
    assert words not in page.content()
    assert re.search(r"data-part=\"Rounds\"", page.content())
