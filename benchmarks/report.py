"""Write a benchmark's report: figures, commit, machine and parameters."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

Goals = tuple[tuple[str, str, Callable[[float], bool]], ...]
"""Goals of figures: the name, the goal in words, and whether a value meets it."""
_ROOT = Path(__file__).resolve().parent.parent


class Report:
    """Holds a benchmark's `results` and `notes`; writes them with commit and parameters."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters = dict(parameters)
        self.results: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        content = {
            "benchmark": self.name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": measured_commit(),
            "machine": {
                "cores": os.cpu_count(),
                "processor": platform.machine(),
                "python": platform.python_version(),
                "accelerator": _accelerator(),
            },
            "parameters": self.parameters,
            "results": self.results,
            "notes": self.notes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """Return results and notes as a table for a terminal."""
        table = Table("figure", "value", title=self.name)
        for key, value in {**self.results, **self.notes}.items():
            table.add_row(key, str(value))
        return table


def _accelerator() -> str | None:
    """Return the name of the GPU that computed, None where none did."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def goal_rows(rows: Sequence[tuple[str, str, bool]]) -> list[str]:
    """Return a Markdown table of goals in words, what was measured, and whether each is met."""
    return [
        "| goal | measured | met |",
        "|---|---|---|",
        *(f"| {goal} | {shown} | {'yes' if met else '**no**'} |" for goal, shown, met in rows),
    ]


def goal_table(
    results: Mapping[str, Any], meanings: Mapping[str, str], goals: Goals
) -> Iterator[str]:
    """Yield a Markdown table of figures, with whether each meets its goal."""
    yield "| figure | what it is | value | goal | met |"
    yield "|---|---|---|---|---|"
    tests = {name: (goal, is_met) for name, goal, is_met in goals}
    for name, value in results.items():
        goal, is_met = tests.get(name, ("", None))
        met = "" if is_met is None else ("yes" if is_met(value) else "**no**")
        yield f"| `{name}` | {meanings[name]} | {value} | {goal} | {met} |"


def origin(report: Mapping[str, Any], source: str, *, options: str = "") -> str:
    """Return where a page's figures are from, without a period at its end."""
    machine = report["machine"]
    return (
        f"Written by `python -m benchmarks pages` from `{source}`, which `python -m benchmarks "
        f"{report['benchmark']}{options} --json docs/benchmarks/{source}` measured at commit "
        f"`{report['commit']}` with {report['parameters']} on {machine['cores']} cores "
        f"({machine['processor']})"
    )


def percentile(seconds: Sequence[float], q: float) -> float:
    """Return the q-th percentile of durations, in the unit given."""
    return float(np.percentile(np.asarray(seconds), q))


def measured_commit() -> str:
    """Return the measured commit, marked as dirty when the tree differs from it."""
    try:
        return subprocess.run(  # noqa: S603
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
