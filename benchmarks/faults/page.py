"""Write docs/benchmarks/faults.md from the report beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.faults.cases import all_cases
from benchmarks.faults.project_kinds import KINDS, ProjectKind
from benchmarks.faults.run import Row, totals
from benchmarks.report import origin

_LLMS = {
    "scripted": "**The LLM server is scripted**: it answers over HTTP in vLLM's format",
    "embedded": "The LLM server is a real vLLM with the embedded model",
    "a running server": "The LLM server is a running one",
}


_TOTALS = {
    "n_cases": "cases",
    "n_completed": "of them completed",
    "n_lost": "human labels lost or altered",
    "n_duplicated": "predictions beyond one per task and version, regions beyond one of a kind",
    "n_paid_twice": "LLM calls paid although their answer was stored",
    "n_compared": "cases whose results must equal the undisturbed run's",
    "n_different": "of them different",
}


def faults_page(report: Mapping[str, Any], source: str) -> str:
    """Return the page: totals, a section for each kind of project, and the method."""
    rows = report["results"]["cases"]
    asked = {row["question"] for row in rows}
    played = [kind for kind in KINDS.values() if kind.name in asked]
    llm = " --llm scripted" if report["parameters"]["llm"] == "scripted" else ""
    by_kind = {kind: [row for row in rows if row["question"] == kind.name] for kind in played}
    lines = [
        "# Faults: what a kill, an outage or a full disk costs",
        "",
        f"{origin(report, source, options=llm)}; `--question` names the kind of project.",
        "",
        *_totals(by_kind),
        "",
        *(line for kind in by_kind for line in _section(kind, by_kind[kind], report)),
        *_method(report["parameters"], played),
        "",
    ]
    return "\n".join(lines)


def _totals(by_kind: Mapping[ProjectKind, Sequence[Row]]) -> list[str]:
    counts = [totals(rows) for rows in by_kind.values()]
    titles = [kind.title.lower() for kind in by_kind]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for name, meaning in _TOTALS.items():
        lines.append(f"| {meaning} | {' | '.join(str(each[name]) for each in counts)} |")
    return lines


def _section(kind: ProjectKind, rows: Sequence[Row], report: Mapping[str, Any]) -> list[str]:
    seconds = report["notes"]["undisturbed_s"][kind.name]
    return [
        f"## {kind.title}",
        "",
        f"`--question {kind.name}`. An undisturbed run (labels, their order, a round, its "
        f"publication) took {seconds} s. The student is {kind.student}.",
        "",
        *_missing_cases(rows, seconds, report["parameters"]["seed"]),
        "| case | fault | completed | lost | duplicated | paid twice | as undisturbed | s "
        "| commit |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(row, report["commit"]) for row in rows),
        "",
        *_details(rows),
    ]


def _missing_cases(rows: Sequence[Row], seconds: float, seed: int) -> list[str]:
    """Return a line with the planned cases that the report lacks."""
    planned = all_cases(seconds, seed)
    reported = {row["case"] for row in rows}
    missing = [f"`{case.name}`" for case in planned if case.name not in reported]
    if not missing:
        return []
    total = f"**{len(missing)} of {len(planned)} cases were not run**"
    return [f"{total}: {', '.join(missing)}.", ""]


def _row(row: Row, commit: str) -> str:
    equal = {True: "equal", False: "**no**", None: "not compared"}[row["equals_undisturbed"]]
    completed = "yes" if row["is_completed"] else "**no**"
    counts = [
        str(row[name]) if not row[name] else f"**{row[name]}**"
        for name in ("n_lost", "n_duplicated", "n_paid_twice")
    ]
    measured = (str(row["seconds"]), f"`{row.get('commit', commit)}`")
    cells = (f"`{row['case']}`", row["done"], completed, *counts, equal, *measured)
    return f"| {' | '.join(cells)} |"


def _details(rows: Sequence[Row]) -> list[str]:
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


def _method(parameters: Mapping[str, Any], played: Sequence[ProjectKind]) -> list[str]:
    kinds = " or ".join(f"`{kind.name}`" for kind in KINDS.values() if kind not in played)
    return [
        *([f"**No case was played with `--question` {kinds}.**", ""] if kinds else []),
        "## Method",
        "",
        "Real are Label Studio, `python -m backend serve` with its web process "
        f"and worker, SQLite, the signals, the locks and the full disk (a small file system that "
        f"is filled). {_LLMS[parameters['llm']]}. Between it and the backend stands a proxy that "
        "replays the first answer to each prompt, because vLLM's last digits depend on the other "
        "prompts of a batch; a prompt whose answer is in the backend's database already counts as "
        "paid twice. Webhooks pass a second proxy that loses, doubles or holds them. All cases "
        "start from copies of the same two databases, so that ids and seeds are equal. 12 human "
        "labels are submitted, 2 changed and 1 deleted; `lost` counts those that Label Studio or "
        "the backend lacks or has altered. Moments are drawn uniformly over the undisturbed run. "
        "Results are compared to the last digit: predictions and scores in Label Studio, every "
        "weak label with its spans and their probabilities, the queue and the round's figures. "
        "They are not compared where another label or another round makes them differ. A case "
        "counts as completed only when its last round has learned the question and was released "
        "or refused. "
        "What happens in each fault, and why a case differs, is described in "
        "[operations](../operations.md).",
    ]
