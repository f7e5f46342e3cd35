"""docs/benchmarks/selftrain.md and its picture from the JSON files in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.selftrain_goals import Reports, accuracies, goal_lines
from benchmarks.selftrain_plots import SHOWN, draw_pictures

_COLUMNS = {
    "test_accuracy_mean": "test accuracy",
    "test_accuracy_sd": "sd",
    "test_f1_mean": "macro-F1",
    "fused_label_accuracy_mean": "training labels right",
    "noise_auroc": "AUROC of errors",
    "noise_average_precision": "AP of errors",
    "clean_purity_20": "right in cleanest 20 %",
    "seconds": "s",
    "processor_seconds": "processor s",
    "times_plain": "times plain",
    "times_trainer": "times Trainer",
    "peak_memory_mb": "MB",
}
_PERCENT = {
    "test_accuracy_mean",
    "test_accuracy_sd",
    "test_f1_mean",
    "fused_label_accuracy_mean",
}


_SPANS_SAID = (
    "Accuracies are F1 of exact spans; errors and purity count whole texts, and training labels "
    "are what the finished model finds in its own pool. "
)


def write_selftrain_page(folder: Path) -> list[Path]:
    """Write the page of `folder`/selftrain/*.json; return what was written.

    A name with a dot is a further look at a set (an ablation, a curve) and speaks for no goal.
    """
    sources = sorted((folder / "selftrain").glob("*.json"))
    if not sources:
        return []
    reports = {source.stem: json.loads(source.read_text(encoding="utf-8")) for source in sources}
    pictures = draw_pictures(reports, folder / "selftrain")
    page = folder / "selftrain.md"
    page.write_text("\n".join(_lines(reports, pictures)), encoding="utf-8")
    return [page, *pictures]


def _lines(reports: Reports, pictures: Sequence[Path]) -> list[str]:
    whole = {name: report for name, report in reports.items() if "." not in name}
    lines = [
        "# The small model: what it makes of noisy labels",
        "",
        "Written by `python -m benchmarks pages` from `selftrain/*.json`, which `python -m "
        "benchmarks selftrain --data FILE --json docs/benchmarks/selftrain/NAME.json` measured "
        "with the parameters named at each table. `gold` learns the right labels and shows what "
        "the encoder can do; `plain` is an ordinary fine-tune on the given labels; `paper` is "
        "FreeAL's recipe; `probe` a linear model on frozen vectors; `default` what the backend "
        "does, with `@option=value` for a part changed; `ceiling` is `default` on right labels, "
        "whose cross-fitted models then judge the given ones: what this encoder could find at "
        "best. Else right labels of the pool only score. "
        "`s` are a training's seconds by the clock, on a machine that other work kept busy (the "
        "load average stands at each table); `processor s` are what it used of the processor, and "
        "the next two columns their ratio to the plain recipe and to Hugging Face's Trainer for "
        "the same epochs in the same run (one epoch on 256 texts, scaled to the pool). The last "
        "column is the largest resident size.",
        "",
        *(f"![{SHOWN[picture.name]}](selftrain/{picture.name})\n" for picture in pictures),
        *goal_lines(whole),
        *_recovered(whole),
    ]
    for name, report in reports.items():
        lines += _table(name, report)
    return lines


def _recovered(reports: Reports) -> list[str]:
    """Return how much of the way from plain to gold the default recipe goes, set by set."""
    lines = [
        "## From plain to gold",
        "",
        "The share of the gap in test accuracy that the default recipe closes; means of the seeds, "
        "and the worst of them.",
        "",
        "| data | seeds | plain | default | gold | share closed | default − plain, points "
        "| worst plain | worst default |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, report in reports.items():
        seeds = {recipe: accuracies(report, recipe) for recipe in ("plain", "default", "gold")}
        if not all(seeds.values()):
            continue
        plain, default, gold = (sum(each) / len(each) for each in seeds.values())
        gap = gold - plain
        share = f"{(default - plain) / gap:.2f}" if gap > 0.005 else "no gap"
        lines.append(
            f"| {name} | {len(seeds['plain'])} | {plain:.1%} | {default:.1%} | {gold:.1%} "
            f"| {share} | {100 * (default - plain):+.2f} "
            f"| {min(seeds['plain']):.1%} | {min(seeds['default']):.1%} |"
        )
    return [*lines, ""]


def _table(name: str, report: Mapping[str, Any]) -> list[str]:
    asked, notes = report["parameters"], report["notes"]
    options = ", ".join(f"{key} {value}" for key, value in asked.items() if key != "recipes")
    lines = [
        f"## {name}",
        "",
        f"{notes['n_train']} training texts, {notes['n_test']} test texts, {notes['n_labels']} "
        f"labels; {notes['given_label_accuracy']:.1%} of the given labels are right, "
        f"{notes['n_abstained']} are missing. "
        + _foretold(notes.get("wrong_foretold"))
        + (_SPANS_SAID if notes.get("is_spans") else "")
        + "A test accuracy is sure to "
        f"{98 / notes['n_test'] ** 0.5:.1f} points or better (95 %). "
        f"{options}; {report['machine']['cores']} cores, "
        f"load average {notes.get('load_average', '–')}, commit `{report['commit']}`.",
        "",
        "| recipe | " + " | ".join(_COLUMNS.values()) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for recipe, figures in report["results"].items():
        cells = [_cell(key, figures.get(key)) for key in _COLUMNS]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _foretold(share: float | None) -> str:
    if share is None:
        return ""
    return f"A probe that did not see them foretells {share:.0%} of the wrong ones. "


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key in _PERCENT or key == "clean_purity_20":
        return f"{100 * value:.2f} %"
    return f"{value:.3f}" if key.startswith("noise") else f"{value:g}"
