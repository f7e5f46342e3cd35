"""Run one command as a process group with a log file, which ends no later than this process."""

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
from typing import IO

from backend.errors import ProcessError
from backend.files import locked

POLL_S = 0.2
GRACE_S = 10.0

_LOG = logging.getLogger(__name__)
_KILL_WAIT_S = 1.0  # until killed processes are reaped, which some containers never do
_GROUP_LEADER = Path(__file__).with_name("group_leader.py")
_N_TAIL_LINES = 20
_N_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments and the environment variables to add (None: to remove).

    The folder to run in is always named: with `python -m`, modules that lie in the current one, as
    this project's do, would come before those of the program. `exclusive` is a file that is locked
    for as long as the command runs, so that no other command with the same file can run beside it.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    exclusive: Path | None = None


def low_priority(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments under `nice`, if it is installed: other processes come first."""
    return ("nice", "-n", "10", *argv) if shutil.which("nice") else argv


class ChildProcess:
    """A started command and its own children: a process group led by group_leader.py.

    The leader holds a pipe from us. When that closes, because this process has ended or was killed,
    the leader ends the group. (The kernel's own PR_SET_PDEATHSIG is one signal to one process, and
    a vLLM that is still starting does not end by one SIGTERM.)
    """

    def __init__(self, command: Command, *, log_file: Path | None = None) -> None:
        """Start the command; without a log file it inherits our standard output and error.

        The previous run's log is kept beside the new one as NAME.log.1.

        Raises:
            ProcessError: a command with the same `exclusive` file runs.
        """
        self.name = command.name
        self.log_file = log_file
        with ExitStack() as opened:
            inherited: tuple[int, ...] = ()
            if command.exclusive is not None:
                inherited = (_lock_for(command.name, command.exclusive, opened),)
            output = None
            if log_file is not None:
                log_file.parent.mkdir(parents=True, exist_ok=True)
                if log_file.exists():
                    log_file.replace(log_file.with_name(f"{log_file.name}.1"))
                output = opened.enter_context(log_file.open("wb")).fileno()
            self._leader, self._lifeline = _spawn(command, output=output, inherited=inherited)

    @property
    def pid(self) -> int:
        """The group leader's process id, which is the group's id too."""
        return self._leader.pid

    def exit_code(self) -> int | None:
        """Return the command's exit code, None while it runs; kill the rest of an ended group."""
        was_running = self._leader.returncode is None
        code = self._leader.poll()
        if was_running and code is not None:
            self._signal_group(signal.SIGKILL)
            self._lifeline.close()
        return code

    def raise_if_ended(self) -> None:
        """Raise ProcessError, with the last lines of the log, if the command has ended."""
        code = self.exit_code()
        if code is None:
            return
        end = f"exit code {code}" if code >= 0 else f"signal {-code}"
        if code < 0:
            with suppress(ValueError):  # a number that this system has no name for
                end = f"signal {signal.Signals(-code).name}"
        raise ProcessError(f"{self.name} ended with {end}. {self.log_tail()}")

    def log_tail(self) -> str:
        """Return a sentence for messages that holds the last lines of the log, if there is one."""
        if self.log_file is None:
            return "Its output says more."
        lines = _last_lines(self.log_file)[-_N_TAIL_LINES:]
        return f"Its last lines, from {self.log_file}:\n" + ("\n".join(lines) or "(no output)")

    def last_line(self) -> str:
        """Return the latest line of the log that is not blank, "" if there is none."""
        lines = _last_lines(self.log_file) if self.log_file else []
        return next((line for line in reversed(lines) if line.strip()), "")

    def stop(
        self, *, grace_s: float = GRACE_S, is_hurried: Callable[[], bool] = lambda: False
    ) -> None:
        """Send the group SIGTERM; SIGKILL it after the grace or when hurried.

        When the command itself has ended within the grace, its remaining children are killed.
        """
        if self.exit_code() is not None:
            return
        self._signal_group(signal.SIGTERM)
        if not _wait_for(lambda: self.exit_code() is not None, grace_s, unless=is_hurried):
            _LOG.warning("%s does not end by itself and is killed", self.name)
            self._signal_group(signal.SIGKILL)
            self._leader.wait()
        _wait_for(lambda: not self._signal_group(0), _KILL_WAIT_S)
        self._lifeline.close()

    def _signal_group(self, signum: int) -> bool:
        """Send a signal, 0 for none; return whether the group exists."""
        try:
            os.killpg(self.pid, signum)
        except (ProcessLookupError, PermissionError):  # macOS: no permission over the dead
            return False
        return True


def _spawn(
    command: Command, *, output: int | None, inherited: tuple[int, ...]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start the group leader of a command; return it with our end of its lifeline."""
    leader = subprocess.Popen(  # noqa: S603  (the launcher's own command lines, no shell)
        [sys.executable, "-I", "-S", str(_GROUP_LEADER), *command.argv],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        bufsize=0,
        cwd=command.folder,
        start_new_session=True,
        pass_fds=inherited,
    )
    lifeline = leader.stdin
    assert lifeline is not None  # noqa: S101  (it is a pipe; for the type checker)
    environment = {"PYTHONUNBUFFERED": "1", **command.environment}
    with suppress(BrokenPipeError):
        lifeline.write(json.dumps(environment).encode() + b"\n")
    return leader, lifeline


def _lock_for(name: str, path: Path, opened: ExitStack) -> int:
    """Return the descriptor of a locked file, for the group leader to inherit."""
    try:
        return opened.enter_context(locked(path, wait=False)).fileno()
    except BlockingIOError as exc:
        raise ProcessError(
            f"{name} runs already on the same data, started by another command: {path} is locked. "
            "Stop that one, or give this one a FREEAL_HOME of its own."
        ) from exc


def _last_lines(path: Path) -> list[str]:
    """Return the lines in the last 16 kB of a log, which may be long."""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - _N_TAIL_BYTES))
        return log.read().decode("utf-8", errors="replace").splitlines()


def _wait_for(
    condition: Callable[[], bool], within_s: float, *, unless: Callable[[], bool] = lambda: False
) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline or unless():
            return False
        time.sleep(POLL_S / 4)
    return True
