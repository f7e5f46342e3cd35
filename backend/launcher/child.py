"""One child process: a process group of its own, a log file, and an end no later than ours."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

from rich.console import Console

from backend.launcher.errors import ProcessError
from backend.launcher.locks import lock_now
from backend.launcher.logs import fresh_log, last_line, tail
from backend.launcher.progress import stage

logger = logging.getLogger(__name__)

POLL_S = 0.2
GRACE_S = 10.0
_KILL_WAIT_S = 1.0  # for the killed to be buried, which some containers never do
_KEEPER = Path(__file__).with_name("supervisor.py")


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: its arguments, and the environment variables to add (None: to remove).

    The folder to run in is always named: with `python -m`, modules that lie in the current one, as
    this project's do, would come before those of the program. `exclusive` is a file that is locked
    for as long as the command runs, so that no other command with the same file can run beside it.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    exclusive: Path | None = None


def giving_way(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments under `nice`, where there is one: others on this machine come first."""
    return ("nice", "-n", "10", *argv) if shutil.which("nice") else argv


class ChildProcess:
    """A started command, and what it starts in turn: a process group with a keeper at its head.

    The keeper holds a pipe from us. When that closes, because this process has ended or was killed,
    the keeper ends the group. (The kernel's own PR_SET_PDEATHSIG is one signal to one process, and
    a vLLM that is still starting does not end by one SIGTERM.)
    """

    def __init__(self, command: Command, *, log_file: Path | None = None) -> None:
        """Start the command; without a log file its output goes where ours goes.

        Raises:
            ProcessError: a command with the same `exclusive` file runs.
        """
        self.name = command.name
        self.log_file = log_file
        with ExitStack() as opened:
            kept: tuple[int, ...] = ()
            if command.exclusive is not None:
                lock = _locked_for(command.name, command.exclusive)
                kept = (opened.enter_context(lock).fileno(),)
            output = opened.enter_context(fresh_log(log_file)).fileno() if log_file else None
            self._keeper, self._lifeline = _spawn(command, output=output, kept=kept)

    @property
    def pid(self) -> int:
        """The keeper's process id, which is the group's id too."""
        return self._keeper.pid

    def exit_code(self) -> int | None:
        """Return how the command ended, None while it runs; what it left behind is killed."""
        was_running = self._keeper.returncode is None
        code = self._keeper.poll()
        if was_running and code is not None:
            self._signal_group(signal.SIGKILL)
            self._lifeline.close()
        return code

    def raise_if_ended(self) -> None:
        """Raise ProcessError, with the last lines of the log, if the command has ended."""
        code = self.exit_code()
        if code is not None:
            raise ProcessError(f"{self.name} ended with {_describe(code)}. {self.log_tail()}")

    def log_tail(self) -> str:
        """Return a sentence for messages that holds the last lines of the log, if there is one."""
        if self.log_file is None:
            return "Its output says more."
        return f"Its last lines, from {self.log_file}:\n{tail(self.log_file)}"

    def last_line(self) -> str:
        """Return the latest line of the log, "" if there is none."""
        return last_line(self.log_file) if self.log_file else ""

    def stop(self, *, grace_s: float = GRACE_S, is_hurried: Callable[[], bool] = _never) -> None:
        """Send the group SIGTERM; SIGKILL it after the grace or when hurried.

        When the command itself has ended within the grace, what it left behind is killed at once.
        """
        if self.exit_code() is not None:
            return
        self._signal_group(signal.SIGTERM)
        if not _holds(lambda: self.exit_code() is not None, within_s=grace_s, unless=is_hurried):
            logger.warning("%s does not end by itself and is killed", self.name)
            self._signal_group(signal.SIGKILL)
            self._keeper.wait()
        _holds(self._group_is_gone, within_s=_KILL_WAIT_S)
        self._lifeline.close()

    def _signal_group(self, signum: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: no permission over the dead
            os.killpg(self.pid, signum)

    def _group_is_gone(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False


def run_to_end(command: Command, *, log_file: Path, title: str, console: Console) -> None:
    """Run a command until it ends, showing the latest line of its output.

    Raises:
        ProcessError: it failed; its last lines are in the message.
    """
    child = ChildProcess(command, log_file=log_file)
    try:
        with stage(console, title) as news:
            while (code := child.exit_code()) is None:
                news(child.last_line())
                time.sleep(POLL_S)
            if code != 0:
                child.raise_if_ended()
    finally:
        child.stop()


def _locked_for(name: str, path: Path) -> TextIO:
    """Return a file that is locked; the keeper inherits it, and with it the lock."""
    try:
        return lock_now(path)
    except BlockingIOError as exc:
        raise ProcessError(
            f"{name} runs already on the same data, started by another command: {path} is locked. "
            "Stop that one, or give this one a FREEAL_HOME of its own."
        ) from exc


def _spawn(
    command: Command, *, output: int | None, kept: tuple[int, ...]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start the keeper of a command; return it with our end of its lifeline."""
    keeper = subprocess.Popen(  # noqa: S603  (the launcher's own command lines, no shell)
        [sys.executable, "-I", "-S", str(_KEEPER), *command.argv],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        bufsize=0,
        cwd=command.folder,
        start_new_session=True,
        pass_fds=kept,
    )
    lifeline = keeper.stdin
    assert lifeline is not None  # noqa: S101  (it is a pipe; for the type checker)
    environment = {"PYTHONUNBUFFERED": "1", **command.environment}
    with suppress(BrokenPipeError):
        lifeline.write(json.dumps(environment).encode() + b"\n")
    return keeper, lifeline


def _holds(
    condition: Callable[[], bool], *, within_s: float, unless: Callable[[], bool] = _never
) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline or unless():
            return False
        time.sleep(POLL_S / 4)
    return True


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"signal {-exit_code}"
