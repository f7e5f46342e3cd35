"""Write docs/benchmarks/*.md from the JSON reports beside them: no figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.accept_page import accept_page
from benchmarks.annotate_page import annotate_page
from benchmarks.faults.page import faults_page
from benchmarks.first_order_page import first_order_page
from benchmarks.injection_page import injection_page
from benchmarks.load_pages import load_page, scale_page
from benchmarks.ordering_page import write_ordering_page
from benchmarks.report import Goals, goal_table, origin
from benchmarks.rounds_page import write_rounds_page
from benchmarks.selftrain_page import write_selftrain_page

FOLDER = Path(__file__).resolve().parent.parent / "docs/benchmarks"

_SERVING_GOALS: Goals = (
    ("predict_1_ratio", "at most 1.3", lambda value: value <= 1.3),
    ("annotate_ratio", "at least 0.95", lambda value: value >= 0.95),
)
_SERVING_MEANINGS = {
    "predict_1_p50_ms": "/predict, one stored task, median, ms",
    "predict_1_p99_ms": "/predict, one stored task, 99th percentile, ms",
    "predict_1_ratio": "the median as a ratio to a bare label-studio-ml backend's",
    "predict_1500_p50_s": "/predict, 1,500 stored tasks, median, s",
    "predict_1500_p99_s": "/predict, 1,500 stored tasks, slowest of the runs, s",
    "annotate_labels_per_s": "labels a second through the worker's whole path",
    "annotate_ratio": "the same, as a ratio to the server's rate for these prompts in lists of 64",
}
_STARTUP_GOALS: Goals = (
    ("web_start_s", "under 1.5", lambda value: value < 1.5),
    ("web_mb", "under 150", lambda value: value < 150),
    ("status_s", "under 1", lambda value: value < 1),
    ("queue_s", "under 1", lambda value: value < 1),
    ("doctor_s", "under 1", lambda value: value < 1),
    ("settings_s", "under 1", lambda value: value < 1),
)
_STARTUP_MEANINGS = {
    "web_start_s": "the web process on a fresh store until it can serve, processor seconds",
    "web_mb": "its peak resident memory until then, MB",
    "status_s": "`python -m backend status`, processor seconds",
    "queue_s": "`python -m backend queue 1`, processor seconds",
    "doctor_s": "`python -m backend doctor` with no server running, processor seconds",
    "settings_s": "`python -m backend settings`, processor seconds",
}
_PAGE_MEANINGS = {
    "projects_ms": "the list of projects",
    "overview_ms": "Overview",
    "quality_ms": "Quality",
    "issues_ms": "Label issues, the first 50",
    "queue_ms": "Queue, the first 50",
    "rounds_ms": "Rounds",
    "accept_ms": "Accept",
    "settings_ms": "Settings",
    "metrics_ms": "`/metrics`",
}
_PAGE_GOALS: Goals = tuple((name, "under 300", lambda ms: ms < 300) for name in _PAGE_MEANINGS)

_RETENTION_GOALS: Goals = (("peak_mb", "under 2,048", lambda value: value < 2_048),)
_RETENTION_MEANINGS = {
    "peak_mb": "`FREEAL_HOME` at most, MB",
    "end_mb": "`FREEAL_HOME` after the last round, MB",
    "database_mb": "of these the database with its log, MB",
    "models_mb": "students and arrays of rounds, MB",
    "embeddings_mb": "cached sentence vectors, MB",
    "n_projects": "projects that are left",
    "n_releases": "releases that can be rolled back to, the served one included",
    "n_human_labels": "annotations by people of tasks that are left; none of these is deleted",
    "housekeeping_s": "the longest housekeeping, s",
}


def write_pages() -> list[Path]:
    """Write every page whose JSON file is there; return the pages."""
    written = []
    for source in sorted(FOLDER.glob("*.json")):
        page = source.with_suffix(".md")
        report = json.loads(source.read_text(encoding="utf-8"))
        page.write_text(_PAGES[report["benchmark"]](report, source.name), encoding="utf-8")
        written.append(page)
    annotated = sorted((FOLDER / "annotate").glob("*.json"))
    if annotated:
        page = FOLDER / "annotate.md"
        reports = [json.loads(source.read_text(encoding="utf-8")) for source in annotated]
        page.write_text(annotate_page(reports), encoding="utf-8")
        written.append(page)
    for write in (write_ordering_page, write_selftrain_page, write_rounds_page):
        written += write(FOLDER)
    return written


def _serving(report: dict[str, Any], source: str) -> str:
    results, notes = report["results"], report["notes"]
    lines = [
        "# Serving: latency of routes and labeling rate",
        "",
        f"{origin(report, source)}, everything on one machine: the LLM server, the worker, the "
        "web process and the client share them. Ratios compare figures of one run; a figure "
        "alone says little about another machine.",
        "",
        *goal_table(results, _SERVING_MEANINGS, _SERVING_GOALS),
    ]
    lines += ["", "Beside them, in the same run:", "", "| figure | value |", "|---|---|"]
    lines += [f"| `{name}` | {value} |" for name, value in notes.items()]
    lines += [
        "",
        "How it is measured: each `/predict` is one HTTP request over a connection of its own, as "
        "Label Studio makes them, in turn with the bare backend, which is label-studio-ml 1.0.9 "
        "answering constants under the same web server settings. The ceiling of the labeling rate "
        "sends the recorded requests directly to the server, some lists in flight, after the "
        "backend and with a prefix cache of its own; each repeat has texts of its own. `python -m "
        "benchmarks load` measures webhooks.",
        "",
    ]
    return "\n".join(lines)


def _startup(report: dict[str, Any], source: str) -> str:
    lines = [
        "# Startup: seconds and memory until an answer",
        "",
        f"{origin(report, source)}.",
        "",
        *goal_table(report["results"], _STARTUP_MEANINGS, _STARTUP_GOALS),
        "",
        "How it is measured: each figure is the median of several child processes, from the start "
        "of Python to its end. The commands read a store with one project of the sample's tasks. "
        "By the wall clock the web process took "
        f"{report['notes']['web_start_wall_s']} s.",
        "",
    ]
    return "\n".join(lines)


def _page(report: dict[str, Any], source: str) -> str:
    n_tasks = report["parameters"]["tasks"]
    lines = [
        "# The page: what a large project costs",
        "",
        f"{origin(report, source)}. Milliseconds of processor time to answer one request.",
        "",
        *goal_table(report["results"], _PAGE_MEANINGS, _PAGE_GOALS),
        "",
        f"How it is measured: the product's own stores hold one project of {n_tasks:,} "
        "tasks in SQLite, each with labels of four annotators, two predictions and a place in the "
        "queue; people have answered every twentieth. Each figure is the median of requests in one "
        "process whose templates are compiled. The web process keeps counts for ten times as long "
        "as counting took; here each request comes after that, so that all is counted anew.",
        "",
    ]
    return "\n".join(lines)


def _retention(report: dict[str, Any], source: str) -> str:
    tables = report["notes"]["tables_mb"]
    lines = [
        "# Retention: what a busy year leaves on the disk",
        "",
        f"{origin(report, source)}.",
        "",
        *goal_table(report["results"], _RETENTION_MEANINGS, _RETENTION_GOALS),
        "",
        "The largest tables at the end, with their indexes: "
        + ", ".join(f"`{name}` {size} MB" for name, size in tables.items())
        + ".",
        "",
        "How it is measured: the product's own stores write to SQLite what people, Label Studio "
        "and rounds write, in the number and size of real rows; nothing is computed, and no server "
        "runs. Every round asks the LLM about all tasks anew, makes two students and a release; "
        "some tasks are deleted and imported before it. The label config changes at times, which "
        "starts all labels anew, and a second project is removed in the middle of the year. The "
        "worker's housekeeping runs after each round, with the default settings, and then all "
        "clocks are set back. The peak is before housekeeping. A training's checkpoints, which are "
        "deleted when the round ends, are not part of it.",
        "",
    ]
    return "\n".join(lines)


_PAGES: dict[str, Callable[[dict[str, Any], str], str]] = {
    "serving": _serving,
    "startup": _startup,
    "first-order": first_order_page,
    "page": _page,
    "retention": _retention,
    "scale": scale_page,
    "load": load_page,
    "faults": faults_page,
    "injection": injection_page,
    "accept": accept_page,
}
