"""Write the page about accepted labels from its report."""

from __future__ import annotations

from typing import Any

from benchmarks.accept import SIZES

_RULES = {"ours": "this backend", "potato": "Potato 2.12's rule"}
_SIMULATED = "simulated "


def accept_page(report: dict[str, Any], source: str) -> str:
    """Return the page as Markdown."""
    results, notes, given = report["results"], report["notes"], report["parameters"]
    lines = [
        "# Labels accepted with a guarantee",
        "",
        "At most 5 % of the accepted labels are wrong, sure to 95 %: is that kept, and how many "
        "labels does a random holdout certify? docs/algorithms.md has the method and what the "
        "promise assumes.",
        "",
        f"Written by `python -m benchmarks pages` from `{source}`, which `python -m benchmarks "
        f"accept --json docs/benchmarks/{source}` made at commit `{report['commit']}` with "
        f"{given}.",
        "",
        "## Is the promise kept?",
        "",
        f"The share of {given['n_projects']:,} simulated projects in which more than 5 % of the "
        "accepted labels are wrong, after 200 holdout answers; at most 5 % may be. *Looking often* "
        "is an owner who looks after every 20 answers and accepts as soon as anything is "
        "certified. In all but the first kind of project just over 5 % of all labels or more are "
        "wrong, which is the hardest case.",
        "",
        "| project | this backend | looking often | Potato 2.12's rule | anything accepted |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        if name.startswith(_SIMULATED):
            keys = ("ours", "ours, looking often", "potato", "anything accepted")
            shares = " | ".join(f"{100 * row[key]:.1f} %" for key in keys)
            lines.append(f"| {name.removeprefix(_SIMULATED)} | {shares} |")
    lines += [
        "",
        "## How many labels are certified?",
        "",
        f"The mean over {given['n_draws']} draws of the holdout, of {given['n_pool']:,} texts each "
        "that a linear probe labeled, trained on 500 other texts.",
        "",
        f"| set | right | rule | {' | '.join(f'after {n}' for n in SIZES)} | broken at most |",
        f"|---|---:|---|{'---:|' * (len(SIZES) + 1)}",
    ]
    for name, note in notes.items():
        for key, rule in _RULES.items():
            row = results[name][key]
            counts = " | ".join(f"{row[str(n)]:,.0f}" for n in SIZES)
            broken = max(row[f"{n} broken"] for n in SIZES)
            right = f"{100 * note['accuracy']:.1f} %"
            lines.append(f"| {name} | {right} | {rule} | {counts} | {100 * broken:.0f} % |")
    lines += [
        "",
        "Potato's rule is written here from its documentation, for one model and all classes "
        "together: half of the answers choose a threshold, the other half tests it with the exact "
        "binomial bound at the level of a first look, and the search starts where 1.5 times as "
        "many answers are expected as could pass without an error. Here all answers test: where "
        "the search starts is told by the confidences alone, and the pool counts as finite.",
        "",
    ]
    return "\n".join(lines)
