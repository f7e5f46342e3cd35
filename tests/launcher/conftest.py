"""Fixtures for the launcher's tests: a console that keeps what it shows, and a folder as home."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from backend.launcher.child_process import Command


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def python(home: Path):
    """Make commands that run a piece of Python."""

    def make(code: str, *arguments: str, name: str = "child", **environment: str | None) -> Command:
        argv = (sys.executable, "-c", code, *arguments)
        return Command(name, argv, folder=home, environment=environment)

    return make
