"""Tables of docs/benchmarks/rounds.md about who chooses the texts that people label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_RANDOM = "random"
_TITLES = ("labels of the pool", "the student on test texts")
_HEADER = "| order | human labels | runs | points above random order |"

Run = tuple[str, int]
"""A data set and a seed."""
Curves = Mapping[tuple[str, int], Mapping[Run, tuple[float, float]]]
"""Points on the pool and on test texts, by order and number of labels, then by run."""


def is_curve(report: Mapping[str, Any]) -> bool:
    """Return whether a report has figures at several numbers of human labels."""
    return isinstance(report["parameters"]["humans"], list)


def curve_tables(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table for the pool's labels and one for test texts; none without."""
    curves = _read(reports)
    lines: list[str] = []
    for at, title in enumerate(_TITLES):
        rows = [
            f"| `{order}` | {n} | {len(runs)} | {_above_random(curves, (order, n), at)} |"
            for (order, n), runs in sorted(curves.items())
            if order != _RANDOM
        ]
        if rows:
            lines += ["", f"## Orders: {title}", "", _HEADER, "|---|---|---|---|", *rows]
    return [_about(reports), *lines, ""] if lines else []


def _about(reports: Sequence[Mapping[str, Any]]) -> str:
    sets = sorted({report["parameters"]["data"].split(".")[0] for report in reports})
    students = sorted({report["parameters"]["small_model"] for report in reports})
    models = sorted({report["notes"]["model"] for report in reports})
    n_texts = sorted({report["parameters"]["limit"] for report in reports})
    return (
        f"The next tables are of pools of {' and '.join(map(str, n_texts))} texts of "
        f"{', '.join(sets)} with {', '.join(models)} and the student's recipe "
        f"`{'`, `'.join(students)}`; a round follows each number of labels."
    )


def _read(reports: Sequence[Mapping[str, Any]]) -> Curves:
    found: dict[tuple[str, int], dict[Run, tuple[float, float]]] = {}
    for report in reports:
        parameters = report["parameters"]
        run = (parameters["data"].split(".")[0], parameters["seed"])
        for point in report["results"]["curve"]:
            scores = (100 * point["pool"]["fused"], 100 * point["test"]["small_model"])
            found.setdefault((parameters["order"], point["n"]), {})[run] = scores
    return found


def _above_random(curves: Curves, key: tuple[str, int], at: int) -> str:
    random = curves.get((_RANDOM, key[1]), {})
    leads = [scores[at] - random[run][at] for run, scores in curves[key].items() if run in random]
    if len(leads) < 2:
        return "–"
    error = 1.96 * float(np.std(leads, ddof=1)) / len(leads) ** 0.5
    return f"{np.mean(leads):+.1f} ± {error:.1f} over {len(leads)}"
