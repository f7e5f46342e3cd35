"""Ask pip-audit for known holes in what requirements.lock and requirements-cuda.lock name.

The exit status is 1 if there is a hole. What could not be asked is said in words, never taken for a
clean answer, and gives status 2 where AUDIT_REQUIRED is set.

Usage: audit.py PIP_AUDIT
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-cuda.lock")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one call.

    Args:
        holes: A line for each known hole.
        gaps: A line for each package, or for the whole call, without an answer.
    """

    holes: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


def main(pip_audit: str) -> int:
    """Ask, print the answer, return the exit status."""
    text, status = report(list(_ask_about_locks(pip_audit)))
    sys.stdout.write(text + "\n")
    return status if status != 2 or os.environ.get("AUDIT_REQUIRED") else 0


def _ask_about_locks(pip_audit: str) -> Iterator[Answer]:
    """Ask about one package first: where it is not known, a hundred questions are saved."""
    texts = [(ROOT / name).read_text() for name in LOCKS]
    one = next(line for line in texts[0].splitlines() if "==" in line).split()[0]
    answer = ask(pip_audit, one, "--no-deps")
    if answer.gaps:
        yield answer
        return
    for text in texts:
        yield ask(pip_audit, text, "--require-hashes")


def ask(pip_audit: str, requirements: str, *options: str) -> Answer:
    """Ask about pinned requirements, without resolving or installing anything."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(requirements)
        rest = ("--disable-pip", "--progress-spinner", "off", "--format", "json")
        command = (pip_audit, "-r", str(file), *options, *rest)
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    return read_answer(done.stdout, done.stderr)


def read_answer(stdout: str, stderr: str) -> Answer:
    """Return what pip-audit's JSON says; without JSON the last line of its errors is the gap."""
    try:
        packages = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Answer(gaps=((stderr.strip().splitlines() or ["no answer"])[-1],))
    holes = (
        f"{package['name']} {package['version']}: {hole['id']}, fixed in "
        f"{', '.join(hole['fix_versions']) or 'no version yet'}"
        for package in packages
        for hole in package.get("vulns", ())
    )
    gaps = (f"{p['name']}: {p['skip_reason']}" for p in packages if "skip_reason" in p)
    return Answer(tuple(holes), tuple(gaps))


def report(answers: Sequence[Answer]) -> tuple[str, int]:
    """Return all answers as text, and the status: 1 holes, 2 gaps, 0 neither."""
    holes = [f"KNOWN HOLE: {hole}" for answer in answers for hole in answer.holes]
    gaps = [f"NOT CHECKED for known holes: {gap}" for answer in answers for gap in answer.gaps]
    text = "\n".join([*holes, *gaps]) or "No known holes in any package."
    return text, 1 if holes else 2 if gaps else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
