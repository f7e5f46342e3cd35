"""How status and findings look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backend.doctor import Finding

_SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]note[/]", "failure": "[bold red]FAIL[/]"}


def render(overview: Mapping[str, Any]) -> RenderableType:
    """Return all projects' states."""
    workers = (
        ", ".join(overview["workers"]) or "[bold red]none: start `python -m backend worker`[/]"
    )
    projects = [_project(project) for project in overview["projects"]]
    if not projects:
        projects = [Text("No project is connected yet: add this backend in a project's settings.")]
    return Group(Text.from_markup(f"Workers: {workers}"), *projects)


def _project(state: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="dim")
    grid.add_column()
    done = state["n_tasks"] - state["n_to_label"]
    grid.add_row("labelled", _bar(done, state["n_tasks"]))
    grid.add_row("published", _bar(state["n_published"], state["n_labelled"]))
    grid.add_row("rate", f"{state['labels_per_s']:.1f} labels/s, {_left(state['seconds_left'])}")
    grid.add_row(
        "people", f"{state['n_human_labels']} labels on {state['n_human_labelled_tasks']} tasks"
    )
    if state["n_abstained"]:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in state["abstentions"].items())
        grid.add_row("no label", reasons)
    grid.add_row(
        "version", escape(f"{state['model_version']} (served: {state['served_version'] or 'none'})")
    )
    grid.add_row("tokens", f"{state['n_tokens_in']:,} in, {state['n_tokens_out']:,} out")
    for problem in state["problems"]:
        text = f"{problem['source']}: {problem['message']} ({problem['n_times']}x)"
        grid.add_row("[bold red]problem[/]", Text(text))
    title = escape(f"{state['platform_id']} {state['title']}".strip())
    return Panel(grid, title=title, title_align="left")


def _bar(done: int, total: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=max(total, 1), completed=done, width=30), f"{done:,} of {total:,}"
    )
    return row


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left unknown"
    if seconds == 0:
        return "nothing left"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s left" if minutes else f"{rest} s left"


def render_findings(findings: Sequence[Finding]) -> RenderableType:
    """Return one line per finding, with what to do about it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        text = Text(f"{finding.subject}: {finding.message}")
        if finding.remedy:
            text.append(f"\n  → {finding.remedy}", style="bold")
        table.add_row(Text.from_markup(_SIGNS[finding.state]), text)
    return table
