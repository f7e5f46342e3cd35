"""Write docs/benchmarks/rounds.md from the reports beside it: goals, then a row per run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_SETS = ("sst2", "mr", "trec", "ag_news", "sms_spam", "tweet_offensive")
_N_HUMANS = 64
_WITHOUT, _QUEUE, _RANDOM = (0, "queue"), (_N_HUMANS, "queue"), (_N_HUMANS, "random")

Runs = dict[tuple[int, str], dict[str, dict[str, Any]]]
"""Reports by number and order of human labels, then by data set."""


def write_rounds_page(folder: Path) -> list[Path]:
    """Write the page of `folder`/rounds/*.json; return what was written, nothing without any."""
    sources = sorted((folder / "rounds").glob("*.json"))
    if not sources:
        return []
    page = folder / "rounds.md"
    runs = grouped([json.loads(source.read_text(encoding="utf-8")) for source in sources])
    page.write_text("\n".join(_lines(runs)), encoding="utf-8")
    return [page]


def grouped(reports: Sequence[dict[str, Any]]) -> Runs:
    """Return the reports by kind of run and set."""
    runs: Runs = {}
    for report in reports:
        parameters = report["parameters"]
        name = parameters["data"].removesuffix(".gz").removesuffix(".jsonl")
        runs.setdefault((parameters["humans"], parameters["order"]), {})[name] = report
    return runs


def _lines(runs: Runs) -> list[str]:
    lines = [
        "# Rounds: what FreeAL adds to its annotators",
        "",
        "Written by `python -m benchmarks pages` from `rounds/*.json`, which `python -m benchmarks "
        "rounds --data FILE [--humans 64] [--order random] --json OUT` measured: the product's own "
        "workflow, LLM client and student over a Label Studio in memory; gold labels of the "
        "training split serve as human labels of the queue's first tasks (or of drawn ones). "
        "Accuracies are over the whole pool, where human labels replace aggregated ones: the "
        "smaller the pool, the more of the gain is due to these labels themselves, and more so "
        "with drawn ones than with the queue's, which begins with clear texts. `unlabeled` is the "
        "accuracy on the tasks without a human label; the test columns are over 300 test texts.",
        "",
        "## Goals",
        "",
        "| goal | met | measured |",
        "|---|---|---|",
        *_goals(runs),
    ]
    titles = {
        _WITHOUT: "Without human labels",
        _QUEUE: f"With {_N_HUMANS} human labels in the queue's order",
        _RANDOM: f"With {_N_HUMANS} human labels of random texts",
    }
    for kind, title in titles.items():
        if kind in runs:
            lines += ["", f"## {title}", "", *_table(runs[kind])]
    return [*lines, ""]


def _goals(runs: Runs) -> list[str]:
    without, queue, random = (gains(runs.get(kind, {})) for kind in (_WITHOUT, _QUEUE, _RANDOM))
    shared = sorted(set(queue) & set(random))
    lead = [queue[name] - random[name] for name in shared]
    on_test = [
        100 * (_aggregated_on_test(runs[_QUEUE][name]) - _aggregated_on_test(runs[_RANDOM][name]))
        for name in shared
    ]
    coverage = {
        f"{name} {kind[0]} {kind[1]}": report["results"].get("interval_coverage_100")
        for kind, of_kind in runs.items()
        for name, report in of_kind.items()
    }
    known = {name: value for name, value in coverage.items() if value is not None}
    rows: list[tuple[str, bool | None, str]] = [
        (
            "without human labels, 5 points above the better zero-shot annotator on average",
            bool(without) and float(np.mean(list(without.values()))) >= 5,
            _mean_gain(without),
        ),
        (
            "without human labels, on no set more than a point under it",
            bool(without) and min(without.values()) >= -1,
            _least_gain(without),
        ),
        (
            f"with {_N_HUMANS} human labels in the queue's order, 14 points above it on average",
            bool(queue) and float(np.mean(list(queue.values()))) >= 14,
            _mean_gain(queue),
        ),
        (
            "more than with as many labels of random texts",
            bool(lead) and float(np.mean(lead)) > 0,
            f"{np.mean(lead):+.1f} points over {len(lead)} sets ({np.mean(on_test):+.1f} on test "
            "texts)"
            if lead
            else "not measured",
        ),
        (
            "the interval covers the true accuracy in 90 % of 50 resamples of 100 labels",
            bool(known) and min(known.values()) >= 0.9,
            _least(known),
        ),
    ]
    return [f"| {goal} | {'yes' if met else '**no**'} | {found} |" for goal, met, found in rows]


def gains(reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return, per set, the points of the aggregated labels above the better zero-shot annotator."""
    return {
        name: 100 * (r["results"]["fused_accuracy"] - r["results"]["zero_shot_accuracy"])
        for name, r in reports.items()
    }


def _mean_gain(gain: dict[str, float]) -> str:
    if not gain:
        return "not measured"
    missing = [name for name in _SETS if name not in gain]
    rest = f"; not measured: {', '.join(missing)}" if missing else ""
    return f"{np.mean(list(gain.values())):+.1f} points over {len(gain)} sets{rest}"


def _least_gain(gain: dict[str, float]) -> str:
    return _least({name: round(value, 1) for name, value in gain.items()})


def _least(figures: dict[str, float]) -> str:
    if not figures:
        return "not measured"
    worst = min(figures, key=lambda name: figures[name])
    return f"least: {worst} {figures[worst]:g}"


_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("texts", lambda r: r["parameters"]["limit"]),
    ("better zero-shot", lambda r: r["results"]["zero_shot_accuracy"]),
    ("aggregated before", lambda r: r["results"]["prelabel_accuracy"]),
    ("aggregated after", lambda r: r["results"]["fused_accuracy"]),
    ("unlabeled", lambda r: _unlabeled_accuracy(r["results"], r["parameters"]["limit"])),
    ("student", lambda r: r["results"]["small_model_accuracy"]),
    ("test: better zero-shot", lambda r: _better(r["results"]["test"])),
    ("test: student", lambda r: r["results"]["test"].get("small_model")),
    ("test: aggregated", lambda r: r["results"]["test"].get("fused")),
    ("estimated accuracy", lambda r: _estimate(r["results"])),
    ("coverage", lambda r: r["results"].get("interval_coverage_100")),
    ("new tokens", lambda r: f"{r['results']['tokens_in'] + r['results']['tokens_out']:,}"),
    ("s", lambda r: r["results"]["seconds"]),
)


def _table(reports: dict[str, dict[str, Any]]) -> list[str]:
    header = "| set | " + " | ".join(title for title, _ in _COLUMNS) + " | commit |"
    lines = [header, "|---" * (len(_COLUMNS) + 2) + "|"]
    for name, report in sorted(reports.items()):
        cells = ["–" if (value := read(report)) is None else str(value) for _, read in _COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | `{report['commit']}` |")
    return lines


def _better(test: dict[str, float]) -> float | None:
    known = [test[name] for name in ("llm", "similarity") if test.get(name) is not None]
    return max(known, default=None)


def _aggregated_on_test(report: dict[str, Any]) -> float:
    return float(report["results"]["test"]["fused"])


def _unlabeled_accuracy(results: dict[str, Any], n_texts: int) -> float:
    """Return the accuracy without the human-labeled tasks, whose labels are gold."""
    n_humans = int(results["n_human_labels"])
    n_correct = float(results["fused_accuracy"]) * n_texts - n_humans
    return round(n_correct / (n_texts - n_humans), 4)


def _estimate(results: dict[str, Any]) -> str | None:
    if results.get("interval") is None:
        return None
    low, high = results["interval"]
    return f"{results['estimated_accuracy']:.2f} [{low:.2f}, {high:.2f}]"
