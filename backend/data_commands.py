"""Commands that delete, save and restore what is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli import (
    app,
    console,
    errors_as_sentences,
    open_services,
    project_of,
    read_settings,
)
from backend.errors import InvalidRequest

if TYPE_CHECKING:
    from backend.domain.projects import ProjectId
    from backend.services import Services

_AGE = re.compile(r"(\d{1,5})\s*d?")


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
        saved = back_up(read_settings(), file)
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
