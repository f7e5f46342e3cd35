"""Commands about what is stored of projects: doubt, export, roll back, delete, save, restore."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli import (
    AsJson,
    ProjectNumber,
    app,
    console,
    errors_as_sentences,
    open_project,
    open_services,
    project_of,
    read_settings,
    tell_to_follow,
)
from backend.cli_tables import certificate_table, issues_table
from backend.domain.audit import record
from backend.errors import InvalidRequest, PlatformError

if TYPE_CHECKING:
    from backend.domain.projects import ProjectId
    from backend.services import Services

_AGE = re.compile(r"(\d{1,5})\s*d?")


@app.command()
def issues(
    project: ProjectNumber,
    limit: Annotated[int, typer.Option(help="How many errors.", min=1)] = 20,
    dismiss: Annotated[str, typer.Option(help="The id of an error whose label is right.")] = "",
    undo: Annotated[str, typer.Option(help="The id of an error to list again.")] = "",
    dismissed: Annotated[bool, typer.Option("--dismissed", help="List the dismissed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show probable errors in the labels, people's included, and who objects."""
    with open_project(project) as (services, target):
        reader = services.issues
        for key, change in ((dismiss, reader.dismiss), (undo, reader.undo)):
            if key and not change(target, key):
                raise InvalidRequest(f"there is no such error: {key!r}")
        found = reader.issues(target, is_dismissed=dismissed)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            console.print(issues_table(found, limit))


@app.command()
def export(
    project: ProjectNumber,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("export"),
) -> None:
    """Write all labels (JSONL, CSV, Label Studio JSON) and the student model."""
    with open_project(project) as (services, target):
        result = services.exporter.export(target, out)
        record("exported", target.id, f"n_rows={result.n_rows}")
        model = f"and the model {result.model}" if result.model else "(no round has made a model)"
        console.print(f"{result.n_rows} labels in {out} {model}", soft_wrap=True)


@app.command()
def report(
    project: ProjectNumber,
    html: Annotated[Path, typer.Option(help="The file to write.")],
    texts: Annotated[bool, typer.Option("--texts", help="With texts of tasks.")] = False,
) -> None:
    """Write what the page shows of a project to one file, without texts of tasks."""
    from backend.files import replacing_file
    from backend.web.page.report import report as draw

    with open_project(project) as (services, target):
        page = draw(services, target, has_texts=texts)
        with replacing_file(html) as part:
            part.write_text(page, encoding="utf-8")
        record("reported", target.id, f"texts={texts}")
        console.print(f"The report is in {html}.", soft_wrap=True, markup=False)


@app.command()
def accept(
    project: ProjectNumber,
    max_error: Annotated[
        float, typer.Option(help="Share of the accepted labels that may be wrong.")
    ] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is certified.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make annotations of the labels that the random holdout certifies; `undo` takes them back."""
    with open_project(project) as (services, target):
        if not 0 < max_error < 1:
            raise InvalidRequest(f"--max-error {max_error}: expected a share, as 0.05")
        report = services.certifier.report(target, max_error)
        if not dry_run:
            services.acceptor.ask(target, max_error)
        if as_json:
            typer.echo(json.dumps(report, indent=2))
            return
        console.print(certificate_table(report))
        if not dry_run:
            tell_to_follow(
                "The worker makes annotations of those that are certified when it begins", project
            )


@app.command()
def undo(project: ProjectNumber) -> None:
    """Take accepted labels back in Label Studio; annotations that people edited since stay."""
    with open_project(project) as (services, target):
        services.acceptor.ask_undo(target)
        tell_to_follow("The worker takes them back", project)


@app.command()
def rollback(
    project: ProjectNumber,
    version: Annotated[str, typer.Argument(help="A model version; status lists them.")],
) -> None:
    """Make Label Studio show an earlier model version again, in its own order."""
    with open_project(project) as (services, target):
        says = services.round_requests.roll_back(target, version)
        console.print(says, soft_wrap=True, markup=False)


@app.command()
def relabel(
    project: ProjectNumber,
    share: Annotated[
        float, typer.Option(help="Share of the tasks to try it on.", min=0.001, max=1.0)
    ] = 0.1,
    force: Annotated[bool, typer.Option("--force", help="Whatever the trial says.")] = False,
) -> None:
    """Try the present LLM, encoder and prompts, and label anew what others labelled."""
    with open_project(project) as (services, target):
        services.annotator_change.ask(target, share=share, is_forced=force)
        record("relabeled", target.id)
        tell_to_follow(
            f"The worker tries it on {share:.0%} of the tasks, and goes on if that is expected to "
            "pay",
            project,
        )


@app.command()
def tabs(project: ProjectNumber) -> None:
    """Bring back tabs of the Data Manager that somebody has deleted."""
    with open_project(project) as (services, target):
        if not services.settings.manage_views:
            raise InvalidRequest("MANAGE_VIEWS=false: no tabs are made; set it to true")
        services.tabs.bring_back(target)
        record("tabs-asked", target.id)
        console.print("The worker adds them within a sync interval.")


@app.command()
def disconnect(
    project: ProjectNumber,
    undo: Annotated[bool, typer.Option("--undo", help="Work for it again.")] = False,
) -> None:
    """Stop working for a project, keep its data, remove its tabs, put its queue back."""
    with open_project(project) as (services, target):
        if undo:
            services.stores.projects.reconnect(target)
            record("reconnected", target.id)
            console.print("The worker goes on as soon as Label Studio lists this backend in it.")
            return
        record("disconnected", target.id)
        try:
            services.connections.disconnect(target)
        except PlatformError as exc:
            words = f"Its queue and its tabs stay as they are: {exc}"
            console.print(words, soft_wrap=True, markup=False)
        console.print(
            f"Nothing is done for project {project} any more. Remove the backend in its settings "
            "too, or Label Studio goes on to ask for predictions.",
            soft_wrap=True,
        )


@app.command()
def purge(
    project: Annotated[str, typer.Argument(help="Project number, unless --all.")] = "",
    every: Annotated[bool, typer.Option("--all", help="All that were removed.")] = False,
    older_than: Annotated[str, typer.Option(help="Removed at least so long ago, as 30d.")] = "0d",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete texts, labels and models of projects that were removed in Label Studio.

    With --all also the events and cached answers that are older.
    """
    with open_services() as services:
        days = _days(older_than)
        if bool(project) == every:
            raise InvalidRequest("name one project, or say --all")
        found = _removed(services, project, days)
        if found and not yes:
            typer.confirm(f"Delete all that is stored of {', '.join(found)}?", abort=True)
        for project_id in found:
            services.housekeeper.purge(project_id)
            record("purged", project_id)
            console.print(f"Project {project_id} is deleted.")
        if every:
            services.housekeeper.purge_shared(days)
        services.stores.retention.compact()
        if not found:
            console.print("No project was removed that long ago.")


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Save database, models and settings without secrets to one file, while all runs."""
    from backend.backup import back_up

    with errors_as_sentences():
        saved = back_up(read_settings(finds_demo=True), file)
        size = f"{saved.n_bytes / 2**20:.1f} MB"
        console.print(f"{saved.n_projects} projects are saved in {file} ({size}).", soft_wrap=True)


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="A file of `backup`.")]) -> None:
    """Put a backup into an empty FREEAL_HOME and database."""
    from backend.backup import restore as put_back

    with errors_as_sentences():
        restored = put_back(read_settings(), file)
        console.print(f"{restored.n_projects} projects of {restored.made_at} are restored.")
        if restored.other_settings:
            console.print("These settings were others then; secrets are not saved:")
        for name, text in restored.other_settings.items():
            console.print(f"  {name}={text}", markup=False, highlight=False, soft_wrap=True)


def _removed(services: Services, project: str, days: int) -> list[ProjectId]:
    """Return the projects to delete; one that is named and connected is refused later."""
    removed = services.stores.retention.disconnected_for(days)
    if not project:
        return removed
    target = project_of(services, project)
    return [target.id] if target.is_connected or target.id in removed else []


def _days(text: str) -> int:
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(f"--older-than {text!r}: expected days, as 30d")
    return int(found[1])
