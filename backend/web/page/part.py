"""What a part of the page is: a tab of a project, with what its forms and links do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response
from werkzeug.datastructures import MultiDict

from backend.domain.projects import Project, is_row_id
from backend.web.page.states import RecentStates

if TYPE_CHECKING:
    from backend.services import Services


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a project's tab: the query of its address, and its form if it sends one."""

    services: Services
    project: Project
    part: Part
    args: Mapping[str, str] = field(default_factory=dict)
    form: MultiDict[str, str] = field(default_factory=MultiDict)
    recent: RecentStates = field(default_factory=RecentStates)

    def state(self) -> Mapping[str, Any]:
        """Return the project's state as `status --json` tells it, of this moment or a bit older."""
        project = self.project
        return self.recent.get(
            project.id,
            lambda: self.services.reporter.project(project),
            version=project.model_version,
        )

    def task_id(self) -> int | None:
        """Return the task that the address names under `task`, None where that is no task's id."""
        named = self.args.get("task", "")
        found = int(named) if named.isascii() and named.isdigit() and len(named) < 20 else 0
        return found if is_row_id(found) else None

    def url(self, action: str = "", **changes: object) -> str:
        """Return the tab's address, or an action's of it, with its query changed in these names."""
        query = urlencode({**self.args, **changes})
        path = "/".join(("/projects", self.project.id, self.part.name, *([action] * bool(action))))
        return f"{path}?{query}" if query else path


@dataclass(frozen=True, slots=True)
class Part:
    """A tab of a project, at `/projects/ID/<name>`, drawn by the template `<name>.html`.

    `view` returns the template's values. Each action answers a form sent to
    `/projects/ID/<name>/<action>`; it returns the sentence that the tab then shows, or raises
    InvalidRequest with one. Each file is the answer to a link to `/projects/ID/<name>/<file>`.
    """

    name: str
    title: str
    view: Callable[[Visit], Mapping[str, Any]]
    actions: Mapping[str, Callable[[Visit], str]] = field(default_factory=dict)
    files: Mapping[str, Callable[[Visit], Response]] = field(default_factory=dict)
