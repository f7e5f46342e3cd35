"""Every kind of question in a real Label Studio: stored, read back, shown, confirmed.

With UPDATE_IMAGES=1 the pictures of docs/label-configs.md are taken anew.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import FloatRect, Page

from backend.domain.labels import Answer
from backend.domain.projects import Prediction, Task
from backend.labelstudio.admin import LabelStudioAdmin
from backend.labelstudio.client import LabelStudioPlatform
from backend.labelstudio.label_config import LabelConfigReader, read_answers
from backend.labelstudio.label_config.offsets import read_html
from backend.launcher.environments import PROJECT_FOLDER
from backend.launcher.label_studio_server import LabelStudioServer
from tests.end_to_end.browser import LabelStudioBrowser, open_browser
from tests.end_to_end.label_config_samples import SAMPLES, Sample

pytestmark = pytest.mark.e2e

IMAGES = PROJECT_FOLDER / "docs" / "images" / "configs"
VERSION = "by-hand-1"
PICTURE_WIDTH = 760
N_ABOVE = 50  # the height of the bar at the top
N_DOCUMENTS = 300
PIECES = (
    "<p> </p> <div> </div> <b> </b> <i> </i> <br> <br/> <ul><li> </li></ul> <table><tr><td> "
    "</td><td> </td></tr></table> <h1> </h1> <span> </span> <html> </html> <body> </body> <head> "
    "</head> <pre> </pre> <hr> <section> </section> <tbody> </tbody> <!--c--> a 1<2 a&b &foo; "
    "&amp; &nbsp; &lt; &eacute; &#128024; &#x41; 🐘 é <!DOCTYPE␣html> <a␣href='x'> </a> <img␣src=x>"
)
COUNTED_BY_THE_BROWSER = """html => new Promise(resolve => {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-same-origin";
    frame.srcdoc = html;
    frame.onload = () => {
        const found = [], inner = frame.contentDocument;
        const walker = inner.createTreeWalker(inner.body, NodeFilter.SHOW_ALL);
        for (let node = walker.currentNode; node; node = walker.nextNode()) {
            if (node.nodeType === Node.TEXT_NODE) found.push(node.textContent);
            else if (node.nodeName === "BR") found.push("\\n");
        }
        frame.remove();
        resolve(found.join(""));
    };
    document.body.appendChild(frame);
})"""
reader = LabelConfigReader(lambda url, _: url)


@dataclass(frozen=True, slots=True)
class House:
    """Label Studio alone, as our adapters, an administrator and an annotator reach it."""

    platform: LabelStudioPlatform
    admin: LabelStudioAdmin
    api: httpx.Client
    browser: LabelStudioBrowser

    def project_with(self, sample: Sample) -> tuple[int, Task]:
        """Create a project with the sample's task."""
        number = self.admin.create_project(sample.name, sample.config)
        self.admin.import_tasks(number, [sample.data])
        (task,) = self.platform.tasks(number)
        return number, task

    def label(self, number: int) -> None:
        """Open the queue's next task with its pre-annotation."""
        self.browser.open_project(number)
        self.browser.page.get_by_role("button", name="Label All Tasks", exact=True).click()
        self.browser.page.get_by_test_id("bottombar-submit-button").wait_for()

    def submit(self) -> dict[str, Any]:
        """Submit what is shown; return the annotation."""
        page = self.browser.page
        with page.expect_response(_creates_annotation) as created:
            page.get_by_test_id("bottombar-submit-button").click()
        return dict(created.value.json())


def _creates_annotation(response: Any) -> bool:
    return "/annotations" in response.url and response.request.method == "POST"


@pytest.fixture(scope="module")
def house(label_studio: LabelStudioServer) -> Iterator[House]:
    credentials = label_studio.credentials
    access = (label_studio.url, credentials.token)
    headers = {"Authorization": f"Token {credentials.token}"}
    with (
        closing(LabelStudioPlatform(*access)) as platform,
        closing(LabelStudioAdmin(*access)) as admin,
        httpx.Client(base_url=label_studio.url, headers=headers, trust_env=False) as api,
        open_browser(label_studio.url) as browser,
    ):
        browser.log_in(credentials.username, credentials.password)
        yield House(platform, admin, api, browser)


def take_picture(page: Page, sample: Sample) -> None:
    """Write a picture of the task alone."""
    collapse = page.locator("[data-tooltip='Collapse Group']")
    if collapse.count():
        collapse.first.click()
        page.locator("[data-tooltip='Expand Group']").first.wait_for()
    page.mouse.move(0, 0)
    page.evaluate("document.fonts.ready")
    IMAGES.mkdir(parents=True, exist_ok=True)
    area = FloatRect(x=0, y=N_ABOVE, width=PICTURE_WIDTH, height=sample.height)
    page.screenshot(
        path=IMAGES / f"{sample.name}.png", clip=area, animations="disabled", caret="hide"
    )


def write(sample: Sample, task: Task) -> Prediction:
    """Write the sample's answers as the worker does."""
    schema = reader.read_schema(sample.config)
    assert schema.unsupported == ()
    labels = [replace(label, example_id=task.id) for label in sample.answers]
    prediction = reader.write_prediction(schema, labels, VERSION, task)
    assert prediction is not None
    assert reader.errors(sample.config, prediction) == []
    return prediction


def answers(sample: Sample, result: list[dict[str, Any]], task: Task) -> dict[str, Answer]:
    return read_answers(reader.read_schema(sample.config), result, task.data)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_prediction_is_stored_shown_and_confirmed(house: House, sample: Sample):
    number, task = house.project_with(sample)
    prediction = write(sample, task)
    if sample.values:
        assert tuple(region["value"] for region in prediction.result) == sample.values
    assert house.platform.import_predictions(number, [prediction]) == 1
    house.platform.serve_model_version(number, VERSION)

    (stored,) = house.api.get("/api/predictions/", params={"task": task.id}).json()
    assert stored["result"] == list(prediction.result)
    assert stored["score"] == pytest.approx(prediction.score)
    assert answers(sample, stored["result"], task) == sample.read

    house.label(number)
    sample.shows(house.browser.page)
    if os.environ.get("UPDATE_IMAGES") == "1" and not sample.config_of:
        take_picture(house.browser.page, sample)
    annotation = house.submit()
    assert answers(sample, annotation["result"], task) == sample.read


def test_there_is_none_is_stored_as_an_answer(house: House):
    sample = next(sample for sample in SAMPLES if sample.name == "choices-multiple")
    number, task = house.project_with(sample)
    (label,) = sample.answers
    none = replace(sample, answers=(replace(label, probabilities=(0.1, 0.2, 0.3)),))
    prediction = write(none, task)
    assert house.platform.import_predictions(number, [prediction]) == 1
    (stored,) = house.api.get("/api/predictions/", params={"task": task.id}).json()
    assert (stored["result"], stored["score"]) == ([], pytest.approx(0.7))
    assert answers(sample, stored["result"], task) == {"aspects": Answer()}


def test_visible_text_is_where_the_browser_counts_it(house: House):
    rng = random.Random(5)
    pieces = [*PIECES.replace("␣", "\0").split(), " ", "\n", "  ", "\t"]
    house.browser.page.set_content("<html><body></body></html>")
    n_exact = 0
    for _ in range(N_DOCUMENTS):
        html = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12))).replace("\0", " ")
        text = read_html(html)
        if text.is_exact:
            n_exact += 1
            counted = house.browser.page.evaluate(COUNTED_BY_THE_BROWSER, html)
            # of a character and the separator after it, which has its place, the character counts
            firsts = dict(zip(reversed(text.positions), reversed(text.text), strict=True))
            assert list(firsts.values()) == [counted[at] for at in firsts], html
    assert n_exact > N_DOCUMENTS / 2
