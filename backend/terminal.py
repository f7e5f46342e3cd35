"""Render status, queues and the doctor's findings for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from backend.doctor import Finding
    from backend.pipeline.status import Upcoming

_MAX_ROUNDS_SHOWN = 3
_STATE_WIDTH = 4
_STATES = {"ok": "[green]ok[/]", "warning": "[yellow]note[/]", "failure": "[bold red]FAIL[/]"}


def render_status(overview: Mapping[str, Any]) -> RenderableType:
    """Render the workers and a panel for each project."""
    none = "[bold red]none: start `python -m backend worker`[/]"
    workers = Text.from_markup(f"Workers: {', '.join(overview['workers']) or none}")
    projects = [_project(project) for project in overview["projects"]]
    if not projects:
        projects = [Text("No project is connected yet: add this backend in a project's settings.")]
    return Group(workers, *projects)


def _project(state: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(Column(justify="right", style="dim"), "", padding=(0, 2))
    done = state["n_tasks"] - state["n_to_label"]
    grid.add_row("labelled", _bar(done, state["n_tasks"]))
    grid.add_row("published", _bar(state["n_published"], state["n_labelled"]))
    left = _time_left(state["seconds_left"])
    grid.add_row("rate", f"{state['labels_per_s']:.1f} labels/s, {left}")
    people = f"{state['n_human_labels']} labels on {state['n_human_labelled_tasks']} tasks"
    grid.add_row("people", people)
    if state["n_abstained"]:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in state["abstentions"].items())
        grid.add_row("no label", reasons)
    served = state["served_version"] or "none"
    grid.add_row("version", escape(f"{state['model_version']} (served: {served})"))
    grid.add_row("tokens", f"{state['n_tokens_in']:,} in, {state['n_tokens_out']:,} out")
    prompts = f"{state['n_prompts']:,} prompts, {state['n_cache_hits']:,} of them answered before"
    cost = f", cost {state['llm_cost']:.2f}" if state["llm_cost"] else ""
    grid.add_row("LLM", f"{prompts}, {state['llm_seconds']:.0f} s{cost}")
    grid.add_row("", Text(state["llm_share"]))
    if state["queue"] is not None:
        grid.add_row("queue", Text("\n".join(state["queue"]["words"])))
        for warning in state["queue"]["warnings"]:
            grid.add_row("[bold red]queue[/]", Text(warning))
    for row in _rounds(state):
        grid.add_row(*row)
    for problem in state["problems"]:
        text = f"{problem['source']}: {problem['message']} ({problem['n_times']}x)"
        grid.add_row("[bold red]problem[/]", Text(text))
    title = escape(f"{state['platform_id']} {state['title']}".strip())
    return Panel(grid, title=title, title_align="left")


def _rounds(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each of the last rounds, and for the advice."""
    rows = []
    for one in state["rounds"][-_MAX_ROUNDS_SHOWN:]:
        where = one["step"] if one["state"] == "running" else one["state"]
        progress = ", ".join(f"{key} {value}" for key, value in one["progress"].items())
        took = "" if one["seconds"] is None else f" in {one['seconds']:.0f} s"
        text = f"{where}{took} ({one['reason']})"
        if one["state"] == "running" and progress:
            text += f": {progress}"
        fused = one["metrics"].get("accuracies", {}).get("fused")
        if fused:
            text += f"; right {fused['value']:.1%} ({fused['low']:.1%} to {fused['high']:.1%})"
        if one["state"] == "refused":
            text += f"; {one['metrics'].get('gate', {}).get('reason', '')}"
        if one["error"]:
            text += f"; {one['error']}"
        rows.append((f"round {one['number']}", escape(text)))
    if rows:
        rows.append(("advice", escape(state["advice"]["rounds"])))
        rows.append(("", escape(state["advice"]["labels"])))
    return rows


def _bar(done: int, total: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(total, 1), completed=done, width=30)
    row.add_row(bar, f"{done:,} of {total:,}")
    return row


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left unknown"
    if seconds == 0:
        return "nothing left"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s left" if minutes else f"{rest} s left"


def render_queue(upcoming: Upcoming, state: Mapping[str, Any] | None) -> RenderableType:
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


def render_finding(finding: Finding) -> RenderableType:
    """Render a finding in one line, and its remedy in another."""
    table = Table.grid(Column(no_wrap=True, width=_STATE_WIDTH), "", padding=(0, 2))
    text = Text(f"{finding.subject}: {finding.message}")
    if finding.remedy:
        text.append(f"\n→ {finding.remedy}", style="bold")
    table.add_row(Text.from_markup(_STATES[finding.state]), text)
    return table
