"""Two workers label one project on a real PostgreSQL, and one of them is killed."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from backend.launcher.processes import Processes
from backend.setting_values import Secret
from backend.settings import Settings
from benchmarks.scale import Cluster, fill, kill_worker, new_database, open_cluster, wait_published
from benchmarks.scripted_label_studio import Script
from benchmarks.serving import CONFIG
from tests.postgresql import postgresql

pytestmark = pytest.mark.e2e
SCRIPT = Script(CONFIG, "http://127.0.0.1:9090", ["good", "bad", "neither"], 1_200)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="freeal-workers-") as name,
        postgresql(Path(name) / "server") as server,
        Processes(home=Path(name), console=Console(quiet=True)) as processes,
    ):
        settings = Settings(
            home=Path(name) / "home",
            database_url=Secret(new_database(server, "workers")),
            manage_queue=False,
            annotate_chunk=16,
            encoder_model="letters",
            student_model="letters",
        )
        with open_cluster(processes, settings, SCRIPT, latency_s=0.5) as cluster:
            yield cluster


@pytest.mark.parametrize("killed", [0, 1])
def test_the_other_worker_does_the_chunks_of_one_that_is_killed_and_none_twice(cluster, killed):
    project = fill(cluster.services, SCRIPT)
    workers = [cluster.start_worker(number) for number in (0, 1)]
    wait_published(cluster, project, SCRIPT.n_tasks // 4)
    wait_live(cluster, ["worker-0", "worker-1"])
    kill_worker(workers[killed])
    wait_published(cluster, project, SCRIPT.n_tasks)
    stores = cluster.services.stores
    progress = stores.labels.progress(project)
    assert (progress.n_labelled, progress.n_to_label) == (SCRIPT.n_tasks, 0)
    by_llm = Counter(
        w.example_id for w in stores.labels.weak_labels(project) if w.annotator_kind.is_llm
    )
    assert by_llm == Counter(SCRIPT.ids(1))
    counts = cluster.counts()
    assert (counts["n_predicted"], counts["n_doubled"]) == (SCRIPT.n_tasks, 0)
    wait_live(cluster, [f"worker-{1 - killed}"])


def wait_live(cluster: Cluster, workers: list[str]) -> None:
    """Wait until these workers alone are live: a dead one counts for the age of its heartbeat."""
    deadline = time.monotonic() + 60
    while (live := cluster.services.stores.jobs.live_workers()) != workers:
        assert time.monotonic() < deadline, f"{live} are live, not {workers}"
        time.sleep(0.5)
