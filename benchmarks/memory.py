"""Read a process's peak memory."""

from __future__ import annotations

import re


def peak_mb(status: str) -> float:
    """Return the peak resident memory in MB that a process's status file tells.

    That of `wait4` and `getrusage` would count what the parent had before the exec.

    Raises:
        RuntimeError: the text names none: the process has ended, or the system is not Linux.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise RuntimeError("memory is measured on Linux only, by /proc/self/status")
    return int(found[1]) / 1024
