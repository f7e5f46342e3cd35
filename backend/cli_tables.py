"""Render a project's queue, label errors and certified labels as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from backend.pipeline.status import Upcoming


def issues_table(found: Sequence[Mapping[str, Any]], limit: int) -> RenderableType:
    """Render the first probable errors: what is given, by whom, and what annotators say."""
    if not found:
        return Text("No probable errors are known; each round looks for them.")
    columns = ("id", Column("task", justify="right"), "question")
    table = Table(*columns, "error", "given", "rather", "sure", "who says what", box=None)
    for issue in found[:limit]:
        given = issue["given"] or "nothing"
        says = (f"{name}: {text} {p:.2f}" for name, (text, p) in issue["says"].items())
        table.add_row(
            issue["id"],
            str(issue["task_id"]),
            Text(issue["question"]),
            issue["kind"],
            Text(f"{given} (by people)" if issue["is_human"] else given),
            Text(issue["suggested"] or ""),
            f"{issue['error_probability']:.0%}",
            Text("; ".join(says)),
        )
    return Group(table, Text(f"{len(found):,} probable errors in all"))


def queue_table(upcoming: Upcoming, state: Mapping[str, Any] | None) -> RenderableType:
    """Render the next tasks of a queue with reasons, below its summary and warnings."""
    if state is None:
        return Text("The queue has no order yet: it gets one when all tasks have a label.")
    numbers = (Column("place", justify="right"), Column("task", justify="right"))
    table = Table(*numbers, "", "why", box=None, pad_edge=False)
    for at, place in enumerate(upcoming.places):
        tag = "audit" if place.is_holdout else ""
        table.add_row(str(at + 1), str(place.task_id), tag, Text(place.reason))
    lines = [*state["words"], *(f"Warning: {warning}" for warning in state["warnings"])]
    lines.append(f"{upcoming.n_open:,} tasks wait in this order")
    if upcoming.n_later:
        later = "tasks came later and stand among them by how unsure they are"
        lines.append(f"{upcoming.n_later:,} {later}")
    return Group(*(Text(line) for line in lines), Text(), table)


def certificate_table(report: Mapping[str, Any]) -> RenderableType:
    """Render how many labels the holdout certifies at each error rate, and what comes next."""
    if report["why_not"]:
        return Text(report["why_not"])
    right = ("wrong at most", "labels", "from confidence", "after 50 more", "after 100 more")
    table = Table(*(Column(name, justify="right") for name in right), "why", box=None)
    for row in report["at"]:
        known = "" if row["threshold"] is None else f"{row['threshold']:.3f}"
        more = row["expected_after"]
        table.add_row(
            f"{row['max_error']:.0%}",
            f"{row['n_certified']:,}",
            known,
            f"{more['50']:,}",
            f"{more['100']:,}",
            Text(row["reason"]),
        )
    lines = [
        f"{report['n_checked']} answers of the random holdout, {report['n_wrong']} of its labels "
        f"wrong; {report['n_labels']:,} labels could be accepted, {report['n_accepted']:,} are",
        "A row's promise is kept with 95 %.",
    ]
    if report["next_task_ids"]:
        lines.append(f"Answer next: tasks {', '.join(map(str, report['next_task_ids']))}")
    return Group(*(Text(line) for line in lines), Text(), table)


def certificate_in_words(state: Mapping[str, Any]) -> str:
    """Return what is certified at each error rate, and what became of the last acceptance."""
    found, asked = state["certificate"], state["acceptance"]
    lines = []
    if found:
        rates = (f"{row['n_certified']:,} at {row['max_error']:.0%}" for row in found["at"])
        what = found["why_not"] or f"{', '.join(rates)} ({found['n_checked']} holdout answers)"
        lines.append(what)
    if asked:
        done = f"{asked['n_done']:,} of {asked['n_planned']:,}"
        left = f", {asked['n_left_out']:,} left as they are" if asked["n_left_out"] else ""
        lines.append(f"{asked['state']}: {done}{left}")
    return "\n".join(lines)
