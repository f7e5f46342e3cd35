"""docs/benchmarks/faults.md from the JSON file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.faults.cases import all_cases

_LLMS = {
    "scripted": "**The LLM server is scripted**: it answers over HTTP in vLLM's form, by rule",
    "embedded": "The LLM server is a real vLLM with the embedded model",
    "a running server": "The LLM server is one that ran already",
}


def faults_page(report: Mapping[str, Any], source: str) -> str:
    """Return the page."""
    results, machine = report["results"], report["machine"]
    rows = results["cases"]
    llm = " --llm scripted" if report["parameters"]["llm"] == "scripted" else ""
    lines = [
        "# Faults: what a kill, an outage or a full disk costs",
        "",
        f"Written by `python -m benchmarks pages` from `{source}`, which `python -m benchmarks "
        f"faults{llm} --json docs/benchmarks/{source}` measured at commit `{report['commit']}` "
        f"with {report['parameters']} on {machine['cores']} cores ({machine['processor']}). An "
        f"undisturbed run (labels, their order, a round, its publication) took "
        f"{report['notes']['undisturbed_s']} s there.",
        "",
        *_sums(results),
        "",
        *_not_played(report),
        "| case | what was done | completed | lost | doubled | paid twice | as undisturbed | s "
        "| commit |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(row, report["commit"]) for row in rows),
        "",
        *_details(rows),
        *_method(report["parameters"]),
        "",
    ]
    return "\n".join(lines)


def _sums(results: Mapping[str, Any]) -> list[str]:
    return [
        "| | |",
        "|---|---|",
        f"| cases | {results['n_cases']} |",
        f"| of them completed | {results['n_completed']} |",
        f"| labels by people lost or altered | {results['n_lost']} |",
        f"| predictions beyond one per task and version | {results['n_duplicated']} |",
        f"| LLM calls paid although their answer was stored | {results['n_paid_twice']} |",
        f"| cases whose results must equal the undisturbed run's | {results['n_compared']} |",
        f"| of them different | {results['n_different']} |",
    ]


def _not_played(report: Mapping[str, Any]) -> list[str]:
    """Say which cases the report lacks."""
    planned = all_cases(report["notes"]["undisturbed_s"], report["parameters"]["seed"])
    played = {row["case"] for row in report["results"]["cases"]}
    missing = [f"`{case.name}`" for case in planned if case.name not in played]
    if not missing:
        return []
    said = f"**{len(missing)} of {len(planned)} cases were not played** and nothing is said of them"
    return [f"{said}: {', '.join(missing)}.", ""]


def _row(row: Mapping[str, Any], commit: str) -> str:
    equal = {True: "equal", False: "**no**", None: "not compared"}[row["equals_undisturbed"]]
    completed = "yes" if row["is_completed"] else "**no**"
    counts = [
        str(row[name]) if not row[name] else f"**{row[name]}**"
        for name in ("n_lost", "n_duplicated", "n_paid_twice")
    ]
    measured = (str(row["seconds"]), f"`{row.get('commit', commit)}`")
    cells = (f"`{row['case']}`", row["done"], completed, *counts, equal, *measured)
    return f"| {' | '.join(cells)} |"


def _details(rows: list[Mapping[str, Any]]) -> list[str]:
    noted = [row for row in rows if row["notes"] or row["differs_in"]]
    if not noted:
        return []
    lines = [
        "What the worker was doing, and what `status` said:",
        "",
        "| case | note |",
        "|---|---|",
    ]
    for row in noted:
        notes = [*row["notes"], *(f"differs in {part}" for part in row["differs_in"])]
        text = "; ".join(notes).replace("|", "/").replace("\n", " ")
        lines.append(f"| `{row['case']}` | {text} |")
    return [*lines, ""]


def _method(parameters: Mapping[str, Any]) -> list[str]:
    return [
        "How it is measured. Real are Label Studio, `python -m backend serve` with its web process "
        f"and worker, SQLite, the signals, the locks and the full disk (a small file system that "
        f"is filled). {_LLMS[parameters['llm']]}. Between it and the backend stands a proxy that "
        "gives the first answer to a prompt again whenever it is asked, because vLLM's last digits "
        "depend on the prompts of the same list; it looks into the backend's database at each "
        "prompt, and one whose answer stands there counts as paid twice. Webhooks come through a "
        "relay that loses, doubles or holds them. All cases start from copies of the same two "
        "databases, so that numbers and seeds are equal. People have given "
        "12 answers, changed 2 and deleted 1; `lost` counts those that Label Studio or the backend "
        "lacks or has otherwise. Moments are drawn evenly over the undisturbed run. Results are "
        "compared to the last digit: predictions and scores in Label Studio, every vote, the queue "
        "and the round's figures. They are not compared where another label or another round "
        "makes them differ. What happens in each fault, and why a case differs, stands in "
        "[operations](../operations.md). The small model is the quick probe "
        "(`STUDENT_RECIPE=probe`).",
    ]
