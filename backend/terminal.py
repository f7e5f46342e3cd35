"""How status and findings look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backend.doctor_checks import Finding
from backend.pipeline.queue_status import Upcoming

_ROUNDS_SHOWN = 3
_SIGN_WIDTH = 4
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
    grid.add_row("LLM", _llm(state))
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
    """Return the last rounds in a line each, and the advice."""
    rows = []
    for found in state["rounds"][-_ROUNDS_SHOWN:]:
        where = found["step"] if found["state"] == "running" else found["state"]
        progress = ", ".join(f"{key} {value}" for key, value in found["progress"].items())
        took = "" if found["seconds"] is None else f" in {found['seconds']:.0f} s"
        text = f"{where}{took} ({found['reason']})"
        if found["state"] == "running" and progress:
            text += f": {progress}"
        fused = found["metrics"].get("accuracies", {}).get("fused")
        if fused:
            text += f"; right {fused['value']:.1%} ({fused['low']:.1%} to {fused['high']:.1%})"
        if found["state"] == "refused":
            text += f"; {found['metrics'].get('gate', {}).get('reason', '')}"
        if found["error"]:
            text += f"; {found['error']}"
        rows.append((f"round {found['number']}", escape(text)))
    if rows:
        rows.append(("advice", escape(state["advice"]["rounds"])))
        rows.append(("", escape(state["advice"]["labels"])))
    return rows


def _llm(state: Mapping[str, Any]) -> str:
    known = f"{state['n_prompts']:,} prompts, {state['n_cache_hits']:,} of them answered before"
    cost = f", cost {state['llm_cost']:.2f}" if state["llm_cost"] else ""
    return f"{known}, {state['llm_seconds']:.0f} s{cost}"


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


def render_queue(upcoming: Upcoming, state: Mapping[str, Any] | None) -> RenderableType:
    """Return the next places of a queue, with reasons, under what is known about it."""
    if state is None:
        return Text("The queue has no order yet: it gets one when all tasks have a label.")
    table = Table(box=None, pad_edge=False)
    table.add_column("place", justify="right")
    table.add_column("task", justify="right")
    table.add_column("")
    table.add_column("why")
    for at, place in enumerate(upcoming.places):
        tag = "audit" if place.is_holdout else ""
        table.add_row(str(at + 1), str(place.task_id), tag, Text(place.reason))
    lines = [*state["words"], *(f"Warning: {warning}" for warning in state["warnings"])]
    lines.append(f"{upcoming.n_open:,} tasks wait in this order")
    if upcoming.n_later:
        lines.append(
            f"{upcoming.n_later:,} tasks came later and stand among them by how unsure they are"
        )
    return Group(*(Text(line) for line in lines), Text(), table)


def render_finding(finding: Finding) -> RenderableType:
    """Return what was found in one line, with what to do about it in another."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, width=_SIGN_WIDTH)
    table.add_column()
    text = Text(f"{finding.subject}: {finding.message}")
    if finding.remedy:
        text.append(f"\n→ {finding.remedy}", style="bold")
    table.add_row(Text.from_markup(_SIGNS[finding.state]), text)
    return table
