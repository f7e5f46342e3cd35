"""Write docs/benchmarks/annotate.md from the reports in docs/benchmarks/annotate/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Report = dict[str, Any]

_ACCURACY = ("accuracy_raw", "accuracy_embedding", "accuracy_combined", "accuracy_calibrated")
_CALIBRATION = ("ece_raw", "ece_calibrated", "n_abstentions", "n_invalid")
_SPEED = ("labels_per_s", "ceiling_labels_per_s", "ratio", "sequential_labels_per_s")
_SINGLE_ANNOTATOR = ("accuracy_raw", "accuracy_calibrated", "accuracy_embedding")
"""Figures of one annotator alone."""
_COST = ("prefix_cache_hit_rate", "tokens_in", "tokens_out", "max_demonstration_share")


def annotate_page(reports: Sequence[Report]) -> str:
    """Return the page: accuracy, calibration, speed, cost, and goals met or not."""
    first = reports[0]
    lines = [
        "# Annotators: accuracy, calibration, speed",
        "",
        "Written by `python -m benchmarks pages` from `annotate/*.json`, which `python -m "
        "benchmarks annotate --data FILE --json docs/benchmarks/annotate/NAME.json` measured with "
        f"`{first['notes']['model']}` on {first['machine']['cores']} cores "
        f"({first['machine']['processor']}), the LLM server on the same machine. Nothing is "
        "learned from the evaluated texts but their unlabeled posteriors, as in a project; human "
        "labels are drawn from training texts. `embedding` is the similarity annotator, `combined` "
        "LLM and similarity aggregated by the label model. Accuracy stands for micro F1 with "
        "multiple labels and for the F1 of exact spans. In brackets the 95 % interval; – where a "
        "figure does not apply.",
        "",
        "## Accuracy",
        "",
        *_table(reports, _ACCURACY),
        "",
        "## Calibration",
        "",
        *_table(reports, _CALIBRATION),
        "",
        "## Speed",
        "",
        "The ceiling is a direct client that sends the same requests without reading the "
        "responses, chunk by chunk in turn with the backend, with a prefix cache of its own. A "
        "ratio well above 1 shows that something else used the machine: then no speed of that "
        "run is reliable.",
        "",
        *_table(reports, _SPEED),
        "",
        "## Cost",
        "",
        *_table(reports, _COST),
        "",
        "## Goals",
        "",
        "| goal | met | measured |",
        "|---|---|---|",
        *(line for line in _goals(reports)),
        "",
    ]
    return "\n".join(lines)


def _name(report: Report) -> str:
    name = str(report["parameters"]["data"]).split(".", 1)[0]
    shots = report["parameters"].get("shots")
    return f"{name}, {shots} shots" if shots else name


def _table(reports: Sequence[Report], figures: Sequence[str]) -> list[str]:
    shown = [
        name
        for name in figures
        if any(report["results"].get(name) is not None for report in reports)
    ]
    lines = [
        "| set | texts | " + " | ".join(f"`{name}`" for name in shown) + " |",
        "|---|---" + "|---" * len(shown) + "|",
    ]
    for report in reports:
        cells = [_cell(report, name) for name in shown]
        lines.append(f"| {_name(report)} | {report['notes']['n_texts']} | {' | '.join(cells)} |")
    return lines


def _cell(report: Report, name: str) -> str:
    value = report["results"].get(name)
    if value is None:
        return "–"
    interval = report["notes"].get(f"{name}_95")
    macro = report["notes"].get(f"{name}_macro")
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if macro is not None:
        text += f", macro {macro:.3f}"
    return text if interval is None else f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _goals(reports: Sequence[Report]) -> list[str]:
    """Return a line per goal: met or not, and where it is missed."""
    zero_shot = [report for report in reports if not report["parameters"].get("shots")]
    with_shots = [report for report in reports if report["parameters"].get("shots")]
    return [
        *_goal(reports, "no invalid answer", _figure("n_invalid"), lambda value: value == 0),
        *_goal(reports, "ratio at least 0.95", _figure("ratio"), lambda value: value >= 0.95),
        *_goal(reports, "at least 6 times sequential", _speed_up, lambda value: value >= 6),
        *_goal(
            [report for report in zero_shot if _name(report) == "mr"],
            "mr: calibrated accuracy at least 0.77",
            _figure("accuracy_calibrated"),
            lambda value: value >= 0.77,
        ),
        *_goal(
            [report for report in zero_shot if _name(report) == "clinc150"],
            "clinc150: accuracy above 0.20",
            _figure("accuracy_raw"),
            lambda value: value > 0.2,
        ),
        *_goal(
            zero_shot,
            "calibrated at most half a point under raw",
            _difference("accuracy_calibrated", "accuracy_raw"),
            lambda value: value >= -0.005,
        ),
        *_goal(
            zero_shot,
            "both annotators aggregated at most a point under the better one",
            _difference("accuracy_combined", *_SINGLE_ANNOTATOR),
            lambda value: value >= -0.01,
        ),
        *_aggregation_gain(zero_shot),
        *_goal(
            reports,
            "expected calibration error at most 0.08 with 50 human labels",
            _figure("ece_calibrated"),
            lambda value: value <= 0.08,
        ),
        *_not_worse_with_shots(zero_shot, with_shots),
        *_goal(
            with_shots,
            "prefix cache hit rate at least 0.6",
            _figure("prefix_cache_hit_rate"),
            lambda value: value >= 0.6,
        ),
        *_goal(
            with_shots,
            "no demonstration in over 10 % of the prompts",
            _figure("max_demonstration_share"),
            lambda value: value <= 0.1,
        ),
    ]


def _goal(
    reports: Sequence[Report],
    goal: str,
    figure: Callable[[Report], float | None],
    is_met: Callable[[float], bool],
) -> list[str]:
    """Return the line of a goal for every set by itself; none if no set has the figure."""
    known = {_name(r): value for r in reports if (value := figure(r)) is not None}
    if not known:
        return []
    missed = [f"{name}: {value:.3g}" for name, value in known.items() if not is_met(value)]
    if not missed:
        only = next(iter(known.values()))
        return [f"| {goal} | yes | {f'{only:.3g}' if len(known) == 1 else 'on every set'} |"]
    return [f"| {goal} | **no** | {', '.join(missed)} |"]


def _aggregation_gain(reports: Sequence[Report]) -> list[str]:
    """Return the line of the mean gain by aggregation with 20 human labels."""
    gains = [
        report["notes"]["accuracy_combined_20"]
        - max(report["results"][name] for name in _SINGLE_ANNOTATOR if name in report["results"])
        for report in reports
        if "accuracy_combined_20" in report["notes"]
    ]
    if not gains:
        return []
    gain = sum(gains) / len(gains)
    met = "yes" if gain > 0 else "**no**"
    goal = "aggregated with 20 human labels above the better one on average"
    return [f"| {goal} | {met} | {gain:+.3f} over {len(gains)} sets |"]


def _not_worse_with_shots(zero_shot: Sequence[Report], with_shots: Sequence[Report]) -> list[str]:
    """Return the line of the change by demonstrations, over the sets measured both ways."""
    plain = {report["parameters"]["data"]: report for report in zero_shot}
    pairs = [(report, plain.get(report["parameters"]["data"])) for report in with_shots]
    changes = {
        _name(report): report["results"]["accuracy_calibrated"]
        - without["results"]["accuracy_calibrated"]
        for report, without in pairs
        if without is not None and "accuracy_calibrated" in report["results"]
    }
    if not changes:
        return []
    mean = sum(changes.values()) / len(changes)
    met = "yes" if mean >= 0 else "**no**"
    shown = ", ".join(f"{name}: {change:+.3f}" for name, change in changes.items())
    goal = "demonstrations not worse than zero-shot on average"
    return [f"| {goal} | {met} | {mean:+.3f} ({shown}) |"]


def _figure(name: str) -> Callable[[Report], float | None]:
    return lambda report: report["results"].get(name)


def _difference(name: str, *others: str) -> Callable[[Report], float | None]:
    def figure(report: Report) -> float | None:
        results = report["results"]
        known = [results[each] for each in others if results.get(each) is not None]
        if results.get(name) is None or not known:
            return None
        return round(float(results[name] - max(known)), 4)

    return figure


def _speed_up(report: Report) -> float:
    results = report["results"]
    return float(results["labels_per_s"] / results["sequential_labels_per_s"])
