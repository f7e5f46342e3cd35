"""Run one case: a fresh backend on the testbed, its round, and the state after it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.domain.labels import WeakLabel
from backend.domain.projects import Project
from backend.domain.rounds import RoundState
from backend.launcher.child_process import ChildProcess, Command
from backend.services import Services, build_services
from backend.settings import Settings
from benchmarks.faults.checks import FinalState, HumanLabels, n_duplicates
from benchmarks.faults.project_kinds import answer_of
from benchmarks.faults.testbed import (
    LABELED,
    Testbed,
    copy_database,
    descendants,
    kill,
    serve_command,
    wait_for,
)

_START_WITHIN_S = 120.0
_DONE_WITHIN_S = 300.0
_HOME_MB = 256
"""A disk for FREEAL_HOME beside what a round takes."""
_MODEL_VERSION = re.compile(r"freeal-\d+-\d+-\d+")


@dataclass(slots=True)
class CaseRun:
    """A fresh backend on the testbed.

    `submitted` are the human labels so far, `started_at` the time of the worker's first heartbeat.
    """

    testbed: Testbed
    settings: Settings
    services: Services
    submitted: HumanLabels = field(default_factory=dict)
    serving: ChildProcess | None = None
    started_at: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def project(self) -> Project:
        """Return the project as the backend knows it."""
        found = self.services.stores.projects.find(self.testbed.project)
        if found is None:
            raise RuntimeError("the backend does not know the project")
        return found

    @property
    def seconds(self) -> float:
        """Return the seconds since the worker's first heartbeat."""
        return time.monotonic() - self.started_at

    @property
    def database(self) -> Path:
        """Return the backend's database."""
        return self.settings.home / "freeal.db"

    def start(self, *, command: Command | None = None) -> None:
        """Start web and worker as a user does, and wait for the worker's first heartbeat."""
        self.serving = self.testbed.processes.start(command or serve_command(self.settings))
        if not wait_for(
            lambda: bool(self.services.stores.jobs.live_workers()), within_s=_START_WITHIN_S
        ):
            raise RuntimeError(f"no worker came up: {self.serving.log_tail()}")
        self.started_at = time.monotonic()

    def request_round(self) -> None:
        """Request a round, as `python -m backend round` does."""
        self.services.round_requests.start(self.project)

    def kill(self, what: str) -> None:
        """Kill `worker` or `web` with its child processes; `serve` starts it again."""
        if self.serving is None:
            return
        pattern = {"worker": "backend\0worker", "web": "backend\0web"}[what]
        pids = [
            pid
            for pid in descendants(self.serving.pid)
            if pattern in _command_line(pid) and "group_leader.py" not in _command_line(pid)
        ]
        if not pids:
            self.notes.append(f"{what} was not there")
        self.notes.append(f"at: {self.where()}")
        kill(pids)

    def where(self) -> str:
        """Return the worker's current step, as `status` shows it."""
        running = self.services.stores.rounds.running(self.project.id)
        if running is not None:
            return f"round, {running.step}"
        if self.services.stores.rounds.history(self.project.id):
            return "round over, publishing" if not self.is_settled() else "settled"
        progress = self.services.stores.labels.progress(self.project)
        if progress.n_to_label:
            return f"labeling, {progress.n_labelled} done"
        return "first labels published or ordered"

    def is_settled(self) -> bool:
        """Return whether Label Studio holds and serves one complete release, and no other."""
        project = self.project
        progress = self.services.stores.labels.progress(project)
        return bool(
            progress.is_complete
            and not progress.n_to_label
            and self.services.stores.projects.served_version(project.id) == project.model_version
            and self.services.round_steps.prelabel.orderer.is_settled(project)
        )

    def is_done(self, n_rounds: int = 1) -> bool:
        """Return whether so many rounds are over and nothing is left to do."""
        history = self.services.stores.rounds.history(self.project.id)
        return (
            len(history) >= n_rounds
            and history[-1].state is not RoundState.RUNNING
            and not self.services.stores.jobs.job_requests()
            and self.is_settled()
        )

    def has_learned(self) -> bool:
        """Return whether the last round has learned its question, and was released or refused."""
        last = self.services.stores.rounds.history(self.project.id)[-1:]
        if not last or last[0].state not in (RoundState.RELEASED, RoundState.REFUSED):
            return False
        figures = last[0].figures.values()
        return bool(figures) and all("gate" in of_question for of_question in figures)

    def is_in_step(self, name: str) -> bool:
        """Return whether a round is in a step whose name begins so."""
        running = self.services.stores.rounds.running(self.project.id)
        return running is not None and running.step.startswith(name)

    def is_releasing(self) -> bool:
        """Return whether a round is over and its release is not served yet."""
        history = self.services.stores.rounds.history(self.project.id)
        is_over = bool(history) and history[-1].state is not RoundState.RUNNING
        return is_over and self.services.stores.releases.pending(self.project) is not None

    def wait(self, n_rounds: int = 1, *, within_s: float = _DONE_WITHIN_S) -> bool:
        """Wait until the rounds are done; return whether they were in time."""
        return wait_for(lambda: self.is_done(n_rounds), within_s=within_s)

    def problems(self) -> list[str]:
        """Return the problems that `status` shows."""
        return [problem.message for problem in self.services.stores.jobs.problems(self.project.id)]

    def until(self, condition: Callable[[], bool], *, within_s: float = _DONE_WITHIN_S) -> None:
        """Wait for the moment at which a fault is due; note if it never came."""
        if not wait_for(condition, within_s=within_s):
            self.notes.append("the moment for the fault never came")

    def stop(self) -> None:
        """Stop web and worker."""
        if self.serving is not None:
            self.testbed.processes.stop(self.serving)
            self.serving = None

    def final_state(self, *, is_completed: bool, is_comparable: bool) -> FinalState:
        """Return the state of Label Studio and backend now."""
        tasks = self.testbed.tasks()
        rows = [(int(t["id"]), str(p["model_version"])) for t in tasks for p in t["predictions"]]
        answers = [answer_of(p["result"]) for t in tasks for p in t["predictions"]]
        version = self.project.model_version
        served = {(int(t["id"]), version) for t in tasks if not t["total_annotations"]}
        labels = self.services.stores.tasks.human_labels(self.project.id)
        return FinalState(
            submitted=self.submitted,
            in_label_studio=self.testbed.human_labels(),
            in_backend={
                label.annotation_id: (label.task_id, answer_of(label.result)) for label in labels
            },
            predictions=rows,
            n_paid_twice=self.testbed.llm.n_paid_twice,
            is_completed=is_completed and served <= set(rows) and self.has_learned(),
            outcome=json.loads(json.dumps(self.outcome(tasks))) if is_comparable else None,
            n_doubled_regions=sum(map(n_duplicates, answers)),
        )

    def outcome(self, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return predictions, weak labels, queue and round as JSON.

        Left out is what differs by nature: versions, times, and ids of regions.
        """
        project = self.project
        last = self.services.stores.rounds.history(project.id)[-1:]
        predictions = {
            str(task["id"]): [
                [[r["value"], r.get("score")] for r in p["result"]] + [p["score"]]
                for p in task["predictions"]
            ]
            for task in tasks
        }
        weak_labels = {
            f"{label.example_id} {label.annotator}": weak_answer(label)
            for label in self.services.stores.labels.weak_labels(project)
        }
        places = [[p.task_id, p.reason] for p in self.services.stores.releases.places(project)]
        return {
            "predictions": predictions,
            "weak_labels": weak_labels,
            "queue": places,
            "round": [[r.number, str(r.state), _without_versions(r.metrics)] for r in last],
        }


@dataclass(frozen=True, slots=True)
class Case:
    """One fault.

    Args:
        name: The case's name.
        done: What is done, for the page.
        act: Runs the case to its end; returns whether the round was completed.
        snapshot: The databases that it starts from.
        is_comparable: Whether the round has the labels and seeds of the undisturbed one, so that
            its results must be equal.
        has_own_disk: Whether FREEAL_HOME is on a small disk of its own.
    """

    name: str
    done: str
    act: Callable[[CaseRun], bool]
    snapshot: str = LABELED
    is_comparable: bool = True
    has_own_disk: bool = False


@contextmanager
def open_case(testbed: Testbed, case: Case) -> Iterator[CaseRun]:
    """Restore a case's snapshot in Label Studio and in a fresh backend."""
    home = testbed.folder / "cases" / case.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    disk_mb = _HOME_MB + testbed.kind.round_mb if case.has_own_disk else 0
    with _own_disk(home, disk_mb):
        yield from _open_case(testbed, case, home)
    shutil.rmtree(home / "models", ignore_errors=True)  # students take most of the disk


def _open_case(testbed: Testbed, case: Case, home: Path) -> Iterator[CaseRun]:
    source = testbed.snapshot(case.snapshot)
    copy_database(source / "label-studio.db", testbed.database)
    copy_database(source / "freeal.db", home / "freeal.db")
    testbed.llm.reset(home / "freeal.db")
    testbed.webhooks.inject("pass")
    testbed.platform.inject()
    settings = replace(testbed.settings, home=home)
    with closing(build_services(settings)) as services:
        case_run = CaseRun(testbed, settings, services, submitted=testbed.human_labels())
        try:
            yield case_run
        finally:
            case_run.stop()


@contextmanager
def _own_disk(home: Path, n_mb: int) -> Iterator[None]:
    """Mount a small disk in memory, which needs the rights of root; 0 MB: none."""
    if not n_mb:
        yield
        return
    mount, unmount = (shutil.which(name) or name for name in ("mount", "umount"))
    command = (mount, "-t", "tmpfs", "-o", f"size={n_mb}m", "none", str(home))
    subprocess.run(command, check=True)  # noqa: S603
    try:
        yield
    finally:
        subprocess.run((unmount, "--lazy", str(home)), check=True)  # noqa: S603


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as another program may."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def stored_keys(database: Path) -> set[bytes]:
    """Return the keys of a backend's cached LLM answers."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {bytes(row[0]) for row in connection.execute("SELECT key FROM llm_answers")}


def weak_answer(label: WeakLabel) -> list[Any] | None:
    """Return a weak label's answer as JSON, with its probabilities; None for an abstention."""
    if label.spans is not None:
        return [label.confidence, *([s.start, s.end, s.label, s.probability] for s in label.spans)]
    return None if label.abstention else list(label.probabilities)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _without_versions(value: Any) -> Any:
    """Replace model versions, which contain the time, and drop seconds in JSON."""
    if isinstance(value, dict):
        return {key: _without_versions(item) for key, item in value.items() if "seconds" not in key}
    if isinstance(value, list | tuple):
        return [_without_versions(item) for item in value]
    return _MODEL_VERSION.sub("VERSION", value) if isinstance(value, str) else value
