"""Run the undisturbed round, then every fault case, and report a row per case."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.faults.case_run import Case, open_case, stored_keys
from benchmarks.faults.cases import all_cases, undisturbed
from benchmarks.faults.checks import CaseResult, check
from benchmarks.faults.project_kinds import KINDS
from benchmarks.faults.testbed import Testbed, open_testbed
from benchmarks.report import Report, measured_commit

_UNDISTURBED = "undisturbed_round.json"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FaultsRun:
    """Parameters of one run.

    Args:
        folder: Keeps the testbed between runs.
        out: The report; a run adds the cases that it lacks.
        llm: URL of an LLM server, "scripted" or "embedded".
        question: Name of the kind of project.
        n_texts: Number of texts in the pool.
        seed: Draws the faults' moments.
        minutes: Limit on the run; 0: none.
        only: Names or prefixes of cases; none: all.
    """

    folder: Path
    out: Path
    llm: str
    question: str = "choice"
    n_texts: int = 80
    seed: int = 0
    minutes: float = 0.0
    only: tuple[str, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them."""
        kind = self.llm if self.llm in ("scripted", "embedded") else "a running server"
        return {"llm": kind, "n_texts": self.n_texts, "seed": self.seed}


def run(report: Report, config: FaultsRun, *, console: Console) -> None:
    """Run the cases that the report lacks; write it after each."""
    started = time.monotonic()
    rows, undisturbed_s = _earlier(config)
    played = {row["case"] for row in rows if row["question"] == config.question}
    with open_testbed(
        config.folder / config.question,
        console,
        kind=KINDS[config.question],
        n_texts=config.n_texts,
        llm=config.llm,
    ) as testbed:
        baseline = _undisturbed_outcome(testbed)
        report.notes["undisturbed_s"] = undisturbed_s | {config.question: baseline["seconds"]}
        for case in all_cases(float(baseline["seconds"]), config.seed):
            if case.name in played or not _is_wanted(case, config.only):
                continue
            if config.minutes and time.monotonic() - started > 60 * config.minutes:
                break
            row = _run_case(testbed, case, baseline["outcome"])
            rows.append({"question": config.question} | row)
            console.print(rows[-1])
            report.results = summary(rows)
            report.write(config.out)
    report.results = summary(rows)


def summary(rows: list[Row]) -> dict[str, Any]:
    """Return the report's results: totals, and a row per case."""
    return {**totals(rows), "cases": rows}


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return counts over cases."""
    return {
        "n_cases": len(rows),
        "n_completed": sum(row["is_completed"] for row in rows),
        "n_lost": sum(row["n_lost"] for row in rows),
        "n_duplicated": sum(row["n_duplicated"] for row in rows),
        "n_paid_twice": sum(row["n_paid_twice"] for row in rows),
        "n_compared": sum(row["equals_undisturbed"] is not None for row in rows),
        "n_different": sum(row["equals_undisturbed"] is False for row in rows),
    }


def _undisturbed_outcome(testbed: Testbed) -> dict[str, Any]:
    """Return seconds and outcome of the undisturbed round, measured once per testbed.

    It runs twice: the first run records the LLM's answers, the second is measured.
    """
    file = testbed.folder / _UNDISTURBED
    if not file.exists():
        first = _run_undisturbed(testbed)
        second = _run_undisturbed(testbed)
        if first["outcome"] != second["outcome"]:
            raise RuntimeError("two undisturbed rounds differ: no case can be compared with them")
        file.write_text(json.dumps(second), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _run_undisturbed(testbed: Testbed) -> dict[str, Any]:
    with open_case(testbed, Case("undisturbed", "nothing", undisturbed)) as case_run:
        is_completed = undisturbed(case_run)
        seconds = round(case_run.seconds, 1)
        case_run.stop()
        state = case_run.final_state(is_completed=is_completed, is_comparable=True)
        result = check(state, state.outcome)
        unseen = stored_keys(case_run.database) - testbed.llm.keys
        if not result.is_clean or unseen:
            raise RuntimeError(f"the undisturbed round failed: {result}, {len(unseen)} unseen")
        return {"seconds": seconds, "outcome": state.outcome}


def _run_case(testbed: Testbed, case: Case, baseline: Mapping[str, Any]) -> Row:
    with open_case(testbed, case) as case_run:
        is_completed = case.act(case_run)
        seconds = round(case_run.seconds, 1)
        problems = case_run.problems()
        case_run.stop()
        state = case_run.final_state(is_completed=is_completed, is_comparable=case.is_comparable)
        result = check(state, baseline)
        notes = [*case_run.notes, *problems]
        row = _row(case, result, seconds, notes)
        return row | {"n_prompts": testbed.llm.n_prompts, "commit": measured_commit()}


def _row(case: Case, result: CaseResult, seconds: float, notes: list[str]) -> Row:
    return {
        "case": case.name,
        "done": case.done,
        "notes": notes,
        "seconds": seconds,
        "is_completed": result.is_completed,
        "n_lost": result.n_lost,
        "n_duplicated": result.n_duplicated,
        "n_paid_twice": result.n_paid_twice,
        "equals_undisturbed": result.is_equal,
        "differs_in": list(result.differs_in),
    }


def _earlier(config: FaultsRun) -> tuple[list[Row], dict[str, float]]:
    """Return the rows of a report with the same parameters, and its undisturbed seconds."""
    if not config.out.exists():
        return [], {}
    report = json.loads(config.out.read_text(encoding="utf-8"))
    if report["parameters"] != config.parameters():
        return [], {}
    return list(report["results"]["cases"]), dict(report["notes"]["undisturbed_s"])


def _is_wanted(case: Case, only: tuple[str, ...]) -> bool:
    return not only or any(case.name.startswith(name) for name in only)
