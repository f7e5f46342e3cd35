"""Measure startup time and memory of the web process and of commands.

Each figure is the median over several child processes on a store with one project. Seconds are
processor time, which other programs on the machine change little; the web process's wall clock is
in the notes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from backend.domain.projects import ProjectId, Task
from backend.services import build_services
from backend.settings import Settings
from benchmarks.datasets import read_rows
from benchmarks.memory import peak_mb
from benchmarks.report import Report

ROOT = Path(__file__).resolve().parent.parent
CONFIG = (ROOT / "backend/launcher/sample/reviews.xml").read_text()
PROJECT = ProjectId("1.1795215594")
UNUSED_URL = "http://127.0.0.1:9"
PRINT_MEMORY = "print(open('/proc/self/status').read())"
WEB = ("-c", f"import _wsgi; {PRINT_MEMORY}")
COMMANDS = {
    "status_s": ("-m", "backend", "status"),
    "queue_s": ("-m", "backend", "queue", "1"),
    "doctor_s": ("-m", "backend", "doctor"),
    "settings_s": ("-m", "backend", "settings"),
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor and wall seconds of one child process until its end, and what it printed."""

    cpu_s: float
    wall_s: float
    output: str

    @property
    def peak_mb(self) -> float:
        """Peak resident memory, as the process printed it."""
        return peak_mb(self.output)


def run(report: Report, *, n_runs: int) -> None:
    """Measure the web process on a fresh store, then each command beside a filled one."""
    with tempfile.TemporaryDirectory() as folder:
        web = [_measure(WEB, Path(folder) / f"fresh-{number}") for number in range(n_runs)]
        home = Path(folder) / "filled"
        fill(home)
        commands = {
            name: [_measure(arguments, home) for _ in range(n_runs)]
            for name, arguments in COMMANDS.items()
        }
    report.results |= {
        "web_start_s": round(median(usage.cpu_s for usage in web), 2),
        "web_mb": round(median(usage.peak_mb for usage in web), 1),
        **{name: round(median(u.cpu_s for u in usages), 2) for name, usages in commands.items()},
    }
    report.notes |= {"web_start_wall_s": round(median(usage.wall_s for usage in web), 2)}


def fill(home: Path) -> None:
    """Store a project with the sample's tasks."""
    services = build_services(replace(Settings(), home=home))
    services.events.connect(PROJECT, CONFIG)
    tasks = [Task(n, {"text": row["text"]}) for n, row in enumerate(read_rows(None), start=1)]
    services.stores.tasks.save(PROJECT, tasks)
    services.close()


def environment(home: Path) -> dict[str, str]:
    """Return a child's environment: a home of its own, and URLs where no server runs."""
    servers = {"LLM_BASE_URL": f"{UNUSED_URL}/v1", "LABEL_STUDIO_URL": UNUSED_URL}
    return {**os.environ, **servers, "FREEAL_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def _measure(arguments: tuple[str, ...], home: Path) -> Usage:
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(  # noqa: S603  (this project's own commands)
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    after, wall_s = os.times(), time.perf_counter() - started
    if done.returncode not in (0, 1):  # the doctor ends with 1 where servers are missing
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    cpu_s = after.children_user + after.children_system
    return Usage(cpu_s - before.children_user - before.children_system, wall_s, done.stdout)
