"""Play the undisturbed round, then every fault, and write a row per case."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.datasets import read_rows
from benchmarks.faults.case_run import open_play, stored_keys
from benchmarks.faults.cases import Case, all_cases, undisturbed
from benchmarks.faults.checks import Verdict, judge
from benchmarks.faults.testbed import Stage, open_stage
from benchmarks.report import Report, measured_commit

_UNDISTURBED = "undisturbed.json"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FaultsRun:
    """What was asked for.

    `folder` keeps the stage between runs, `minutes` ends a run early: the next one plays the cases
    that `out` lacks. `only` are names of cases, or how they begin; none: all.
    """

    folder: Path
    out: Path
    llm: str
    n_texts: int = 80
    seed: int = 0
    minutes: float = 0.0
    only: tuple[str, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Return what belongs into the report."""
        kind = self.llm if self.llm in ("scripted", "embedded") else "a running server"
        return {"llm": kind, "n_texts": self.n_texts, "seed": self.seed}


def run(report: Report, asked: FaultsRun, *, console: Console) -> None:
    """Play what is not in the report's file yet; write it after each case."""
    started = time.monotonic()
    rows = _earlier(asked)
    with open_stage(
        asked.folder, console, n_texts=asked.n_texts, llm=asked.llm, rows=read_rows(None)
    ) as stage:
        plain = _plain(stage)
        report.notes["undisturbed_s"] = plain["seconds"]
        for case in all_cases(float(plain["seconds"]), asked.seed):
            if case.name in {row["case"] for row in rows} or not _is_wanted(case, asked.only):
                continue
            if asked.minutes and time.monotonic() - started > 60 * asked.minutes:
                break
            rows.append(_played(stage, case, plain["outcome"]))
            console.print(rows[-1])
            report.results = summary(rows)
            report.write(asked.out)
    report.results = summary(rows)


def summary(rows: list[Row]) -> dict[str, Any]:
    """Return the report's results: sums, and the rows."""
    return {
        "n_cases": len(rows),
        "n_completed": sum(row["is_completed"] for row in rows),
        "n_lost": sum(row["n_lost"] for row in rows),
        "n_duplicated": sum(row["n_duplicated"] for row in rows),
        "n_paid_twice": sum(row["n_paid_twice"] for row in rows),
        "n_compared": sum(row["equals_undisturbed"] is not None for row in rows),
        "n_different": sum(row["equals_undisturbed"] is False for row in rows),
        "cases": rows,
    }


def _plain(stage: Stage) -> dict[str, Any]:
    """Return seconds and outcome of the undisturbed round, played once per stage.

    It is played twice: the first one records the LLM's answers, the second one is measured.
    """
    file = stage.folder / _UNDISTURBED
    if not file.exists():
        first = _undisturbed(stage)
        second = _undisturbed(stage)
        if first["outcome"] != second["outcome"]:
            raise RuntimeError("two undisturbed rounds differ: no case can be compared with them")
        file.write_text(json.dumps(second), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _undisturbed(stage: Stage) -> dict[str, Any]:
    with open_play(stage, "undisturbed") as play:
        is_completed = undisturbed(play)
        seconds = round(play.seconds, 1)
        play.stop()
        found = play.found(is_completed=is_completed, is_comparable=True)
        verdict = judge(found, found.outcome)
        unseen = stored_keys(play.database) - stage.llm.keys
        if not verdict.is_clean or unseen:
            raise RuntimeError(f"the undisturbed round failed: {verdict}, {len(unseen)} unseen")
        return {"seconds": seconds, "outcome": found.outcome}


def _played(stage: Stage, case: Case, plain: Mapping[str, Any]) -> Row:
    with open_play(stage, case.name, snapshot=case.snapshot) as play:
        is_completed = case.act(play)
        seconds = round(play.seconds, 1)
        complaints = play.problems()
        play.stop()
        found = play.found(is_completed=is_completed, is_comparable=case.is_comparable)
        verdict = judge(found, plain)
        notes = [*play.notes, *complaints]
        row = _row(case, verdict, seconds, notes)
        return row | {"n_prompts": stage.llm.n_asked, "commit": measured_commit()}


def _row(case: Case, verdict: Verdict, seconds: float, notes: list[str]) -> Row:
    return {
        "case": case.name,
        "done": case.done,
        "notes": notes,
        "seconds": seconds,
        "is_completed": verdict.is_completed,
        "n_lost": verdict.n_lost,
        "n_duplicated": verdict.n_duplicated,
        "n_paid_twice": verdict.n_paid_twice,
        "equals_undisturbed": verdict.is_equal,
        "differs_in": list(verdict.differs_in),
    }


def _earlier(asked: FaultsRun) -> list[Row]:
    if not asked.out.exists():
        return []
    report = json.loads(asked.out.read_text(encoding="utf-8"))
    return list(report["results"]["cases"]) if report["parameters"] == asked.parameters() else []


def _is_wanted(case: Case, only: tuple[str, ...]) -> bool:
    return not only or any(case.name.startswith(name) for name in only)
