"""Write docs/benchmarks/faults.md from the report beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.faults.cases import all_cases
from benchmarks.report import origin

_LLMS = {
    "scripted": "**The LLM server is scripted**: it answers over HTTP in vLLM's format",
    "embedded": "The LLM server is a real vLLM with the embedded model",
    "a running server": "The LLM server is a running one",
}


def faults_page(report: Mapping[str, Any], source: str) -> str:
    """Return the page."""
    results = report["results"]
    rows = results["cases"]
    llm = " --llm scripted" if report["parameters"]["llm"] == "scripted" else ""
    lines = [
        "# Faults: what a kill, an outage or a full disk costs",
        "",
        f"{origin(report, source, options=llm)}. An undisturbed run (labels, their order, a round, "
        f"its publication) took {report['notes']['undisturbed_s']} s there.",
        "",
        *_totals(results),
        "",
        *_missing_cases(report),
        "| case | fault | completed | lost | duplicated | paid twice | as undisturbed | s "
        "| commit |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(row, report["commit"]) for row in rows),
        "",
        *_details(rows),
        *_method(report["parameters"]),
        "",
    ]
    return "\n".join(lines)


def _totals(results: Mapping[str, Any]) -> list[str]:
    return [
        "| | |",
        "|---|---|",
        f"| cases | {results['n_cases']} |",
        f"| of them completed | {results['n_completed']} |",
        f"| human labels lost or altered | {results['n_lost']} |",
        f"| predictions beyond one per task and version | {results['n_duplicated']} |",
        f"| LLM calls paid although their answer was stored | {results['n_paid_twice']} |",
        f"| cases whose results must equal the undisturbed run's | {results['n_compared']} |",
        f"| of them different | {results['n_different']} |",
    ]


def _missing_cases(report: Mapping[str, Any]) -> list[str]:
    """Return a line with the planned cases that the report lacks."""
    planned = all_cases(report["notes"]["undisturbed_s"], report["parameters"]["seed"])
    reported = {row["case"] for row in report["results"]["cases"]}
    missing = [f"`{case.name}`" for case in planned if case.name not in reported]
    if not missing:
        return []
    total = f"**{len(missing)} of {len(planned)} cases were not run**"
    return [f"{total}: {', '.join(missing)}.", ""]


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
        "The worker's step at the fault, and the problems that `status` showed:",
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
        "replays the first answer to each prompt, because vLLM's last digits depend on the other "
        "prompts of a batch; a prompt whose answer is in the backend's database already counts as "
        "paid twice. Webhooks pass a second proxy that loses, doubles or holds them. All cases "
        "start from copies of the same two databases, so that ids and seeds are equal. 12 human "
        "labels are submitted, 2 changed and 1 deleted; `lost` counts those that Label Studio or "
        "the backend lacks or has altered. Moments are drawn uniformly over the undisturbed run. "
        "Results are compared to the last digit: predictions and scores in Label Studio, every "
        "weak label, the queue and the round's figures. They are not compared where another label "
        "or another round makes them differ. What happens in each fault, and why a case differs, "
        "is described in [operations](../operations.md). The student is the linear probe "
        "(`STUDENT_RECIPE=probe`).",
    ]
