"""Write docs/benchmarks/annotate.md from the reports in docs/benchmarks/annotate/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]
Figure = Callable[[Report], float | None]

_ACCURACY = ("accuracy_raw", "accuracy_embedding", "accuracy_combined", "accuracy_calibrated")
_PROMPTS = (
    "accuracy_best_template",
    "accuracy_zero_shot",
    "accuracy_with_demonstrations",
    "accuracy_picked",
    "picked_over_best",
)
_CALIBRATION = ("ece_raw", "ece_calibrated", "n_abstentions", "n_invalid")
_SPEED = ("labels_per_s", "ceiling_labels_per_s", "ratio", "sequential_labels_per_s")
_COST = ("prefix_cache_hit_rate", "tokens_in", "tokens_out", "max_demonstration_share")
_SINGLE_ANNOTATOR = ("accuracy_raw", "accuracy_calibrated", "accuracy_embedding")
"""Figures of one annotator alone."""


@dataclass(frozen=True, slots=True)
class _Goal:
    """A figure that is to reach a limit on every set, or on average over the sets.

    `limit` is the least that counts, or the most where `is_most`; `only` names one set.
    """

    words: str
    figure: Figure
    limit: float
    is_most: bool = False
    is_mean: bool = False
    only: str = ""

    def cell(self, reports: Sequence[Report]) -> str:
        """Return whether the goal is met, with the figure or where it is missed."""
        known = {
            _name(report): value
            for report in reports
            if self.only in ("", _name(report)) and (value := self.figure(report)) is not None
        }
        if not known:
            return "–"
        mean = sum(known.values()) / len(known)
        if self.is_mean:
            return f"{'yes' if self._is_met(mean) else '**no**'}: {mean:+.3f} over {len(known)}"
        missed = {name: value for name, value in known.items() if not self._is_met(value)}
        if missed:
            return "**no**: " + ", ".join(f"{name} {value:+.3f}" for name, value in missed.items())
        worst = (max if self.is_most else min)(known.values())
        return f"yes: {worst:+.3f} at worst" if len(known) > 1 else f"yes: {worst:+.3f}"

    def _is_met(self, value: float) -> bool:
        return value <= self.limit if self.is_most else value >= self.limit


def annotate_page(reports: Sequence[Report]) -> str:
    """Return the page: accuracy, prompts, calibration, speed, cost, and goals by model."""
    models = sorted({str(report["notes"]["model"]) for report in reports})
    machine = reports[0]["machine"]
    lines = [
        "# Annotators: accuracy, prompts, calibration, speed",
        "",
        "Written by `python -m benchmarks pages` from `annotate/*.json`, which `python -m "
        "benchmarks annotate --data FILE --json docs/benchmarks/annotate/NAME.json` measured with "
        f"{' and '.join(f'`{model}`' for model in models)} on {machine['cores']} cores "
        f"({machine['processor']}), the LLM server on the same machine. Nothing is learned from "
        "the evaluated texts but their unlabeled posteriors, as in a project; human labels are "
        "drawn from training texts. `raw` is the LLM as a project asks it, `embedding` the "
        "similarity annotator, `combined` both aggregated by the label model. Accuracy stands for "
        "micro F1 with multiple labels and for the F1 of exact spans. In brackets the 95 % "
        "interval; – where a figure does not apply.",
    ]
    for title, words, figures in (
        ("Accuracy", "", _ACCURACY),
        ("Prompts", _ABOUT_PROMPTS, _PROMPTS),
        ("Calibration", "", _CALIBRATION),
        ("Speed", _ABOUT_SPEED, _SPEED),
        ("Cost", "", _COST),
    ):
        lines += ["", f"## {title}", "", *([words, ""] if words else []), *_table(reports, figures)]
    lines += ["", "## Goals", "", *_goals(reports, models), ""]
    return "\n".join(lines)


_ABOUT_PROMPTS = (
    "Each figure is the LLM's alone, calibrated without labels, beside similarity where the "
    "templates' scores are correlated, as the project compares them. `best_template` is the best "
    "of all templates on the evaluated texts, which nobody can know beforehand; `zero_shot` the "
    "selected one, `with_demonstrations` the same with those that the project kept, if any, "
    "`picked` with second answers where it is unsure."
)
_ABOUT_SPEED = (
    "The ceiling is a direct client that sends the same requests without reading the responses, "
    "chunk by chunk in turn with the backend, with a prefix cache of its own. A ratio well above 1 "
    "shows that something else used the machine: then no speed of that run is reliable."
)


def _name(report: Report) -> str:
    name = str(report["parameters"]["data"]).split(".", 1)[0]
    shots = report["parameters"].get("shots")
    return f"{name}, {shots} shots" if shots else name


def _table(reports: Sequence[Report], figures: Sequence[str]) -> list[str]:
    """Return a table of the figures that were measured, without reports that have none of them."""
    by_report = [
        (report, {name for name in figures if report["results"].get(name) is not None})
        for report in reports
    ]
    reports = [report for report, known in by_report if known]
    shown = [name for name in figures if any(name in known for _, known in by_report)]
    if not shown:
        return ["Not measured."]
    lines = [
        "| set | model | texts | " + " | ".join(f"`{name}`" for name in shown) + " |",
        "|---|---|---" + "|---" * len(shown) + "|",
    ]
    for report in sorted(reports, key=lambda each: (_name(each), each["notes"]["model"])):
        cells = [_cell(report, name) for name in shown]
        notes = report["notes"]
        lines.append(
            f"| {_name(report)} | {notes['model']} | {notes['n_texts']} | {' | '.join(cells)} |"
        )
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


def _goals(reports: Sequence[Report], models: Sequence[str]) -> list[str]:
    """Return the table of the goals, a column per model."""
    lines = [f"| goal | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    by_model = [[each for each in reports if each["notes"]["model"] == name] for name in models]
    lines += [
        f"| {goal.words} | {' | '.join(goal.cell(own) for own in by_model)} |" for goal in _GOALS
    ]
    return lines


def _figure(name: str) -> Figure:
    return lambda report: report["results"].get(name)


def _note(name: str) -> Figure:
    return lambda report: report["notes"].get(name)


def _zero_shot(figure: Figure) -> Figure:
    """Return the figure of reports without demonstrations that were asked for."""
    return lambda report: None if report["parameters"].get("shots") else figure(report)


def _over_better(figure: Figure) -> Figure:
    """Return a figure less the better one of the annotators alone."""

    def difference(report: Report) -> float | None:
        known = [report["results"].get(name) for name in _SINGLE_ANNOTATOR]
        alone = [value for value in known if value is not None]
        value = figure(report)
        return None if value is None or not alone else round(value - max(alone), 4)

    return _zero_shot(difference)


def _gain_of_demonstrations(report: Report) -> float | None:
    shown, without = (
        report["results"].get(name)
        for name in ("accuracy_with_demonstrations", "accuracy_zero_shot")
    )
    return None if shown is None or without is None else round(shown - without, 4)


def _share_abstained(report: Report) -> float | None:
    if "precision" not in report["notes"]:
        return None
    return float(report["results"]["n_abstentions"] / report["notes"]["n_texts"])


_COMBINED = _over_better(_figure("accuracy_combined"))
_GOALS = (
    _Goal("no invalid answer", _figure("n_invalid"), 0, is_most=True),
    _Goal(
        "what is picked without labels at most .01 under the best template on average",
        _figure("picked_over_best"),
        -0.01,
        is_mean=True,
    ),
    _Goal("demonstrations nowhere over .01 under zero-shot", _gain_of_demonstrations, -0.01),
    _Goal("demonstrations on average above zero-shot", _gain_of_demonstrations, 0, is_mean=True),
    _Goal("combined nowhere over .015 under the better annotator", _COMBINED, -0.015),
    _Goal("combined .03 above the better annotator on average", _COMBINED, 0.03, is_mean=True),
    _Goal(
        "combined with 20 labels .05 above on average",
        _over_better(_note("accuracy_combined_20")),
        0.05,
        is_mean=True,
    ),
    _Goal(
        "calibration error with 50 labels at most .06 on average",
        _figure("ece_calibrated"),
        0.06,
        is_most=True,
        is_mean=True,
    ),
    _Goal("ratio to the server's own rate at least .95", _figure("ratio"), 0.95),
    _Goal(
        "unused prompts per text at most .6", _note("prompts_unused_per_text"), 0.6, is_most=True
    ),
    _Goal("bc5cdr: F1 at least .50", _figure("accuracy_raw"), 0.5, only="bc5cdr"),
    _Goal(
        "bc5cdr with 4 demonstrations: F1 at least .58",
        _figure("accuracy_raw"),
        0.58,
        only="bc5cdr, 4 shots",
    ),
    _Goal("wnut17: F1 at least .20", _figure("accuracy_raw"), 0.2, only="wnut17"),
    _Goal("spans: abstentions under 2 %", _share_abstained, 0.02, is_most=True),
)
