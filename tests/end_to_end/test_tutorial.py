"""Every command of docs/tutorial.md, in order, in a fresh clone, with the browser in between."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.launcher.embedded_models import SMOLLM2
from backend.launcher.environments import PROJECT_FOLDER
from backend.launcher.simulated_people import N_ANSWERED
from backend.settings import Settings
from tests.end_to_end.browser import open_browser

pytestmark = pytest.mark.e2e

TUTORIAL = PROJECT_FOLDER / "docs" / "tutorial.md"
URL = "https://github.com/freeal/freeal-label-studio.git"
N_SUBMITTED = 5
READY = "Everything runs until you press Ctrl-C"


@dataclass(frozen=True)
class Block:
    """What stands in one place of the tutorial: commands, or what is done in the browser."""

    kind: str
    commands: tuple[str, ...] = ()


def blocks() -> list[Block]:
    text = TUTORIAL.read_text(encoding="utf-8")
    pattern = r"<!-- (terminal|browser): [^>]*-->(?:\n```bash\n(.*?)```)?|```bash\n(.*?)```"
    return [
        Block(found[1] or "commands", tuple((found[2] or found[3] or "").splitlines()))
        for found in re.finditer(pattern, text, re.DOTALL)
    ]


class Terminal:
    """One shell: what a command changes (folder, variables) holds for the next one."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Return what a command printed; fails unless it succeeded."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho; echo end-of-command $?\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith("end-of-command "):
                assert line.split()[1] == "0", f"{command}\n{''.join(lines)}"
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended at: {command}\n{''.join(lines)}")

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()


@dataclass
class Demo:
    """`make demo` in a terminal of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_ready(self) -> str:
        while READY not in (said := self.log.read_text(encoding="utf-8", errors="replace")):
            assert self.process.poll() is None, said[-3000:]
            time.sleep(0.5)
        return said


@pytest.fixture
def environment() -> dict[str, str]:
    """The user's, where the project's address leads to this checkout."""
    return {
        **{name: value for name, value in os.environ.items() if name != "FREEAL_HOME"},
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{PROJECT_FOLDER.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
        "COLUMNS": "200",
        "LLM_MODEL": SMOLLM2.name,
    }


@pytest.fixture
def terminal(tmp_path: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, environment)
    yield terminal
    terminal.close()


@pytest.fixture
def demo(tmp_path: Path, environment: dict[str, str]) -> Iterator[Demo]:
    log = tmp_path / "demo.log"
    clone = tmp_path / "freeal-label-studio"
    (_, started) = next(b for b in enumerate(blocks()) if b[1].kind == "terminal")
    with log.open("wb") as output:
        script = f"until test -e {clone}/.ready; do sleep 0.2; done; cd {clone}\n" + "\n".join(
            started.commands
        )
        process = subprocess.Popen(
            ["bash", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal
        )
    yield Demo(process, log)
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def reuse_environments(clone: Path) -> None:
    """Put what this checkout has installed into the clone, so that `make` finds it there."""
    (clone / ".venv").symlink_to(PROJECT_FOLDER / ".venv")
    lasting = Settings.from_env().home.absolute()
    (clone / ".freeal").mkdir()
    for folder in ("envs", "models"):
        (clone / ".freeal" / folder).symlink_to(lasting / folder)


def submit_in_the_browser(said: str) -> None:
    """Open the printed address and submit tasks of the queue, the first with the other choice."""
    address = re.search(r"Open +(\S+)/projects/(\d+)/data", said)
    login = re.search(r"Login +(\S+)", said)
    password = re.search(r"Pass +(\S+)", said)
    assert address and login and password, said
    with open_browser(address[1]) as browser:
        browser.log_in(login[1], password[1])
        browser.open_project(int(address[2]))
        browser.label_all_tasks()
        checked = browser.page.locator(".lsf-choices input:checked").get_attribute("name")
        browser.choose("Negative" if checked == "Positive" else "Positive")
        for _ in range(N_SUBMITTED):
            browser.submit()


def exported_rows(clone: Path) -> list[dict[str, object]]:
    lines = (clone / "exported" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_tutorial_can_be_followed(stack, tmp_path, terminal, demo):
    del stack  # makes the environments of Label Studio and vLLM ready, as the first demo does
    clone = tmp_path / "freeal-label-studio"
    said = ""
    for block in blocks():
        if block.kind == "terminal":
            (clone / ".ready").touch()
            said = demo.wait_until_ready()
        elif block.kind == "browser":
            submit_in_the_browser(said)
        for command in block.commands if block.kind == "commands" else ():
            if command == "make install":
                reuse_environments(clone)
            printed = terminal.run(command)
            if " status" in command:
                assert "362" in printed
    deadline = time.monotonic() + 120
    while True:  # the last answer's webhook may still be on its way
        rows = exported_rows(clone)
        if sum(row["source"] == "human" for row in rows) == N_ANSWERED + N_SUBMITTED:
            break
        assert time.monotonic() < deadline, [row for row in rows if row["source"] == "human"]
        terminal.run(".venv/bin/python -m backend export 1 --out exported")
    assert len(rows) == 362
    assert {row["source"] for row in rows} >= {"human"}
    for name in ("labels.csv", "label_studio.json"):
        assert (clone / "exported" / name).stat().st_size > 0
