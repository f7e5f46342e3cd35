"""The command line: each command reads the settings and calls one use case."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from backend.errors import BackendError, InvalidRequest
from backend.settings import Settings, settings_table

if TYPE_CHECKING:
    from backend.domain.projects import Project
    from backend.services import Services

_CANNOT_START = 2
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="FreeAL for Label Studio: pre-annotate a text project with your own LLM.",
)
_console = Console()
_errors = Console(stderr=True)


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Print our own errors as one sentence and exit with 2, which says: cannot run as it is."""
    try:
        yield
    except BackendError as exc:
        _errors.print(f"[bold red]Error:[/] {exc}", highlight=False, soft_wrap=True)
        raise typer.Exit(_CANNOT_START) from exc


def _settings() -> Settings:
    settings = Settings.from_env()
    settings.configure_logging()
    return settings


@contextmanager
def _services() -> Iterator[Services]:
    from backend.services import build_services

    with _errors_as_sentences(), closing(build_services(_settings())) as services:
        yield services


_ProjectNumber = Annotated[str, typer.Argument(help="Project number.")]
_AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def serve() -> None:
    """Start the web process and the worker; Ctrl-C stops both."""
    from backend.supervise import serve as run

    with _errors_as_sentences():
        raise typer.Exit(run(_settings()))


@app.command()
def worker() -> None:
    """Start one worker; several machines may run one each on one PostgreSQL."""
    from backend.services import build_services
    from backend.worker import run_worker

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stop.set())
    with _errors_as_sentences():
        run_worker(build_services(_settings()), stop)
    # Running steps end here, as in a kill: they are checkpointed, and the next worker resumes.
    logging.shutdown()
    os._exit(0)


@app.command()
def llm(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8000,
    model: Annotated[
        str, typer.Option(envvar="LLM_MODEL", help="Empty: the embedded small model.")
    ] = "",
) -> None:
    """Start a vLLM server, by default with the embedded model on the CPU."""
    from backend.launcher.processes import Processes
    from backend.launcher.vllm_server import start_language_model

    with _errors_as_sentences():
        settings = _settings()
        with Processes(home=settings.home, console=_console) as processes:
            server = start_language_model(processes, model=model, port=port)
            server.wait(processes)
            _console.print(f"[bold green]LLM_BASE_URL={server.base_url}[/]", soft_wrap=True)
            processes.watch()


@app.command()
def status(
    project: Annotated[str, typer.Argument(help="Project number; none: all.")] = "",
    as_json: _AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show how far each project is, at what rate, and what keeps it from going on."""
    from backend.terminal import render_status

    with _services() as services:

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
            with Live(render_status(overview()), console=_console) as live:
                while True:
                    threading.Event().wait(1.0)
                    live.update(render_status(overview()))
        else:
            _console.print(render_status(overview()))


@app.command(name="round")
def make_round(
    project: _ProjectNumber,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the one that runs.")] = False,
) -> None:
    """Ask the worker for a FreeAL round now, or end the one that runs."""
    from backend.domain.projects import JobKind
    from backend.domain.rounds import RoundState

    with _services() as services:
        target = _project(services, project)
        if not cancel:
            reason = "asked for on the command line"
            services.stores.jobs.request_job(target.id, JobKind.ROUND_NOW, reason)
            _console.print(f"A round is asked for: python -m backend status {project} -f")
            return
        running = services.stores.rounds.running(target.id)
        if running is None:
            _console.print("No round is running.")
        elif services.stores.rounds.finish(running, RoundState.CANCELLED):
            _console.print(f"Round {running.number} is cancelled.")


@app.command()
def rollback(
    project: _ProjectNumber,
    version: Annotated[str, typer.Argument(help="A model version; status lists them.")],
) -> None:
    """Make Label Studio show an earlier model version again, in its own order."""
    from backend.domain.projects import JobKind

    with _services() as services:
        target = _project(services, project)
        services.stores.releases.restore(target, version)
        services.stores.jobs.request_job(target.id, JobKind.PRELABEL, "rollback")
        _console.print(f"The worker publishes {version} and then serves it.", soft_wrap=True)


@app.command()
def export(
    project: _ProjectNumber,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("export"),
) -> None:
    """Write all labels (JSONL, CSV, Label Studio JSON) and the student model."""
    with _services() as services:
        result = services.exporter.export(_project(services, project), out)
        model = f"and the model {result.model}" if result.model else "(no round has made a model)"
        _console.print(f"{result.n_rows} labels in {out} {model}", soft_wrap=True)


def _project(services: Services, number: str) -> Project:
    project = services.stores.projects.find(int(number)) if number.isdecimal() else None
    if project is None:
        raise InvalidRequest(
            f"project {number!r} was never connected; `python -m backend status` lists projects"
        )
    return project


@app.command()
def queue(
    project: _ProjectNumber,
    limit: Annotated[int, typer.Option(help="How many places.", min=1)] = 20,
    as_json: _AsJson = False,
) -> None:
    """Show which tasks annotators get next, and why."""
    from backend.terminal import render_queue

    with _services() as services:
        target = _project(services, project)
        upcoming = services.reporter.upcoming(target, limit)
        state = services.reporter.queue(target)
        if as_json:
            typer.echo(json.dumps({**asdict(upcoming), "queue": state}, indent=2))
        else:
            _console.print(render_queue(upcoming, state))


@app.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Write the missing webhook header.")] = False,
) -> None:
    """Check every part and say in one line each what to do; ends with 1 if anything fails."""
    from backend.doctor import diagnose
    from backend.terminal import render_finding

    has_failed = False
    with _errors_as_sentences(), _console.status("Checking; a slow LLM server can take minutes"):
        for finding in diagnose(_settings(), fix=fix):
            _console.print(render_finding(finding))
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

    with _errors_as_sentences():
        raise typer.Exit(
            run_demo(_settings(), console=_console, data=data, config=config, once=once)
        )


@app.command(name="settings")
def show_settings() -> None:
    """Print every setting as a Markdown table."""
    typer.echo(settings_table(), nl=False)
