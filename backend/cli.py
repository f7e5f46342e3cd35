"""The command line: each command reads the settings, calls one use case and renders its answer."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from backend.cli_tables import certificate_in_words, queue_table
from backend.domain.audit import act_as
from backend.errors import BackendError, InvalidRequest
from backend.files import keep_private
from backend.launcher.demo_settings import remembered
from backend.launcher.embedded_models import language_model_names
from backend.settings import Settings
from backend.settings_table import settings_table
from backend.web.page.formatting import time_left

if TYPE_CHECKING:
    from backend.domain.projects import Project
    from backend.services import Services

_CANNOT_START = 2
_MAX_ROUNDS_SHOWN, _MAX_UNREADABLE_SHOWN = 3, 3
_STATE_WIDTH = 4
_STATES = {"ok": "[green]ok[/]", "warning": "[yellow]note[/]", "failure": "[bold red]FAIL[/]"}
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="FreeAL for Label Studio: pre-annotate a text project with your own LLM.",
)
console = Console()
_errors = Console(stderr=True)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Print our own errors as one sentence and exit with 2, which says: cannot run as it is.

    So are those of the operating system: a full disk, a folder that cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (BackendError, OSError) as exc:
        _errors.print("[bold red]Error:[/]", escape(str(exc)), highlight=False, soft_wrap=True)
        raise typer.Exit(_CANNOT_START) from exc


def read_settings(*, finds_demo: bool = False) -> Settings:
    """Read the settings; with `finds_demo` the demo's where there is no other backend here."""
    settings = Settings.from_env()
    demo = remembered(settings) if finds_demo else None
    if demo is not None:
        where = f"This is the demo's backend, in {demo.home}"
        _errors.print(f"[dim]{escape(where)}[/]", highlight=False, soft_wrap=True)
        settings = demo
    settings.configure_logging()
    keep_private(settings.home)
    act_as(f"command line uid={os.getuid()}")
    return settings


@contextmanager
def open_services() -> Iterator[Services]:
    from backend.services import build_services

    with (
        errors_as_sentences(),
        closing(build_services(read_settings(finds_demo=True))) as services,
    ):
        yield services


@contextmanager
def open_project(number: str) -> Iterator[tuple[Services, Project]]:
    with open_services() as services:
        yield services, project_of(services, number)


def tell_to_follow(says: str, project: str) -> None:
    """Print what the worker does, and the command that shows how far it is."""
    console.print(f"{says}: python -m backend status {project} -f", soft_wrap=True, markup=False)


ProjectNumber = Annotated[str, typer.Argument(help="Project number.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def serve() -> None:
    """Start the web process and the worker; Ctrl-C stops both."""
    from backend.supervise import serve as run

    with errors_as_sentences():
        raise typer.Exit(run(read_settings()))


@app.command()
def web() -> None:
    """Start one web process; behind a proxy several machines may run one each."""
    from _wsgi import serve_web

    with errors_as_sentences():
        try:
            serve_web(read_settings())
        except OSError as exc:  # the port may be free again in a moment
            _errors.print("[bold red]Error:[/]", escape(str(exc)), highlight=False)
            raise typer.Exit(1) from exc


@app.command()
def worker() -> None:
    """Start one worker; several machines may run one each on one PostgreSQL."""
    from backend.services import build_services
    from backend.worker import run_worker

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stop.set())
    with errors_as_sentences():
        run_worker(build_services(read_settings()), stop)
    # Running steps end here, as in a kill: they are checkpointed, and the next worker resumes.
    logging.shutdown()
    os._exit(0)


@app.command()
def llm(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8000,
    model: Annotated[
        str,
        typer.Option(
            envvar="LLM_MODEL",
            help=f"{language_model_names()}, or a name of a model hub, or a folder. "
            "Empty: the best of the embedded ones that fits this machine.",
        ),
    ] = "",
) -> None:
    """Start a vLLM server, by default with an embedded model on the CPU."""
    from backend.launcher.processes import Processes
    from backend.launcher.vllm_server import start_language_model

    with errors_as_sentences():
        settings = read_settings()
        with Processes(home=settings.home, console=console) as processes:
            server = start_language_model(processes, model=model, port=port)
            server.wait(processes)
            console.print(f"[bold green]LLM_BASE_URL={server.base_url}[/]", soft_wrap=True)
            processes.watch()


@app.command()
def status(
    project: Annotated[str, typer.Argument(help="Project number; none: all.")] = "",
    as_json: AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show how far each project is, at what rate, and what keeps it from going on."""
    with open_services() as services:

        def overview() -> dict[str, object]:
            state = services.reporter.overview()
            if not project:
                return state
            projects = [
                one
                for one in state["projects"]
                if project in (str(one["platform_id"]), str(one["project"]))
            ]
            return {**state, "projects": projects}

        if as_json:
            typer.echo(json.dumps(overview(), indent=2))
        elif follow:
            with Live(_render_status(overview()), console=console) as live:
                while True:
                    threading.Event().wait(1.0)
                    live.update(_render_status(overview()))
        else:
            console.print(_render_status(overview()))


@app.command(name="round")
def make_round(
    project: ProjectNumber,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the one that runs.")] = False,
) -> None:
    """Ask the worker for a FreeAL round now, or end the one that runs."""
    with open_project(project) as (services, target):
        rounds = services.round_requests
        says = rounds.cancel(target) if cancel else rounds.start(target)
        console.print(says, soft_wrap=True, markup=False)
        if target.is_connected and not cancel:
            tell_to_follow("Follow it", project)


def project_of(services: Services, number: str) -> Project:
    project = services.stores.projects.named(number)
    if project is None:
        raise InvalidRequest(
            f"project {number!r} was never connected; `python -m backend status` lists projects"
        )
    return project


@app.command()
def queue(
    project: ProjectNumber,
    limit: Annotated[int, typer.Option(help="How many places.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show which tasks annotators get next, and why."""
    with open_project(project) as (services, target):
        upcoming = services.reporter.upcoming(target, limit)
        state = services.reporter.queue(target)
        if as_json:
            shown = asdict(upcoming) | {
                "queue": state,
                "answered": services.reporter.answered(target),
            }
            typer.echo(json.dumps(shown, indent=2))
        else:
            console.print(queue_table(upcoming, state))


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Write the missing webhook header.")] = False,
) -> None:
    """Check every part and say in one line each what to do; ends with 1 if anything fails."""
    from backend.doctor import diagnose

    has_failed = False
    with errors_as_sentences(), console.status("Checking; a slow LLM server can take minutes"):
        for finding in diagnose(read_settings(finds_demo=True), fix=fix):
            text = Text(f"{finding.subject}: {finding.message}")
            if finding.remedy:
                text.append(f"\n→ {finding.remedy}", style="bold")
            table = Table.grid(Column(no_wrap=True, width=_STATE_WIDTH), "", padding=(0, 2))
            table.add_row(Text.from_markup(_STATES[finding.state]), text)
            console.print(table)
            has_failed |= finding.state == "failure"
    raise typer.Exit(int(has_failed))


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="JSONL with text and, if any, label.")] = None,
    config: Annotated[Path | None, typer.Option(help="Label config, an XML file.")] = None,
    once: Annotated[bool, typer.Option(help="Stop everything when the labels are there.")] = False,
) -> None:
    """Start Label Studio, vLLM and this backend, and pre-annotate a project."""
    from backend.launcher.demo import run_demo

    with errors_as_sentences():
        raise typer.Exit(
            run_demo(read_settings(), console=console, data=data, config=config, once=once)
        )


@app.command(name="settings")
def show_settings() -> None:
    """Print every setting as a Markdown table."""
    typer.echo(settings_table(), nl=False)


def _render_status(overview: Mapping[str, Any]) -> RenderableType:
    """Render the workers and a panel for each project."""
    none = "[bold red]none: start `python -m backend worker`[/]"
    workers = Text.from_markup(f"Workers: {', '.join(overview['workers']) or none}")
    projects = [_render_project(project) for project in overview["projects"]]
    if not projects:
        projects = [Text("No project is connected yet: add this backend in a project's settings.")]
    return Group(workers, *projects)


def _render_project(state: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(Column(justify="right", style="dim"), "", padding=(0, 2))
    done = state["n_tasks"] - state["n_without_label"]
    grid.add_row("labelled", _render_bar(done, state["n_tasks"]))
    grid.add_row("published", _render_bar(state["n_published"], state["n_labelled"]))
    left = time_left(state["seconds_left"])
    grid.add_row("rate", f"{state['labels_per_s']:.1f} labels/s, {left}")
    people = f"{state['n_human_labels']} labels on {state['n_human_labelled_tasks']} tasks"
    grid.add_row("people", people)
    if state["n_abstained"]:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in state["abstentions"].items())
        grid.add_row("no label", reasons)
    for answer in state["unreadable_answers"][:_MAX_UNREADABLE_SHOWN]:
        grid.add_row("unreadable", Text(answer))
    served = state["served_version"] or "none"
    grid.add_row("version", escape(f"{state['model_version']} (served: {served})"))
    grid.add_row("tokens", f"{state['n_tokens_in']:,} in, {state['n_tokens_out']:,} out")
    prompts = f"{state['n_prompts']:,} prompts, {state['n_cache_hits']:,} of them answered before"
    cost = f", cost {state['llm_cost']:.2f}" if state["llm_cost"] else ""
    grid.add_row("LLM", f"{prompts}, {state['llm_seconds']:.0f} s{cost}")
    grid.add_row("", Text(state["llm_share"]))
    for question, how in state["questions"].items():
        grid.add_row("question", Text(f"{question}: {how}"))
    for name, n in state["labeled_by"].items():
        grid.add_row("labelled by", Text(f"{name}: {n:,} tasks"))
    for words in state["relabeling_words"]:
        grid.add_row("since then", Text(words))
    for question, how in state["prompts"].items():
        grid.add_row("prompt", Text(f"{question}: {how}"))
    if state["queue"] is not None:
        grid.add_row("queue", Text("\n".join(state["queue"]["words"])))
        for warning in state["queue"]["warnings"]:
            grid.add_row("[bold red]queue[/]", Text(warning))
    if state["certificate"] or state["acceptance"]:
        grid.add_row("certified", Text(certificate_in_words(state)))
    for row in _round_rows(state):
        grid.add_row(*row)
    if state["disconnected_why"]:
        grid.add_row("[bold red]stopped[/]", Text(state["disconnected_why"]))
    for problem in state["problems"]:
        text = f"{problem['source']}: {problem['message']} ({problem['n_times']}x)"
        grid.add_row("[bold red]problem[/]", Text(text))
    title = escape(f"{state['platform_id']} {state['title']}".strip())
    return Panel(grid, title=title, title_align="left")


def _round_rows(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each of the last rounds, and for the advice."""
    rows = []
    for one in state["rounds"][-_MAX_ROUNDS_SHOWN:]:
        where = one["step"] if one["state"] == "running" else one["state"]
        progress = ", ".join(f"{key} {value}" for key, value in one["progress"].items())
        took = "" if one["seconds"] is None else f" in {one['seconds']:.0f} s"
        text = f"{where}{took} ({one['reason']})"
        if one["state"] == "running" and progress:
            text += f": {progress}"
        if one["error"]:
            text += f"; {one['error']}"
        rows.append((f"round {one['number']}", escape(text)))
        rows += [
            ("", escape(f"{question}: {text}"))
            for question, figures in one["metrics"].get("questions", {}).items()
            if (text := _figures_in_words(figures))
        ]
    if rows:
        for question, advice in state["advice"].items():
            rows.append(("advice", escape(f"{question}: {advice['rounds']}")))
            rows.append(("", escape(advice["labels"])))
    return rows


def _figures_in_words(figures: Mapping[str, Any]) -> str:
    """Return how good a round's labels of a question are, and what was decided about them."""
    parts = []
    if fused := figures.get("accuracies", {}).get("fused"):
        parts.append(f"right {fused['value']:.1%} ({fused['low']:.1%} to {fused['high']:.1%})")
    parts += [reason for reason in (figures.get("gate", {}).get("reason"),) if reason]
    parts += [f"not learned: {figures['error']}"] if figures.get("error") else []
    return "; ".join(parts)


def _render_bar(done: int, total: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(total, 1), completed=done, width=30)
    row.add_row(bar, f"{done:,} of {total:,}")
    return row
