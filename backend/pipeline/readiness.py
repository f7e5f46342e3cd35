"""Say of each part whether it works, within two seconds whatever hangs."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from backend.errors import BackendError, LanguageModelRejected
from backend.store import Database, JobStore

_LOG = logging.getLogger(__name__)
_BUDGET_S = 2.0
_WRITE_S = 1.0
_GIGABYTE = 1024**3
_MIN_FREE, _FEW_FREE = 0.2 * _GIGABYTE, 2 * _GIGABYTE
_MAX_QUEUE_AGE_S = 3600.0
OWN_PARTS = ("database", "disk", "worker")
"""Without one of these nothing is labeled; the others may be away for a while."""


class PartState(StrEnum):
    """The state of a part."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Part:
    """The state of a part in words that hold no path, address or text: anybody may read them."""

    state: PartState
    message: str


Check = Callable[[], Part]


@dataclass
class _Watch:
    """Runs a check in a thread of its own; one that hangs is not started a second time."""

    name: str
    check: Check
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: tuple[threading.Thread, list[Part]] | None = None

    def start(self) -> tuple[threading.Thread, list[Part]]:
        """Start the check unless it runs; return its thread and where its result will be."""
        with self._lock:
            if self._running is None or not self._running[0].is_alive():
                result: list[Part] = []
                thread = threading.Thread(target=self._run, args=(result,), daemon=True)
                thread.start()
                self._running = (thread, result)
            return self._running

    def _run(self, result: list[Part]) -> None:
        try:
            result.append(self.check())
        except Exception as exc:
            _LOG.warning("check of %s failed: %s", self.name, exc)
            result.append(Part(PartState.FAILURE, "cannot be checked; the log says why"))


class Readiness:
    """Runs all checks side by side."""

    def __init__(self, checks: Mapping[str, Check], *, budget_s: float = _BUDGET_S) -> None:
        self._watches = [_Watch(name, check) for name, check in checks.items()]
        self._budget_s = budget_s

    def report(self) -> dict[str, Any]:
        """Return `is_ready` and the state of each part, after `budget_s` at the latest."""
        deadline = time.monotonic() + self._budget_s
        started = {watch.name: watch.start() for watch in self._watches}
        parts = {}
        for name, (thread, result) in started.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            late = Part(PartState.FAILURE, f"no answer within {self._budget_s:.0f} s")
            parts[name] = result[0] if result else late
        is_ready = all(
            parts[name].state is not PartState.FAILURE for name in OWN_PARTS if name in parts
        )
        return {"is_ready": is_ready, "parts": {name: asdict(part) for name, part in parts.items()}}


def check_database(database: Database) -> Part:
    """Write to the database, as every webhook does."""
    try:
        database.check_writable(timeout_s=_WRITE_S)
    except BackendError as exc:
        _LOG.warning("%s", exc)
        return Part(PartState.FAILURE, f"cannot be written within {_WRITE_S:.0f} s")
    return Part(PartState.OK, "can be written")


def check_disk(home: Path) -> Part:
    """Look at the free space at FREEAL_HOME."""
    n_free = shutil.disk_usage(home).free
    state = PartState.OK
    if n_free < _FEW_FREE:
        state = PartState.FAILURE if n_free < _MIN_FREE else PartState.WARNING
    return Part(state, f"{n_free / _GIGABYTE:.1f} GB are free")


def check_worker(jobs: JobStore) -> Part:
    """Look for a worker's heartbeat."""
    n_workers = len(jobs.live_workers())
    if n_workers:
        return Part(PartState.OK, f"{n_workers} alive")
    return Part(PartState.FAILURE, "none gave a sign of life in the last 30 s")


def check_queue(jobs: JobStore) -> Part:
    """Look how long the oldest requested job has waited: one of a busy project may wait long."""
    requested = [moment for _, _, moment in jobs.job_requests()]
    if not requested:
        return Part(PartState.OK, "no job waits")
    age_s = (datetime.now(UTC) - min(requested)).total_seconds()
    state = PartState.WARNING if age_s > _MAX_QUEUE_AGE_S else PartState.OK
    return Part(state, f"{len(requested)} jobs wait, the oldest for {age_s:.0f} s")


def check_server(ask: Callable[[], object]) -> Part:
    """Ask a server that may be away for a while."""
    try:
        ask()
    except LanguageModelRejected as exc:
        _LOG.info("%s", exc)
        return Part(PartState.WARNING, "answers, and refuses the request")
    except BackendError as exc:
        _LOG.info("%s", exc)
        return Part(PartState.WARNING, "does not answer")
    return Part(PartState.OK, "answers")
