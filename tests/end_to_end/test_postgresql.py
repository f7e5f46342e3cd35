"""The same house on a real PostgreSQL: stores, workflows, and a worker that is gone for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import postgresql
from tests.test_jobs import assert_chunks_are_taken_over, run_child

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL of the tests' own."""
    with (
        tempfile.TemporaryDirectory(prefix="freeal-postgresql-") as folder,
        postgresql(Path(folder) / "server") as url,
    ):
        yield url


def test_stores_workflows_and_routes_do_the_same_on_postgresql(server):
    suites = ("tests/store", "tests/pipeline", "tests/web", "tests/test_backup.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", *suites]
    environment = {**os.environ, "TEST_POSTGRESQL_URL": server}
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_a_worker_that_is_gone_has_its_workflow_finished_by_another(server, tmp_path):
    url = f"{server}/postgres"
    assert run_child(tmp_path, "annotate", url, "first", "nobody") == -signal.SIGKILL
    assert run_child(tmp_path, "never", url, "second", "first") == 0
    lines = (tmp_path / "trace").read_text().splitlines()
    steps = [line.split()[0] for line in lines if "1.1" in line]
    assert steps == ["sync", "annotate", "annotate", "publish"]
    assert lines[-1] == "finished"


def test_a_worker_that_is_gone_has_its_chunks_done_by_another(server, tmp_path):
    url = f"{server}/postgres"
    assert run_child(tmp_path, "6", url, "third", "nobody") == -signal.SIGKILL
    assert run_child(tmp_path, "share", url, "fourth", "third") == 0
    assert_chunks_are_taken_over(tmp_path)
