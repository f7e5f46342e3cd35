"""Write docs/benchmarks/rounds.md from the reports beside it: goals, then a row per set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.rounds_curves import curve_tables, is_curve

_CAPABLE, _SMALL = "qwen2.5-coder-1.5b", "smollm2-135m"
_SINGLE = ("sst2", "mr", "trec", "ag_news", "sms_spam", "tweet_emotion", "tweet_offensive")
_SPANS = {"bc5cdr": 5.0, "wnut17": 3.0}
_SEVERAL = ("nlupp_banking", "goemotions")
_N_HUMANS = 64
_MAX_MB = 150.0

Goal = tuple[str, bool | None, str]
"""A goal in words, whether it is met (None: not measured) and what was found."""


@dataclass(frozen=True, slots=True)
class SetRuns:
    """The runs of a data set with one LLM, one per seed, with the same number of human labels."""

    name: str
    reports: Sequence[dict[str, Any]]

    def mean(self, read: Callable[[dict[str, Any]], float | None]) -> float | None:
        """Return the mean of a figure over the seeds, None where a run lacks it."""
        found = [read(report) for report in self.reports]
        if any(one is None for one in found):
            return None
        return float(np.mean(cast(list[float], found)))

    def points(self, better: str, worse: str) -> float:
        """Return the mean difference of two results in points."""
        gains = [r["results"][better] - r["results"][worse] for r in self.reports]
        return 100 * float(np.mean(gains))

    @property
    def test_points(self) -> float:
        """Return the points of the better of student and labels above the better annotator."""
        gains = [
            max(test["small_model"], test["fused"]) - max(_annotators(test))
            for test in (report["results"]["test"] for report in self.reports)
        ]
        return 100 * float(np.mean(gains))


Runs = dict[tuple[str, int, str], dict[str, SetRuns]]
"""The runs by LLM, number and order of the human labels, then by data set."""


def write_rounds_page(folder: Path) -> list[Path]:
    """Write the page of `folder`/rounds/*.json; return what was written, nothing without any."""
    sources = sorted((folder / "rounds").glob("*.json"))
    if not sources:
        return []
    page = folder / "rounds.md"
    reports = [json.loads(source.read_text(encoding="utf-8")) for source in sources]
    lines = _lines(grouped([report for report in reports if not is_curve(report)]))
    lines += curve_tables([report for report in reports if is_curve(report)])
    page.write_text("\n".join(lines), encoding="utf-8")
    return [page]


def grouped(reports: Sequence[dict[str, Any]]) -> Runs:
    """Return the reports by LLM, human labels and set."""
    found: dict[tuple[str, int, str], dict[str, list[dict[str, Any]]]] = {}
    for report in reports:
        parameters = report["parameters"]
        name = parameters["data"].removesuffix(".gz").removesuffix(".jsonl")
        key = (_model(report), parameters["humans"], parameters["order"])
        found.setdefault(key, {}).setdefault(name, []).append(report)
    return {
        key: {name: SetRuns(name, of_set) for name, of_set in sorted(of_key.items())}
        for key, of_key in sorted(found.items())
    }


def _model(report: dict[str, Any]) -> str:
    name = str(report["notes"].get("model", _SMALL)).removeprefix("llm:")  # the first had no other
    return next((known for known in (_CAPABLE, _SMALL) if name.startswith(known)), name)


def _lines(runs: Runs) -> list[str]:
    lines = [
        "# Rounds: what FreeAL adds to its annotators",
        "",
        "Written by `python -m benchmarks pages` from `rounds/*.json`, which `python -m benchmarks "
        "rounds --data FILE [--limit 600] [--humans 64] [--order random] [--seed 1] --json OUT` "
        "measured: the product's own workflow, LLM client and student over a Label Studio in "
        "memory. The LLM is asked over vLLM; `--llm FOLDER` runs one in the benchmark's process, "
        "with transformers, for a GPU without a server, and is marked at the commit. Gold labels "
        "of the training split serve as human labels. Figures are accuracies, and micro F1 for "
        "several labels and for spans, over the whole pool, where human labels replace aggregated "
        "ones; the test columns are over 300 test texts. *Change* is in decisions (a single label; "
        "one label of several or a span, of which a wrong one costs half of what a right one "
        "gains): what the round expected with its 90 % interval, and what it was in truth. Tokens "
        "and seconds are of runs that cached no answers.",
        "",
        "## Goals",
        "",
        "| goal | met | measured |",
        "|---|---|---|",
    ]
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines += [f"| {goal} | {words[met]} | {found} |" for goal, met, found in _goals(runs)]
    for (model, n_humans, order), sets in runs.items():
        people = f"{n_humans} human labels, {order}" if n_humans else "nobody answers"
        lines += ["", f"## {model}, {people}", "", *_table(sets)]
    return [*lines, ""]


def _goals(runs: Runs) -> list[Goal]:
    capable, small = (_without_people(runs, model) for model in (_CAPABLE, _SMALL))
    return [
        *_served(capable, _CAPABLE, least_mean=2.0, least=-0.5),
        *_served(small, _SMALL, least_mean=0.0, least=-1.0),
        _mean_goal(
            f"{_CAPABLE}: served labels 5 points above the better zero-shot annotator on average",
            {n: r.points("fused_accuracy", "zero_shot_accuracy") for n, r in capable.items()},
            _SINGLE,
            5.0,
        ),
        _mean_goal(
            f"{_CAPABLE}: on test texts the better of student and labels 4 points above the better "
            "zero-shot annotator on average",
            {n: r.test_points for n, r in capable.items()},
            _SINGLE,
            4.0,
        ),
        _mean_goal(
            f"{_CAPABLE}: several labels 3 points above the LLM's on average",
            {n: r.points("fused_accuracy", "zero_shot_accuracy") for n, r in capable.items()},
            _SEVERAL,
            3.0,
        ),
        *(
            _mean_goal(
                f"{_CAPABLE}: spans of {name}, the better of student and labels {points:g} points "
                "above the LLM's",
                {n: r.test_points for n, r in capable.items()},
                (name,),
                points,
            )
            for name, points in _SPANS.items()
        ),
        _intervals_goal(runs),
        _size_goal(runs),
    ]


def _without_people(runs: Runs, model: str) -> dict[str, SetRuns]:
    return runs.get((model, 0, "queue"), {})


def _served(sets: dict[str, SetRuns], model: str, *, least_mean: float, least: float) -> list[Goal]:
    gains = {n: r.points("fused_accuracy", "prelabel_accuracy") for n, r in sets.items()}
    on_average = f"{model}: served labels {least_mean:g} points above those before, on average"
    nowhere = f"{model}: on no set more than {-least:g} points under those before"
    known = {name: gain for name, gain in gains.items() if name in _SINGLE}
    return [
        _mean_goal(on_average, gains, _SINGLE, least_mean),
        (nowhere, min(known.values()) >= least if known else None, _least(known)),
    ]


def _mean_goal(goal: str, gains: dict[str, float], names: Sequence[str], least_mean: float) -> Goal:
    known = [gains[name] for name in names if name in gains]
    missing = [name for name in names if name not in gains]
    rest = f"; not measured: {', '.join(missing)}" if missing and known else ""
    if not known:
        return goal, None, ""
    found = f"{np.mean(known):+.1f} points over {len(known)} sets{rest}"
    return goal, float(np.mean(known)) >= least_mean, found


def _intervals_goal(runs: Runs) -> Goal:
    """Return how often the true change is in the interval that a round gave."""
    is_inside = [
        report["results"]["expected_gain"]["low"]
        <= report["results"]["true_gain"]
        <= report["results"]["expected_gain"]["high"]
        for sets in runs.values()
        for of_set in sets.values()
        for report in of_set.reports
        if report["results"].get("true_gain") is not None
    ]
    goal = "the true change is in the stated 90 % interval in 80 % of the runs"
    if not is_inside:
        return goal, None, ""
    found = f"{sum(is_inside)} of {len(is_inside)} runs"
    return goal, float(np.mean(is_inside)) >= 0.8, found


def _size_goal(runs: Runs) -> Goal:
    sizes = {
        f"{name} {model}": float(report["results"].get("round_mb", 0))
        for (model, _, _), sets in runs.items()
        for name, of_set in sets.items()
        for report in of_set.reports
    }
    most = max(sizes, key=lambda name: sizes[name])
    goal = f"a round leaves at most {_MAX_MB:g} MB"
    if not sizes[most]:
        return goal, None, ""
    return goal, sizes[most] <= _MAX_MB, f"most: {most} {sizes[most]:g} MB"


def _least(figures: dict[str, float]) -> str:
    if not figures:
        return ""
    worst = min(figures, key=lambda name: figures[name])
    return f"least: {worst} {figures[worst]:+.1f}"


_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("better zero-shot", lambda r: r["results"]["zero_shot_accuracy"]),
    ("before", lambda r: r["results"]["prelabel_accuracy"]),
    ("after", lambda r: r["results"]["fused_accuracy"]),
    ("test: better zero-shot", lambda r: max(_annotators(r["results"]["test"]))),
    ("test: student", lambda r: r["results"]["test"]["small_model"]),
    ("test: labels", lambda r: r["results"]["test"]["fused"]),
    ("coverage", lambda r: r["results"].get("interval_coverage_100")),
)
_COSTS: tuple[tuple[str, str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("new tokens", ",.0f", lambda r: _if_asked(r, "tokens_in", "tokens_out")),
    ("student, ms a text", ".0f", lambda r: r["results"]["test"].get("student_ms")),
    ("MB", ".0f", lambda r: r["results"].get("round_mb")),
    ("s", ".0f", lambda r: _if_asked(r, "seconds")),
)


def _if_asked(report: dict[str, Any], *names: str) -> float | None:
    """Return the sum of results; None where answers were cached, which cost neither."""
    if report["notes"].get("has_cached_answers"):
        return None
    return float(sum(report["results"][name] for name in names))


def _table(sets: dict[str, SetRuns]) -> list[str]:
    titles = ["set", "texts", "seeds", *(title for title, _ in _COLUMNS)]
    titles += ["change: expected", "in truth", *(title for title, _, _ in _COSTS), "commit"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, of_set in sets.items():
        first = of_set.reports[0]
        cells = [name, str(first["parameters"]["limit"]), str(len(of_set.reports))]
        cells += [_cell(of_set.mean(read), ".3f") for _, read in _COLUMNS]
        cells += [_each(of_set, _expected), _each(of_set, _in_truth)]
        cells += [_cell(of_set.mean(read), form) for _, form, read in _COSTS]
        mark = " (transformers)" if first["notes"].get("llm_runs_in") == "transformers" else ""
        lines.append("| " + " | ".join([*cells, f"`{first['commit']}`{mark}"]) + " |")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _each(of_set: SetRuns, write: Callable[[dict[str, Any]], str]) -> str:
    return "; ".join(write(report["results"]) for report in of_set.reports)


def _expected(results: dict[str, Any]) -> str:
    gain = results.get("expected_gain")
    if gain is None:
        return "–"
    value, low, high = (100 * gain[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def _in_truth(results: dict[str, Any]) -> str:
    gain = results.get("true_gain")
    if gain is None:
        return "–"
    is_served = results["fused_accuracy"] != results["prelabel_accuracy"]
    return f"{100 * gain:+.1f}" + ("" if is_served else " (not served)")


def _annotators(test: dict[str, Any]) -> list[float]:
    return [test[name] for name in ("llm", "similarity") if test.get(name) is not None]
