"""Durable workflows survive a kill, and never run twice at once for one project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from backend.domain.chunks import CHUNKS_AT_ONCE

CHILD = Path(__file__).with_name("jobs_child.py")
ROOT = Path(__file__).parent.parent


def run_child(folder: Path, kill_in: str, *others: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(CHILD), str(folder), kill_in, *others]
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def test_a_killed_worker_resumes_at_the_step_where_it_was(tmp_path):
    assert run_child(tmp_path, "annotate") == -signal.SIGKILL
    assert run_child(tmp_path, "never") == 0
    lines = (tmp_path / "trace").read_text().splitlines()
    steps = [line.split()[0] for line in lines if "1.1" in line]
    assert steps == ["sync", "annotate", "annotate", "publish"]
    assert lines[-1] == "finished"


def test_the_same_job_is_not_queued_twice_for_a_project(tmp_path):
    assert run_child(tmp_path, "never") == 0
    assert "submitted True False" in (tmp_path / "trace").read_text().splitlines()


def test_another_worker_resumes_what_a_dead_one_left(tmp_path):
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    assert run_child(tmp_path, "annotate", url, "first", "nobody") == -signal.SIGKILL
    assert run_child(tmp_path, "never", url, "second", "first") == 0
    lines = (tmp_path / "trace").read_text().splitlines()
    assert "resumed 1" in lines
    assert [line.split()[0] for line in lines if "1.1" in line] == [
        "sync",
        "annotate",
        "annotate",
        "publish",
    ]
    assert lines[-1] == "finished"


def test_a_dead_worker_s_chunks_are_taken_over_and_those_done_are_not_done_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    assert run_child(tmp_path, "6", url, "first", "nobody") == -signal.SIGKILL
    assert run_child(tmp_path, "share", url, "second", "first") == 0
    assert_chunks_are_taken_over(tmp_path)


def assert_chunks_are_taken_over(folder: Path) -> None:
    """Eleven chunks are done, those under way at the kill anew; one fails, the others go on."""
    lines = (folder / "trace").read_text().splitlines()
    done = [int(line.split()[1]) for line in lines if line.startswith("chunk")]
    assert set(done) == set(range(11))
    assert len(done) < 11 + CHUNKS_AT_ONCE
    assert lines[-2:] == ["counted 11", "finished"]
