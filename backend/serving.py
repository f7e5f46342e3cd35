"""`serve`: the web process and the worker side by side, each started again when it ends."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from backend.launcher.child import ChildProcess, Command
from backend.settings import Settings

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.2
_MAX_PAUSE_S = 30.0
_STEADY_S = 60.0
_CANNOT_START = 2


def web_command(settings: Settings) -> Command:
    """Return the command of the web process: gunicorn with threads."""
    return Command(
        name="web",
        argv=(
            sys.executable,
            "-m",
            "gunicorn",
            "_wsgi:app",
            f"--bind={settings.host}:{settings.port}",
            f"--workers={settings.web_processes}",
            f"--threads={settings.web_threads}",
            "--worker-class=gthread",
            "--timeout=120",
            "--graceful-timeout=10",
            "--keep-alive=30",
            "--no-control-socket",
            "--log-level=warning",
        ),
        folder=_ROOT,
        environment=_environment(settings),
    )


def worker_command(settings: Settings) -> Command:
    """Return the command of the worker process."""
    return Command(
        name="worker",
        argv=(sys.executable, "-m", "backend", "worker"),
        folder=_ROOT,
        environment=_environment(settings),
    )


def _environment(settings: Settings) -> dict[str, str]:
    return replace(settings, home=settings.home.absolute()).to_env()


@dataclass(slots=True)
class _Child:
    command: Command
    process: ChildProcess | None = None
    started_at: float = 0.0
    pause_s: float = field(default=1.0)

    def start(self) -> None:
        self.process = ChildProcess(self.command)
        self.started_at = time.monotonic()

    def keep_running(self) -> bool:
        """Start the process again when it has ended; False when it can never run as it is."""
        code = self.process.exit_code() if self.process else None
        if self.process is None or code is None:
            return True
        if code == _CANNOT_START:
            return False
        ran_s = time.monotonic() - self.started_at
        self.pause_s = 1.0 if ran_s > _STEADY_S else min(2 * self.pause_s, _MAX_PAUSE_S)
        _LOG.error(
            "%s ended with %d; started again in %.0f s", self.command.name, code, self.pause_s
        )
        time.sleep(self.pause_s)
        self.start()
        return True


def serve(settings: Settings) -> int:
    """Run web and worker until SIGTERM or Ctrl-C; return the exit code.

    A process that is killed is started again: the worker then goes on where it was.
    """
    stop = threading.Event()

    def leave(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
    children = [_Child(web_command(settings)), _Child(worker_command(settings))]
    try:
        for child in children:
            child.start()
        _LOG.info("serving at http://%s:%d", settings.host, settings.port)
        while not stop.wait(_POLL_S):
            if not all(child.keep_running() for child in children):
                return _CANNOT_START
        return 0
    finally:
        for child in children:
            if child.process is not None:
                child.process.stop()
