"""Run the web process and the worker side by side, and restart each when it ends (`serve`)."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from backend.launcher.child_process import ChildProcess, Command, low_priority
from backend.settings import Settings

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.2
_MAX_PAUSE_S = 30.0
_MIN_STABLE_S = 60.0
_CANNOT_START = 2


def web_command(settings: Settings) -> Command:
    """Return the command of one web process."""
    argv = (sys.executable, "-m", "backend", "web")
    return Command("web", argv, folder=_ROOT, environment=_environment(settings))


def worker_command(settings: Settings) -> Command:
    """Return the command of the worker, at low priority: people wait for the web process only."""
    argv = low_priority((sys.executable, "-m", "backend", "worker"))
    return Command("worker", argv, folder=_ROOT, environment=_environment(settings))


def _environment(settings: Settings) -> dict[str, str]:
    return replace(settings, home=settings.home.absolute()).to_env()


class SupervisedProcess:
    """A command that is restarted whenever it ends, after a pause that grows to 30 s."""

    def __init__(self, command: Command, *, first_pause_s: float = 1.0) -> None:
        self.command = command
        self._first_pause_s = self._pause_s = first_pause_s
        self._process: ChildProcess | None = None
        self._started_at = 0.0
        self._start_at = 0.0

    def poll(self) -> bool:
        """Start the command unless it runs; return False if its exit code says: never again."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._process = ChildProcess(self.command)
                self._started_at = time.monotonic()
            return True
        code = self._process.exit_code()
        if code is None:
            return True
        self._process = None
        if code == _CANNOT_START:
            return False
        ran_s = time.monotonic() - self._started_at
        pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        self._pause_s = pause_s = self._first_pause_s if ran_s > _MIN_STABLE_S else pause_s
        self._start_at = time.monotonic() + pause_s
        _LOG.error("%s ended (%d); it starts again in %.1f s", self.command.name, code, pause_s)
        return True

    def stop(self) -> None:
        """Stop the command, with what it started."""
        if self._process is not None:
            self._process.stop()
            self._process = None


def serve(settings: Settings) -> int:
    """Run web and worker until SIGTERM, SIGHUP or Ctrl-C; return the exit code.

    A process that is killed is restarted: the worker then resumes where it was.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: stop.set())
    settings.check_exposure()
    commands = (*[web_command(settings)] * settings.web_processes, worker_command(settings))
    children = [SupervisedProcess(command) for command in commands]
    _LOG.info("serving at http://%s:%d", settings.host, settings.port)
    try:
        while not stop.is_set():
            if not all([child.poll() for child in children]):
                return _CANNOT_START
            stop.wait(_POLL_S)
        return 0
    finally:
        for child in children:
            child.stop()
