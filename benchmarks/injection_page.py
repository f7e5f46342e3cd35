"""Write docs/benchmarks/injection.md: the effect of instructions inside texts on labels."""

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
    """Return the page, with a row per prompt template."""
    results = report["results"]
    templates = [name.removeprefix("n_pairs ") for name in results if name.startswith("n_pairs ")]
    outside = sum(results[f"n_outside {template}"] for template in templates)
    lines = [
        "# Instructions inside texts (prompt injection)",
        "",
        f"Written by `python -m benchmarks pages` from `{source}`, which `python -m benchmarks "
        f"injection --json docs/benchmarks/{source}` measured with `{report['notes']['model']}` at "
        f"commit `{report['commit']}`. Each hostile text of `benchmarks/hostile_texts.jsonl` is "
        "labeled beside the same text without its instruction: *flipped* is the share whose label "
        "differs, *obeyed* the share that got the instructed label, *flagged* the share with an "
        "injection flag, for review by people. A weak model's label also changes with other added "
        "words, so not every flip is obedience.",
        "",
        f"Answers outside the label space: {outside} (goal 0: {'met' if outside == 0 else 'no'}).",
        "",
        "| prompt template | " + " | ".join(_COLUMNS.values()) + " |",
        "|---" * (len(_COLUMNS) + 1) + "|",
    ]
    for template in templates:
        values = {key: results[f"{key} {template}"] for key in _COLUMNS}
        cells = [str(v) if key in _COUNTS else f"{v:.1%}" for key, v in values.items()]
        lines.append(f"| {template} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
