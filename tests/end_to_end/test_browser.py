"""What an annotator sees: the pre-annotation, on the task that needs a person most.

With UPDATE_IMAGES=1 the pictures of the documentation are taken anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.browser import LabelStudioBrowser, open_browser, picture_file
from tests.end_to_end.data import SAMPLE_CONFIG, sample
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_round import command

pytestmark = pytest.mark.e2e

N_ROWS = 60


@pytest.fixture(scope="module")
def products(stack: Stack) -> LiveProject:
    """A project with the sample that the demo uses, labelled."""
    config = SAMPLE_CONFIG.read_text(encoding="utf-8")
    data = [{"text": review.text} for review in sample()[:N_ROWS]]
    project = stack.new_project("Product reviews", config, data)
    project.wait_until_labelled(N_ROWS)
    return project


@pytest.fixture
def browser(stack: Stack) -> Iterator[LabelStudioBrowser]:
    """A window in which the demo's user is logged in."""
    credentials = stack.label_studio.credentials
    with open_browser(stack.label_studio.url) as browser:
        browser.log_in(credentials.username, credentials.password)
        yield browser


def tabs_of(project: LiveProject) -> dict[str, int]:
    """Return the tabs of the Data Manager by title, in their order."""
    views = project.stack.call("GET", "/api/dm/views/", params={"project": project.number})
    return {view["data"]["title"]: view["id"] for view in views}


def prediction_of(task: dict[str, Any]) -> dict[str, Any]:
    (prediction,) = task["predictions"]
    return prediction


def choice_in(answer: dict[str, Any]) -> str:
    (region,) = answer["result"]
    (choice,) = region["value"]["choices"]
    return choice


def take_picture(browser: LabelStudioBrowser, name: str, *, width: int, height: int) -> None:
    file = picture_file(name)
    if file is not None:
        browser.save_picture(file, width=width, height=height)


def test_a_tab_shows_the_queue_in_its_order_with_each_prediction_and_its_score(browser, products):
    browser.open_project(products.number)
    wait_for(
        lambda: list(tabs_of(products)) == ["Default", "Queue", "No label"],
        what="the tabs",
        found=lambda: tabs_of(products),
    )
    browser.open_project(products.number, view=tabs_of(products)["Queue"])
    scores = sorted(prediction_of(task)["score"] for task in products.tasks())
    by_score = sorted(products.tasks(), key=lambda task: prediction_of(task)["score"])
    shown = [int(browser.rows.nth(at).inner_text().split()[0]) for at in range(4)]
    assert shown == [task["id"] for task in by_score[:4]]
    first_row = browser.rows.first.inner_text()
    assert f"{scores[0]:.3f}" in first_row
    assert "choices" in first_row
    take_picture(browser, "data-manager.png", width=1120, height=503)


def test_the_annotator_confirms_the_pre_annotation_of_the_first_task(browser, products):
    queue = sorted(products.tasks(), key=lambda task: (prediction_of(task)["score"], task["id"]))
    browser.open_project(products.number)
    shown = browser.label_all_tasks()
    by_id = {task["id"]: task for task in queue}
    assert prediction_of(by_id[shown])["score"] == prediction_of(queue[0])["score"]
    choice = choice_in(prediction_of(by_id[shown]))
    browser.expect_chosen(choice)
    browser.close_side_panel()
    take_picture(browser, "pre-annotation.png", width=1040, height=360)

    annotation_id, following = browser.submit()
    annotation = products.stack.call("GET", f"/api/annotations/{annotation_id}/")
    assert (annotation["task"], choice_in(annotation)) == (shown, choice)
    assert annotation["parent_prediction"] == prediction_of(by_id[shown])["id"]
    assert prediction_of(by_id[following])["score"] == prediction_of(queue[1])["score"]
    browser.expect_chosen(choice_in(prediction_of(by_id[following])))


def test_the_annotator_corrects_a_pre_annotation(browser, products):
    browser.open_project(products.number)
    shown = browser.label_all_tasks()
    task = next(task for task in products.tasks() if task["id"] == shown)
    (other,) = {"Positive", "Negative"} - {choice_in(prediction_of(task))}
    browser.choose(other)
    browser.expect_chosen(other)
    annotation_id, _ = browser.submit()
    annotation = products.stack.call("GET", f"/api/annotations/{annotation_id}/")
    assert (annotation["task"], choice_in(annotation)) == (shown, other)


def test_disconnecting_removes_the_tabs_and_leaves_the_owners(products):
    assert {"Default", "Queue"} < set(tabs_of(products))
    assert products.stack.settings.own_url in products.described()["description"]
    command(products.stack, "disconnect", str(products.number))
    assert list(tabs_of(products)) == ["Default"]
    assert products.described()["description"] == ""
