"""Work for a project only while Label Studio lists this backend in it, and leave it as it was."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from backend.domain.ports import LabelingPlatform
from backend.domain.projects import UNCERTAINTY_SAMPLING, Disconnection, Project, ProjectInfo
from backend.errors import (
    PlatformError,
    PlatformNotFound,
    PlatformRejected,
    PlatformUnauthorized,
)
from backend.pipeline.tabs import TabKeeper
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_REACHED, _QUEUE_BEFORE = "reached", "queue_before"
_MAX_WAIT = timedelta(seconds=60)
"""Label Studio calls /setup before it stores a new backend."""
PLATFORM = "label-studio"
"""Source of problems with Label Studio."""


@dataclass(frozen=True)
class Connections:
    """Follows whether projects are connected.

    Args:
        own_url: this backend's address, as the settings know it.
        tabs: those that are removed with the backend.
    """

    platform: LabelingPlatform
    stores: Stores
    own_url: str
    tabs: TabKeeper

    def check(self, project: Project) -> tuple[Project, ProjectInfo | None] | None:
        """Return a project that Label Studio lists this backend in, with its description.

        None while nothing may be done for it; the description is None while Label Studio does not
        answer, which changes nothing: work that needs no Label Studio goes on.
        """
        try:
            info = self.platform.project(project.platform_id)
            listed = self.platform.backends(project.platform_id) if info.id == project.id else []
        except PlatformNotFound as exc:
            self._stop(project, Disconnection.DELETED, f"{exc}; it is deleted or hidden")
            return None
        except (PlatformUnauthorized, PlatformRejected) as exc:
            self._stop(project, Disconnection.REFUSED, str(exc))
            return None
        except PlatformError as exc:
            self.stores.jobs.note_problem(project.id, PLATFORM, str(exc))
            return (project, None) if project.is_connected else None
        if info.id != project.id:
            why = f"it is deleted, and its number belongs to project {info.id} now"
            self._stop(project, Disconnection.DELETED, why)
            return None
        if not self._is_listed(project, listed):
            self._miss(project, info, listed)
            return None
        self.stores.jobs.clear_problem(project.id, PLATFORM)
        if not project.is_connected:
            _LOG.info("project=%s is connected again", project.id)
            project = self.stores.projects.reconnect(project)
        return project, info

    def disconnect(self, project: Project) -> None:
        """Stop for a project because somebody asked for it; raises PlatformError.

        Label Studio's queue is put back as it was, and tabs are removed.
        """
        self.stores.projects.disconnect(
            project.id, Disconnection.ASKED, "it was disconnected on the command line"
        )
        self._leave(project, self.platform.project(project.platform_id))

    def note_queue(self, project: Project, info: ProjectInfo) -> None:
        """Keep what the queue was like before it was changed for the first time."""
        if self.stores.state.get(project.id, _QUEUE_BEFORE) is None:
            before = {"model_version": info.model_version, "sampling": info.sampling}
            self.stores.state.put(project.id, _QUEUE_BEFORE, before)

    def _is_listed(self, project: Project, listed: list[str]) -> bool:
        reached = self.stores.state.get(project.id, _REACHED) or {}
        ours = {_place(self.own_url), _place(reached.get("address") or self.own_url)}
        return any(_place(url) in ours for url in listed)

    def _miss(self, project: Project, info: ProjectInfo, listed: list[str]) -> None:
        """Stop for a project that does not list this backend, unless it is just being added."""
        reached = self.stores.state.get(project.id, _REACHED)
        age = datetime.now(UTC) - datetime.fromisoformat(reached["at"]) if reached else _MAX_WAIT
        if age < _MAX_WAIT:
            return
        others = f"; it lists {', '.join(listed)}: set BACKEND_URL if one is this" if listed else ""
        why = f"Label Studio does not list the backend {self.own_url} in this project{others}"
        self._stop(project, Disconnection.REMOVED, why)
        try:
            self._leave(project, info)
        except PlatformError as exc:
            _LOG.warning("project=%s queue or tabs stay as they are: %s", project.id, exc)

    def _stop(self, project: Project, reason: Disconnection, why: str) -> None:
        if project.is_connected:
            _LOG.warning("project=%s nothing is done for it any more: %s", project.id, why)
            self.stores.projects.disconnect(project.id, reason, why)

    def _leave(self, project: Project, info: ProjectInfo) -> None:
        self._restore_queue(project, info)
        self.tabs.remove(project)

    def _restore_queue(self, project: Project, info: ProjectInfo) -> None:
        """Put back what the queue was, unless somebody has changed it since."""
        before = self.stores.state.get(project.id, _QUEUE_BEFORE)
        served = self.stores.projects.served_version(project.id)
        if not before or served is None:
            return
        if info.sampling == UNCERTAINTY_SAMPLING and info.model_version in (served, None):
            self.platform.restore_queue(project.platform_id, **before)
        self.stores.projects.note_served(project.id, None)
        self.stores.state.put(project.id, _QUEUE_BEFORE, None)


def note_reached(stores: Stores, project: Project, address: str) -> None:
    """Note under which address Label Studio has called this backend for a project."""
    at = datetime.now(UTC).isoformat()
    stores.state.put(project.id, _REACHED, {"address": address, "at": at})


def _place(url: str) -> tuple[str, int | None, str]:
    """Return host, port and path of an address; a proxy may end its encryption."""
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError:
        port = None
    return (parts.hostname or "").lower(), port, parts.path.rstrip("/")
