"""Render a project's queue and its probable label errors as tables for a terminal."""

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
