"""The page in a real browser, served by a web process of its own: values, access, both schemes.

Its database is filled here, so neither a Label Studio nor an LLM is started.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, ViewportSize
from rich.console import Console

from backend.domain.labels import AnnotatorKind, HumanLabel, WeakLabel
from backend.domain.projects import Event, Prediction, ProjectId, Task
from backend.domain.rounds import RoundState
from backend.launcher.environments import PROJECT_FOLDER
from backend.launcher.processes import Processes
from backend.services import Services, build_services
from backend.settings import Settings
from backend.supervise import web_command
from backend.web.page.site import PARTS
from tests.conftest import SENTIMENT
from tests.end_to_end.browser import open_browser
from tests.end_to_end.stack import unused_port
from tests.end_to_end.test_round_kinds import ENTITIES, TOPICS
from tests.web.page.test_quality import estimate, quality
from tests.web.page.test_site import HOSTILE

pytestmark = pytest.mark.e2e

N_TASKS = 120
NARROW = ViewportSize(width=360, height=740)
KINDS = {1: ("sentiment", SENTIMENT), 2: ("topics", TOPICS), 3: ("names", ENTITIES)}
SPAN_ERRORS = {"right": 31, "wrong border": 7, "wrong type": 2, "invented": 3, "missing": 5}


def fill(services: Services, number: int) -> None:
    """Store a project with labels, answers and a released round."""
    name, config = KINDS[number]
    project_id = ProjectId(f"{number}.1795215594")
    stores = services.stores
    project, _ = stores.projects.save(project_id, label_config=config, title=f"{name} {HOSTILE}")
    ids = range(1, N_TASKS + 1)
    stores.tasks.save(project_id, [Task(n, {"text": f"{HOSTILE} {n}"}) for n in ids])
    llm = {"annotator": "fake", "annotator_kind": AnnotatorKind.LLM}
    answered: dict[str, Any] = {"spans": ()} if number == 3 else {"probabilities": (0.9, 0.1)}
    labels = [WeakLabel(n, name, **llm, **answered) for n in ids]
    predictions = [Prediction(n, project.model_version, (), 0.5) for n in ids]
    stores.labels.save(project, labels, predictions)
    people = [HumanLabel(n, n, 7, (), False, False, datetime.now(UTC)) for n in range(1, 31)]
    stores.tasks.apply(project_id, Event("x", annotations=tuple(people)), None)
    stores.jobs.note_problem(project_id, "llm", f"the LLM server does not answer {HOSTILE}")
    found = quality(("one", "two"))
    if number == 3:
        found = {key: v for key, v in found.items() if key != "confusion"}
        found["span_errors"] = SPAN_ERRORS
    accuracies = {"llm": estimate(0.7), "small-model": estimate(0.81), "fused": estimate(0.853)}
    figures = {"accuracies": accuracies, "changed": [0.1], "quality": found}
    for _ in range(3):
        made = stores.rounds.open(project, recipe="default", reason="asked for", n_human=30)
        metrics = {"questions": {name: figures}}
        stores.rounds.finish(made, RoundState.RELEASED, metrics=metrics)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A web process that answers, with a project of each kind of question."""
    home = tmp_path_factory.mktemp("page")
    nowhere = "http://127.0.0.1:9"
    settings = Settings(home=home, port=unused_port(), label_studio_url=nowhere)
    settings = replace(settings, llm_base_url=f"{nowhere}/v1", backend_url=settings.own_url)
    with closing(build_services(settings)) as services:
        for number in KINDS:
            fill(services, number)
    with Processes(home=home, console=Console(stderr=True)) as processes:
        web = processes.start(web_command(settings))
        processes.wait_ready(web, url=f"{settings.own_url}/health", deadline_s=300)
        yield settings


@pytest.fixture(scope="module")
def status(settings: Settings) -> dict[int, dict[str, Any]]:
    """What `status --json` says, by Label Studio's number."""
    done = subprocess.run(
        [sys.executable, "-m", "backend", "status", "--json"],
        cwd=PROJECT_FOLDER,
        env=settings.to_env(),
        check=True,
        capture_output=True,
        timeout=300,
    )
    return {one["platform_id"]: one for one in json.loads(done.stdout)["projects"]}


@pytest.fixture(scope="module")
def page(settings: Settings) -> Iterator[Page]:
    with open_browser(settings.own_url) as browser:
        yield browser.page


def open_tab(page: Page, settings: Settings, path: str) -> str:
    """Open an address of the page; return its text once all plots are drawn."""
    page.goto(f"{settings.own_url}{path}")
    page.wait_for_function(
        "[...document.querySelectorAll('.canvas')].every(c => c.querySelector('svg.main-svg'))"
    )
    return page.locator("body").inner_text()


def expect_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def expect_picture(page: Page) -> None:
    """Expect a picture with many colors, wide as the window: nothing scrolls sideways."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, animations="disabled")))
    colors = picture.convert("RGB").getcolors(maxcolors=2**24) or []
    assert len(colors) > 20
    assert max(n for n, _ in colors) < 0.98 * picture.width * picture.height
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("number", KINDS)
def test_the_overview_says_what_the_status_says(page, settings, status, number):
    text, state = open_tab(page, settings, f"/projects/{number}/overview"), status[number]
    name = KINDS[number][0]
    for value in ("n_human_labels", "n_human_labelled_tasks"):
        assert page.locator(f"[data-value={value}]").inner_text() == f"{state[value]:,}"
    done = state["n_tasks"] - state["n_without_label"]
    assert f"{done:,} of {state['n_tasks']:,}" in text
    for found in state["rounds"][-1]["metrics"]["questions"][name]["accuracies"].values():
        assert f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})" in text
    holdout = state["holdout"]
    assert f"{holdout['n_answers']} of {holdout['n_needed']} in the random holdout" in text
    assert state["advice"][name]["labels"] in text
    assert state["problems"][0]["message"] in text
    assert "No worker is alive" in text


@pytest.mark.parametrize("number", KINDS)
def test_quality_says_what_the_round_found(page, settings, status, number):
    text = open_tab(page, settings, f"/projects/{number}/quality")
    found = status[number]["rounds"][-1]["metrics"]["questions"][KINDS[number][0]]["quality"]
    for row in found["by_label"]:
        assert re.search(rf"{row['label']}\s+{row['n_people']}\s+{row['n_found']}", text)
    for kind, n in found.get("span_errors", {}).items():
        assert re.search(rf"{kind}\s+{n}", text)
    assert re.search(r"person 7\s+60\s+12\s+75.0%\s+93.0%", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", *(f"/projects/1/{part.name}" for part in PARTS)])
def test_all_can_read_it_on_a_screen_and_on_a_phone(page, settings, path, scheme):
    page.emulate_media(color_scheme=scheme)
    whole = page.viewport_size
    for size in (whole, NARROW):
        page.set_viewport_size(size)
        open_tab(page, settings, path)
        expect_accessible(page)
        expect_picture(page)
    page.set_viewport_size(whole)


def test_nothing_of_a_text_is_run_and_nothing_comes_from_elsewhere(page, settings):
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("/", "/projects/1/overview", "/projects/1/quality"):
        open_tab(page, settings, path)
    assert dialogs == []
    assert page.locator("main img, main b").count() == 0
    assert {url for url in asked if not url.startswith((settings.own_url, "data:"))} == set()


def test_tabs_are_reached_by_keyboard(page, settings):
    open_tab(page, settings, "/")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.locator("a", has_text="sentiment").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")
    page.get_by_role("link", name="Quality").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/quality")
    assert page.locator("h1").inner_text() == "Quality"
