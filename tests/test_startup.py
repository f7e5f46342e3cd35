"""Which modules the web process and the commands that people wait for load, in child processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.startup import ROOT, environment, fill

HEAVY = (
    "torch",
    "transformers",
    "scipy.stats",
    "pandas",
    "sklearn",
    "skactiveml",
    "cleanlab",
    "dbos",
    "matplotlib",
    "plotly",
)
LOADED = f"print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
WEB = f"import sys, _wsgi; _wsgi.app.url_map; {LOADED}"
COMMAND = f"""
import runpy, sys
try:
    runpy.run_module("backend", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
{LOADED}
"""


def loaded(home, code: str, *arguments: str) -> str:
    """Run code in a child process; return its last line, which names the heavy modules."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_web_process_starts_without_heavy_modules(tmp_path):
    assert loaded(tmp_path, WEB) == "loaded:"


@pytest.mark.parametrize("command", ["status", "queue 1", "issues 1", "doctor", "settings"])
def test_a_command_answers_without_heavy_modules(tmp_path, command):
    fill(tmp_path)
    assert loaded(tmp_path, COMMAND, *command.split()) == "loaded:"
