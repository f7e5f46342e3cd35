"""Each part of the page, as the documentation shows it.

With UPDATE_IMAGES=1 (`make pictures`) those in docs/images are taken anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from backend.launcher.simulated_people import simulate_people
from backend.web.page.site import PARTS
from tests.end_to_end.browser import LabelStudioBrowser, open_browser, picture_file
from tests.end_to_end.data import SAMPLE_CONFIG, sample
from tests.end_to_end.stack import LiveProject, Stack
from tests.end_to_end.test_round import command, ordered_release, wait_for_version

pytestmark = pytest.mark.e2e

N_ROWS = 150
MIN_COLORS = 24
WIDTH, HEIGHT = 1120, 720


@pytest.fixture(scope="module")
def products(stack: Stack) -> LiveProject:
    """A project of the sample that people have answered in part, after a round."""
    config, reviews = SAMPLE_CONFIG.read_text(encoding="utf-8"), sample()[:N_ROWS]
    project = stack.new_project("Product reviews", config, [{"text": one.text} for one in reviews])
    stack.admin.open_data_manager(project.number)
    version = ordered_release(project)
    stored = stack.services.stores.projects.get(project.id())
    assert stored is not None
    label_of = {one.text: one.label for one in reviews}
    gold = {task["id"]: label_of[task["data"]["text"]] for task in project.tasks()}
    simulate_people(stack.admin, stack.services, stored, gold)
    command(stack, "round", str(project.number))
    wait_for_version(project, not_under=version)
    return project


def save(browser: LabelStudioBrowser, name: str, tmp_path: Path) -> None:
    """Take a picture, and see that there is something in it."""
    file = picture_file(name) or tmp_path / name
    browser.save_picture(file, width=WIDTH, height=HEIGHT)
    with Image.open(file) as picture:
        colors = picture.convert("RGB").getcolors(1 << 24) or []
    assert len(colors) >= MIN_COLORS, f"{name} shows nothing"


def take_parts(url: str, number: int, folder: Path) -> None:
    """Take a picture of each part of a project's page."""
    with open_browser(url) as browser:
        for part in PARTS:
            browser.page.goto(f"{url}/projects/{number}/{part.name}")
            expect(browser.page.locator("nav [aria-current=page]").last).to_be_visible()
            browser.page.wait_for_load_state("networkidle")
            save(browser, f"page-{part.name}.png", folder)


def test_every_part_of_the_page_has_something_to_show(products, stack, tmp_path):
    take_parts(stack.settings.own_url, products.number, tmp_path)
