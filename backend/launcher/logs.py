"""The log files of what the launcher runs: start a fresh one, read its end."""

from pathlib import Path
from typing import BinaryIO

N_TAIL_LINES = 20
_N_TAIL_BYTES = 16_384


def fresh_log(path: Path) -> BinaryIO:
    """Open an empty log file; the one of the run before is kept beside it as NAME.log.1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("wb")


def tail(path: Path, *, n_lines: int = N_TAIL_LINES) -> str:
    """Return the last lines of a log, as far as they lie in its last 16 kB."""
    return "\n".join(_end(path).splitlines()[-n_lines:]) or "(no output)"


def last_line(path: Path) -> str:
    """Return the last line of a log that is not blank, "" if there is none."""
    lines = [line for line in _end(path).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _end(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(0, 2)
        log.seek(max(0, log.tell() - _N_TAIL_BYTES))
        return log.read().decode("utf-8", errors="replace")
