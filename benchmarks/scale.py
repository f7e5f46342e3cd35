"""Measure the labeling rate of one large project by the number of workers on one PostgreSQL."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import requests
from rich.console import Console

from backend.domain.projects import JobKind, Project, ProjectId, Task
from backend.launcher.child_process import ChildProcess, Command
from backend.launcher.processes import Processes, free_port
from backend.services import Services, build_services
from backend.setting_values import Secret
from backend.settings import Settings
from benchmarks.datasets import read_rows
from benchmarks.faults.testbed import descendants, kill
from benchmarks.memory import peak_mb
from benchmarks.report import Report
from benchmarks.scripted_label_studio import CREATED_UNIX, Script
from benchmarks.serving import CONFIG, ROOT
from tests.postgresql import postgresql

PROJECT = ProjectId(f"1.{CREATED_UNIX}")
_SAVED_AT_ONCE = 5_000
_READY_S = 120.0
_POLL_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ScaleRun:
    """What is measured; `latency_s` is the LLM's per list of prompts, however many are in flight.

    `imports_per_s`: predictions that Label Studio takes in a second; 0: as fast as it can, so that
    the workers are what is measured.
    """

    n_tasks: int = 200_000
    workers: tuple[int, ...] = (1, 2, 4)
    latency_s: float = 3.0
    imports_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Servers of one run: settings of its workers, and the processes by what they are."""

    processes: Processes
    settings: Settings
    services: Services
    label_studio: ChildProcess
    llm: ChildProcess

    def start_worker(self, number: int) -> ChildProcess:
        """Start a worker under a name of its own."""
        settings = replace(self.settings, worker_id=f"worker-{number}")
        return self.processes.start(_python(f"worker-{number}", "scale_worker", settings=settings))

    def counts(self) -> dict[str, Any]:
        """Return what Label Studio holds, and how many prompts the LLM has answered."""
        urls = (self.settings.label_studio_url, self.settings.llm_base_url.removesuffix("/v1"))
        found = [requests.get(f"{url}/counts", timeout=60).json() for url in urls]
        return {**found[0], **found[1]}


@contextmanager
def open_cluster(
    processes: Processes, settings: Settings, script: Script, *, latency_s: float
) -> Iterator[Cluster]:
    """Start Label Studio and LLM, scripted, on free ports."""
    console = Console(quiet=True)
    ports = [free_port(at, name="scripted", console=console) for at in (9390, 9490)]
    settings.home.mkdir(parents=True, exist_ok=True)
    file = settings.home / "script.json"
    file.write_text(json.dumps(asdict(script)), encoding="utf-8")
    label_studio = processes.start(
        _python("label-studio", "scripted_label_studio", str(ports[0]), str(file))
    )
    llm = processes.start(_python("llm", "busy_llm", str(ports[1]), str(latency_s)))
    settings = replace(
        settings,
        backend_url=script.backend_url,
        label_studio_url=f"http://127.0.0.1:{ports[0]}",
        label_studio_api_key=Secret("0" * 40),
        llm_base_url=f"http://127.0.0.1:{ports[1]}/v1",
        llm_share=1.0,
        log_level="WARNING",
        round_every=0,
    )
    processes.wait_ready(label_studio, url=f"{settings.label_studio_url}/counts", deadline_s=60)
    processes.wait_ready(llm, url=f"{settings.llm_base_url}/models", deadline_s=60)
    with closing(build_services(settings)) as services:
        yield Cluster(processes, settings, services, label_studio, llm)
    processes.stop(label_studio, llm)


def _python(name: str, module: str, *arguments: str, settings: Settings | None = None) -> Command:
    environment = {"OMP_NUM_THREADS": "1", **(settings.to_env() if settings else {})}
    argv = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    return Command(name, argv, folder=ROOT, environment=environment)


def run(report: Report, config: ScaleRun, *, console: Console) -> None:
    """Label and publish the same project with each number of workers, each from the start."""
    texts = [str(row["text"])[:300] for row in read_rows(None)]
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="freeal-scale-") as folder,
        postgresql(Path(folder) / "postgresql") as server,
        Processes(home=Path(folder), console=console) as processes,
    ):
        for n_workers in config.workers:
            settings = Settings(
                home=Path(folder) / f"home-{n_workers}",
                database_url=Secret(new_database(server, f"workers_{n_workers}")),
                manage_queue=False,
                encoder_model="letters",
                student_model="letters",
            )
            script = Script(
                CONFIG,
                "http://127.0.0.1:9090",
                texts,
                config.n_tasks,
                imports_per_s=config.imports_per_s,
            )
            opened = open_cluster(processes, settings, script, latency_s=config.latency_s)
            with opened as cluster:
                rows.append(_measure(cluster, config, script, n_workers))
            console.print(rows[-1])
    first = rows[0]["labels_per_s"] / rows[0]["n_workers"]
    sizes = [row.pop("bytes_per_task") for row in rows]
    report.results = {
        "rows": [{**row, "ratio": round(row["labels_per_s"] / first, 2)} for row in rows],
        "n_doubled": sum(row["n_doubled"] for row in rows),
        "n_lost": sum(row["n_lost"] for row in rows),
        "n_paid_twice": sum(row["n_paid_twice"] for row in rows),
        "worker_mb": max(row["worker_mb"] for row in rows),
        "bytes_per_task": sizes[-1],
    }


def new_database(server: str, name: str) -> str:
    """Make an empty database on a server; return its URL."""
    plain = server.replace("+psycopg", "")
    with closing(psycopg.connect(f"{plain}/postgres", autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{plain}/{name}"


def fill(services: Services, script: Script) -> Project:
    """Connect the project and store its tasks, as after a full listing."""
    project = services.events.connect(PROJECT, script.label_config)
    ids = script.ids(1)
    for start in range(0, len(ids), _SAVED_AT_ONCE):
        some = ids[start : start + _SAVED_AT_ONCE]
        texts = [f"({i}) {script.texts[i % len(script.texts)]}" for i in some]
        tasks = [Task(i, {"text": text}) for i, text in zip(some, texts, strict=True)]
        services.stores.tasks.save(PROJECT, tasks)
    services.stores.projects.note_full_sync(PROJECT, 0.0, 0)
    services.stores.jobs.request_job(PROJECT, JobKind.PRELABEL, "benchmark")
    return project


def _measure(cluster: Cluster, config: ScaleRun, script: Script, n_workers: int) -> dict[str, Any]:
    """Return rate, memory, processor time and mistakes of one run.

    The rate counts from the first twentieth on, so that the start of the processes, the fit to the
    sample and the growth of the first chunks are left out of it.
    """
    project = fill(cluster.services, script)
    started = time.perf_counter()
    workers = [cluster.start_worker(number) for number in range(n_workers)]
    pids = {"label_studio": [cluster.label_studio.pid], "llm": [cluster.llm.pid]}
    wait_published(cluster, project, max(1, config.n_tasks // 20))
    begun, n_before = time.perf_counter(), cluster.services.stores.publication.n_published(project)
    cpu_before = _cpu_by_part(workers, pids)
    wait_published(cluster, project, config.n_tasks)
    seconds = time.perf_counter() - begun
    cpu = _cpu_by_part(workers, pids)
    shares = {name: round((cpu[name] - cpu_before[name]) / seconds, 2) for name in cpu}
    worker_s = sum(cpu[name] - cpu_before[name] for name in cpu if name.startswith("worker"))
    memory = max(_peak_mb(pid) for worker in workers for pid in _family(worker.pid))
    cluster.processes.stop(*workers)
    counts = cluster.counts()
    usage = cluster.services.stores.llm_cache.usage(PROJECT)
    n_asked = sum(each.n_prompts - each.n_cache_hits for each in usage)
    return {
        "n_workers": n_workers,
        "labels_per_s": round((config.n_tasks - n_before) / seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "n_doubled": counts["n_doubled"],
        "n_lost": config.n_tasks - counts["n_predicted"],
        "n_paid_twice": counts["n_prompts"] - n_asked,
        "worker_mb": memory,
        "processor_shares": shares,
        "worker_ms_per_label": round(1000 * worker_s / (config.n_tasks - n_before), 2),
        "bytes_per_task": _bytes_per_task(cluster.settings, config.n_tasks),
    }


def wait_published(cluster: Cluster, project: Project, n_published: int) -> None:
    """Wait until Label Studio has so many predictions; no progress for two minutes is an error."""
    publication, deadline = cluster.services.stores.publication, None
    seen = -1
    while (n := publication.n_published(project)) < n_published:
        if n > seen or deadline is None:
            seen, deadline = n, time.monotonic() + _READY_S
        if time.monotonic() > deadline:
            problems = cluster.services.stores.jobs.problems(PROJECT)
            raise RuntimeError(f"nothing was published for {_READY_S:.0f} s at {n}: {problems}")
        time.sleep(_POLL_S)


def _bytes_per_task(settings: Settings, n_tasks: int) -> dict[str, int]:
    """Return what the larger tables take for a task, with their indexes; DBOS's own as one."""
    query = (
        "SELECT CASE WHEN schemaname = 'dbos' THEN 'dbos' ELSE relname END,"
        " sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables GROUP BY 1"
    )
    with closing(psycopg.connect(settings.database_url.reveal())) as connection:
        sizes = {str(name): int(size) for name, size in connection.execute(query)}
    per_task = {name: round(size / n_tasks) for name, size in sizes.items()}
    return {name: size for name, size in sorted(per_task.items()) if size >= 10}


def _family(pid: int) -> Sequence[int]:
    return [pid, *descendants(pid)]


def _cpu_by_part(workers: Sequence[ChildProcess], others: dict[str, list[int]]) -> dict[str, float]:
    """Return processor seconds so far: of each worker, the scripted servers, and the machine."""
    parts = {f"worker_{at}": [worker.pid] for at, worker in enumerate(workers)} | others
    seconds = {
        name: sum(_cpu_s(member) for pid in pids for member in _family(pid))
        for name, pids in parts.items()
    }
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    busy = sum(map(int, fields)) - int(fields[3]) - int(fields[4])
    return seconds | {"machine": busy / _TICKS_PER_S}


def _cpu_s(pid: int) -> float:
    try:
        after_name = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
    except OSError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


def _peak_mb(pid: int) -> int:
    try:
        return int(peak_mb(Path(f"/proc/{pid}/status").read_text(encoding="utf-8")))
    except (OSError, RuntimeError):
        return 0


def kill_worker(worker: ChildProcess) -> None:
    """Kill a worker as kill -9 does."""
    kill(descendants(worker.pid))
