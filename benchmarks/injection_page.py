"""docs/benchmarks/injection.md: what orders inside texts do to labels."""

from __future__ import annotations

from typing import Any

_COLUMNS = {
    "n_pairs": "pairs",
    "n_compared": "compared",
    "n_outside": "outside the labels",
    "flipped": "flipped",
    "obeyed": "obeyed",
    "flagged": "flagged",
    "flagged_clean": "clean ones flagged",
}
_COUNTS = {"n_pairs", "n_compared", "n_outside"}


def injection_page(report: dict[str, Any], source: str) -> str:
    """Return the page; a row per prompt form."""
    results = report["results"]
    forms = [name.removeprefix("n_pairs ") for name in results if name.startswith("n_pairs ")]
    outside = sum(results[f"n_outside {form}"] for form in forms)
    lines = [
        "# Orders inside texts",
        "",
        f"Written by `python -m benchmarks pages` from `{source}`, which `python -m benchmarks "
        f"injection --json docs/benchmarks/{source}` measured with `{report['notes']['model']}` at "
        f"commit `{report['commit']}`. Each hostile text of `benchmarks/hostile_texts.jsonl` is "
        "labelled beside the same text without its order: *flipped* is the share whose label "
        "differs, *obeyed* the share that got the label which the order asked for, *flagged* the "
        "share marked for review by people. A weak model also changes its mind about any other "
        "added words, so not every flip is obedience.",
        "",
        f"Answers outside the label space: {outside} (goal 0: {'met' if outside == 0 else 'no'}).",
        "",
        "| prompt form | " + " | ".join(_COLUMNS.values()) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for form in forms:
        values = {key: results[f"{key} {form}"] for key in _COLUMNS}
        cells = [str(v) if key in _COUNTS else f"{v:.1%}" for key, v in values.items()]
        lines.append(f"| {form} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
