"""Run one program and end its process group when the parent process ends; run as a script.

    python -I -S group_leader.py PROGRAM [ARGUMENT...]

Standard input is the parent's lifeline. Its first line is a JSON object of environment variables to
set (null: to remove), so that secrets stand neither in the list of processes nor in a file. When it
closes, the parent has ended, however abruptly. Leads a process group, which the program joins.
Only the standard library can be imported.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

GRACE_S = 10.0
EXIT_CANNOT_RUN = 127


def outlive(signum: int, frame: FrameType | None) -> None:
    """Outlive a signal to the group; unlike an ignored signal, the program does not inherit it."""


def read_line(lifeline: int) -> bytes:
    """Read the first line and not a byte more; exit if the parent has ended already."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(lifeline, 1)
        if not byte:
            sys.exit(EXIT_CANNOT_RUN)
        line += byte
    return line


def end_group_after(lifeline: int, group_must_end: threading.Event) -> None:
    """Wait until the lifeline closes, then end the whole group, this process with it."""
    while os.read(lifeline, 1024):
        pass
    group_must_end.set()
    with suppress(ProcessLookupError):
        os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def exit_like(exit_code: int) -> None:
    """Exit as the program did: with its exit code, or by the same signal."""
    if exit_code < 0:
        with suppress(OSError):  # SIGKILL needs no default action, and takes none
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
    sys.exit(exit_code)


def main() -> None:
    """Run the program until it ends."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, outlive)
    lifeline = sys.stdin.fileno()
    for name, value in json.loads(read_line(lifeline)).items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603
    except OSError as error:
        sys.stderr.write(f"cannot run {sys.argv[1]}: {error}\n")
        sys.exit(EXIT_CANNOT_RUN)
    group_must_end = threading.Event()
    threading.Thread(target=end_group_after, args=(lifeline, group_must_end), daemon=True).start()
    exit_code = program.wait()
    if group_must_end.is_set():
        os.killpg(0, signal.SIGKILL)
    exit_like(exit_code)


if __name__ == "__main__":
    main()
