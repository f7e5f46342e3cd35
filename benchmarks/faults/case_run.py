"""One case: a fresh backend on the stage, its round, and what is found after it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.domain.projects import JobKind, Project
from backend.domain.rounds import RoundState
from backend.launcher.child_process import ChildProcess, Command
from backend.services import Services, build_services
from backend.settings import Settings
from benchmarks.faults.checks import Found, Said
from benchmarks.faults.testbed import (
    ANSWERED,
    Stage,
    copy_database,
    descendants,
    kill,
    label_of,
    serve_command,
    wait_for,
)

_START_WITHIN_S = 120.0
_DONE_WITHIN_S = 150.0
_NO_PLACE = re.compile(r"freeal-\d+-\d+-\d+")


@dataclass(slots=True)
class Play:
    """A backend of its own on the stage, and what people have `said` by now.

    `clock` is when the worker was first seen.
    """

    stage: Stage
    settings: Settings
    services: Services
    said: Said = field(default_factory=dict)
    serving: ChildProcess | None = None
    clock: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def project(self) -> Project:
        """Return the project as the backend knows it."""
        found = self.services.stores.projects.find(self.stage.project)
        if found is None:
            raise RuntimeError("the backend does not know the project")
        return found

    @property
    def seconds(self) -> float:
        """Return how long the worker has been there."""
        return time.monotonic() - self.clock

    @property
    def database(self) -> Path:
        """Return the backend's database."""
        return self.settings.home / "freeal.db"

    def start(self, *, command: Command | None = None) -> None:
        """Start web and worker as a user does, and wait for the worker's first sign of life."""
        self.serving = self.stage.processes.start(command or serve_command(self.settings))
        if not wait_for(
            lambda: bool(self.services.stores.jobs.live_workers()), within_s=_START_WITHIN_S
        ):
            raise RuntimeError(f"no worker came up: {self.serving.log_tail()}")
        self.clock = time.monotonic()

    def ask_for_round(self) -> None:
        """Ask for a round, as `python -m backend round` does."""
        self.services.stores.jobs.request_job(
            self.project.id, JobKind.ROUND_NOW, "the benchmark asks"
        )

    def kill(self, what: str) -> None:
        """Kill `worker` or `web` with all that it has started; `serve` starts it again."""
        if self.serving is None:
            return
        mark = {"worker": "backend\0worker", "web": "gunicorn"}[what]
        pids = [
            pid
            for pid in descendants(self.serving.pid)
            if mark in _words(pid) and "group_leader.py" not in _words(pid)
        ]
        if not pids:
            self.notes.append(f"{what} was not there")
        self.notes.append(f"at: {self.where()}")
        kill(pids)

    def where(self) -> str:
        """Return what the worker is doing, as `status` says it."""
        running = self.services.stores.rounds.running(self.project.id)
        if running is not None:
            return f"round, {running.step}"
        if self.services.stores.rounds.history(self.project.id):
            return "round over, publishing" if not self.is_settled() else "settled"
        progress = self.services.stores.labels.progress(self.project)
        if progress.n_to_label:
            return f"labelling, {progress.n_labelled} done"
        return "first labels published or ordered"

    def is_settled(self) -> bool:
        """Whether Label Studio holds one release alone, in full and served."""
        project = self.project
        progress = self.services.stores.labels.progress(project)
        return bool(
            progress.is_complete
            and not progress.n_to_label
            and self.services.stores.projects.served_version(project.id) == project.model_version
            and self.services.round_steps.prelabel.orderer.is_settled(project)
        )

    def is_done(self, n_rounds: int = 1) -> bool:
        """Whether so many rounds are over and nothing is left to do."""
        history = self.services.stores.rounds.history(self.project.id)
        return (
            len(history) >= n_rounds
            and history[-1].state is not RoundState.RUNNING
            and not self.services.stores.jobs.job_requests()
            and self.is_settled()
        )

    def is_made(self) -> bool:
        """Whether the last round came to its own end."""
        last = self.services.stores.rounds.history(self.project.id)[-1:]
        return bool(last) and last[0].state in (RoundState.RELEASED, RoundState.REFUSED)

    def wait(self, n_rounds: int = 1, *, within_s: float = _DONE_WITHIN_S) -> bool:
        """Wait until it is done; return whether it came to that."""
        return wait_for(lambda: self.is_done(n_rounds), within_s=within_s)

    def problems(self) -> list[str]:
        """Return what `status` complains of."""
        return [problem.message for problem in self.services.stores.jobs.problems(self.project.id)]

    def until(self, condition: Callable[[], bool], *, within_s: float = _DONE_WITHIN_S) -> None:
        """Wait for the moment at which a fault is due; note when it never came."""
        if not wait_for(condition, within_s=within_s):
            self.notes.append("the moment for the fault never came")

    def stop(self) -> None:
        """Stop web and worker."""
        if self.serving is not None:
            self.stage.processes.stop(self.serving)
            self.serving = None

    def found(self, *, is_completed: bool, is_comparable: bool) -> Found:
        """Return what is there now."""
        tasks = self.stage.tasks()
        rows = [(int(t["id"]), str(p["model_version"])) for t in tasks for p in t["predictions"]]
        version = self.project.model_version
        served = {(int(t["id"]), version) for t in tasks if not t["total_annotations"]}
        labels = self.services.stores.tasks.human_labels(self.project.id)
        return Found(
            said=self.said,
            in_label_studio=self.stage.said(),
            in_backend={
                label.annotation_id: (label.task_id, label_of(label.result)) for label in labels
            },
            predictions=rows,
            n_paid_twice=self.stage.llm.n_paid_twice,
            is_completed=is_completed and served <= set(rows) and self.is_made(),
            outcome=json.loads(json.dumps(self.outcome(tasks))) if is_comparable else None,
        )

    def outcome(self, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what a user sees of the project, without names and times; JSON."""
        project = self.project
        last = self.services.stores.rounds.history(project.id)[-1:]
        predictions = {
            str(task["id"]): [
                [[r["value"], r.get("score")] for r in p["result"]] + [p["score"]]
                for p in task["predictions"]
            ]
            for task in tasks
        }
        votes = {
            f"{vote.example_id} {vote.annotator}": list(vote.probabilities)
            for vote in self.services.stores.labels.weak_labels(project)
        }
        places = [[p.task_id, p.reason] for p in self.services.stores.releases.places(project)]
        return {
            "predictions": predictions,
            "votes": votes,
            "queue": places,
            "round": [[r.number, str(r.state), _nameless(r.metrics)] for r in last],
        }


@contextmanager
def open_play(stage: Stage, name: str, *, snapshot: str = ANSWERED) -> Iterator[Play]:
    """Put Label Studio back to a snapshot and give a fresh backend its side of it."""
    home = stage.folder / "plays" / name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    kept = stage.snapshot(snapshot)
    copy_database(kept / "label-studio.db", stage.database)
    copy_database(kept / "freeal.db", home / "freeal.db")
    stage.llm.begin(home / "freeal.db")
    stage.relay.begin()
    settings = replace(stage.settings, home=home)
    with closing(build_services(settings)) as services:
        play = Play(stage, settings, services, said=stage.said())
        try:
            yield play
        finally:
            play.stop()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as a backup or another program may."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def stored_keys(database: Path) -> set[bytes]:
    """Return under which keys a backend keeps answers."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {bytes(row[0]) for row in connection.execute("SELECT key FROM llm_answers")}


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _nameless(value: Any) -> Any:
    """Return JSON with model versions, which hold the time, made equal."""
    if isinstance(value, dict):
        return {key: _nameless(item) for key, item in value.items() if "seconds" not in key}
    if isinstance(value, list | tuple):
        return [_nameless(item) for item in value]
    return _NO_PLACE.sub("VERSION", value) if isinstance(value, str) else value
