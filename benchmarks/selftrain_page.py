"""Write docs/benchmarks/selftrain.md and its pictures from the reports in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.selftrain_goals import Reports, accuracies, goal_lines
from benchmarks.selftrain_plots import CAPTIONS, draw_pictures

_COLUMNS = {
    "test_accuracy_mean": "test accuracy",
    "test_accuracy_sd": "sd",
    "test_f1_mean": "macro-F1",
    "fused_label_accuracy_mean": "accuracy of aggregated training labels",
    "noise_auroc": "AUROC of label errors",
    "noise_average_precision": "AP of label errors",
    "clean_purity_20": "correct in cleanest 20 %",
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

_SPANS_NOTE = (
    "Accuracies are F1 of exact spans; errors and purity count whole texts, and training labels "
    "are the trained model's predictions on its own pool. "
)


def write_selftrain_page(folder: Path) -> list[Path]:
    """Write the page of `folder`/selftrain/*.json; return what was written.

    Reports with a dot in the name (ablations, learning curves) count for no goal but the paper's.
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
        "# The student: self-training on noisy labels",
        "",
        "Written by `python -m benchmarks pages` from `selftrain/*.json`, which `python -m "
        "benchmarks selftrain --data FILE --json docs/benchmarks/selftrain/NAME.json` measured "
        "with the parameters named at each table. `gold` is fine-tuned on gold labels and shows "
        "what the encoder can reach; `plain` is an ordinary fine-tune on the given labels; "
        "`paper` is FreeAL's recipe; `probe` a linear probe on frozen embeddings; `default` the "
        "backend's recipe, with `@option=value` for a changed option; `ceiling` is `default` on "
        "gold labels, whose cross-fitted predictions then score the given ones: the best label "
        "error detection of this encoder. Otherwise gold labels of the pool only score. "
        "`s` is a training's wall time, on a machine with other load (the load average is at each "
        "table); `processor s` its processor time, and the next two columns the latter's ratio to "
        "the plain recipe and to Hugging Face's Trainer for the same epochs in the same run (one "
        "epoch on 256 texts, scaled to the pool). The last column is the peak resident memory.",
        "",
        *(f"![{CAPTIONS[picture.name]}](selftrain/{picture.name})\n" for picture in pictures),
        *goal_lines(reports),
        *_gap_closed(whole),
    ]
    for name, report in reports.items():
        lines += _table(name, report)
    return lines


def _gap_closed(reports: Reports) -> list[str]:
    """Return the table of the gap from plain to gold that the default recipe closes, per set."""
    lines = [
        "## From plain to gold",
        "",
        "The share of the gap in test accuracy that the default recipe closes; means over seeds, "
        "and the worst seed.",
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
    parameters, notes = report["parameters"], report["notes"]
    options = ", ".join(f"{key} {value}" for key, value in parameters.items() if key != "recipes")
    lines = [
        f"## {name}",
        "",
        f"{notes['n_train']} training texts, {notes['n_test']} test texts, {notes['n_labels']} "
        f"labels; {notes['given_label_accuracy']:.1%} of the given labels are correct, "
        f"{notes['n_abstained']} are missing. "
        + _predictability(notes.get("wrong_foretold"))
        + (_SPANS_NOTE if notes.get("is_spans") else "")
        + "The 95 % interval of a test accuracy is at most "
        f"±{98 / notes['n_test'] ** 0.5:.1f} points. "
        f"{options}; {report['machine']['cores']} cores, {_gpu(report)}"
        f"load average {notes.get('load_average', '–')}, commit `{report['commit']}`.",
        "",
        "| recipe | " + " | ".join(_COLUMNS.values()) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for recipe, figures in report["results"].items():
        cells = [_cell(key, figures.get(key)) for key in _COLUMNS]
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _gpu(report: Mapping[str, Any]) -> str:
    name = report["machine"].get("accelerator")
    return f"{name}, " if name else ""


def _predictability(share: float | None) -> str:
    if share is None:
        return ""
    return f"A cross-fitted linear probe predicts {share:.0%} of the wrong ones. "


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key in _PERCENT or key == "clean_purity_20":
        return f"{100 * value:.2f} %"
    return f"{value:.3f}" if key.startswith("noise") else f"{value:g}"
