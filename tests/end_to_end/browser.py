"""Label Studio in a real browser, as an annotator uses it: Debian's Chromium and Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, Response, ViewportSize, expect, sync_playwright

from backend.launcher.environments import PROJECT_FOLDER

_TIMEOUT_S = 60.0
_IMAGES = PROJECT_FOLDER / "docs" / "images"
_N_COLORS = 128  # a third of the bytes of a picture in true color
_VIEWPORT = ViewportSize(width=1280, height=800)
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine
)


def picture_file(name: str) -> Path | None:
    """Return where a picture of the documentation belongs, None unless UPDATE_IMAGES is 1."""
    return _IMAGES / name if os.environ.get("UPDATE_IMAGES") == "1" else None


@contextmanager
def open_browser(url: str) -> Iterator[LabelStudioBrowser]:
    """Yield Label Studio at `url` in a browser with a new, empty profile.

    Two pixels per unit of length, so that pictures are sharp on every screen.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError(
            "the program chromium is not on the PATH, and the browser tests drive it; install it "
            "(on Debian: apt-get install chromium)"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        try:
            context = browser.new_context(viewport=_VIEWPORT, device_scale_factor=2, locale="en-US")
            context.set_default_timeout(1000 * _TIMEOUT_S)
            yield LabelStudioBrowser(context.new_page(), url)
        finally:
            browser.close()


class LabelStudioBrowser:
    """One user's window. Each method returns when the page shows what it has asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url.rstrip("/")

    def log_in(self, username: str, password: str) -> None:
        """Log in by the form."""
        self.page.goto(f"{self._url}/user/login/")
        self.page.locator("input[name=email]").fill(username)
        self.page.locator("input[name=password]").fill(password)
        self.page.locator("button[type=submit]").click()
        self.page.wait_for_url(lambda url: "/login" not in url, wait_until="commit")

    def open_project(self, project: int, *, view: int | None = None) -> None:
        """Open a project's data manager, with its rows, in the view given or the first one."""
        tab = "" if view is None else f"?tab={view}"
        with self.page.expect_response(_lists_tasks):
            self.page.goto(f"{self._url}/projects/{project}/data{tab}", wait_until="commit")
        self._button("Label All Tasks").wait_for()
        self.rows.first.wait_for()

    @property
    def rows(self) -> Locator:
        """The rows of the data manager that are on the screen."""
        return self.page.locator(".lsf-table__row-wrapper:not([class*=head])")

    def label_all_tasks(self) -> int:
        """Press "Label All Tasks"; return the task that the queue gives."""
        with self.page.expect_response(_gives_next_task) as answer:
            self._button("Label All Tasks").click()
        return self._shown(answer.value)

    def submit(self) -> tuple[int, int]:
        """Submit what is chosen; return the annotation's number and the task that comes next."""
        with (
            self.page.expect_response(_gives_next_task) as following,
            self.page.expect_response(_creates_annotation) as created,
        ):
            self.page.get_by_test_id("bottombar-submit-button").click()
        annotation = int(created.value.json()["id"])
        return annotation, self._shown(following.value)

    def choose(self, choice: str) -> None:
        """Choose a label instead of what is chosen now."""
        self._choice(choice).check()

    def expect_chosen(self, choice: str) -> None:
        """Wait until exactly this choice is selected; fails when it does not come to that."""
        expect(self._choice(choice)).to_be_checked(timeout=1000 * _TIMEOUT_S)
        expect(self.page.locator(".lsf-choices input:checked")).to_have_count(1)

    @property
    def text(self) -> str:
        """The text of the task that is shown."""
        return self.page.locator(".lsf-richtext").inner_text()

    def close_side_panel(self) -> None:
        """Fold the panel of regions and details up to the side."""
        self.page.locator("[data-tooltip='Collapse Group']").first.click()
        self.page.locator("[data-tooltip='Expand Group']").first.wait_for()

    def save_picture(self, file: Path, *, width: int, height: int) -> None:
        """Write a PNG of the page in a window of this size, with nothing pointed at."""
        self.page.set_viewport_size(ViewportSize(width=width, height=height))
        self.page.mouse.move(0, 0)
        self.page.evaluate("document.activeElement.blur()")
        self.page.evaluate("document.fonts.ready")
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file, animations="disabled", caret="hide")
        with Image.open(file) as picture:
            small = picture.convert("RGB").quantize(_N_COLORS, dither=Image.Dither.NONE)
        small.save(file, optimize=True)
        self.page.set_viewport_size(_VIEWPORT)

    def _button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def _choice(self, choice: str) -> Locator:
        return self.page.locator(f".lsf-choices input[name='{choice}']")

    def _shown(self, answer: Response) -> int:
        task = answer.json()
        self.page.get_by_test_id("bottombar-submit-button").wait_for()
        expect(self.page.locator(".lsf-richtext")).to_have_text(task["data"]["text"])
        return int(task["id"])


def _lists_tasks(response: Response) -> bool:
    return "/api/tasks?" in response.url and response.ok


def _gives_next_task(response: Response) -> bool:
    return "/api/dm/actions?id=next_task" in response.url


def _creates_annotation(response: Response) -> bool:
    return "/annotations" in response.url and response.request.method == "POST"
