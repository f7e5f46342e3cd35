"""Keep tabs in Label Studio's Data Manager that show what this backend knows of a project."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.domain.ports import ProjectTabs, StepRunner
from backend.domain.projects import Project, ProjectId, Tab, TabFilter
from backend.errors import PlatformError
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_MAX_IDS = 500  # Label Studio matches one after the other: 5,000 take it ten times as long
_LOOKING_SHARE = 0.05
_MIN_INTERVAL = timedelta(seconds=60)
TABS = "tabs"
"""Name of their state, and source of problems with them."""

TaskList = Callable[[Project], Sequence[int]]
"""Returns ids of tasks, the most important ones first."""


@dataclass(frozen=True)
class TabKeeper:
    """Adds tabs beside those that people made, and keeps them up to date.

    What was added is remembered in the project's state, so that only that is changed and removed. A
    tab that somebody deleted stays away until `bring_back`.

    Args:
        lists: what the tabs that list tasks show, by title; such a tab comes with its first task.
        page: this backend's address, as the settings know it.
        is_on: whether there shall be tabs; if not, those that were added are removed.
    """

    platform: ProjectTabs
    stores: Stores
    lists: Mapping[str, TaskList]
    page: str
    is_on: bool
    _next_look_at: dict[ProjectId, float] = field(default_factory=dict, init=False)

    def close(self) -> None:
        """Close the connections to Label Studio."""
        close = getattr(self.platform, "close", None)
        if close is not None:
            close()

    def is_due(self, project: Project) -> bool:
        """Return whether a tab is to be added, changed or removed, or that was not tried yet."""
        state = self._state(project.id)
        tried_at = state["tried_at"]
        if tried_at and datetime.now(UTC) - datetime.fromisoformat(tried_at) < _MIN_INTERVAL:
            return False
        if not self.is_on:
            return bool(state["tabs"] or state["description"])
        if self.stores.projects.served_version(project.id) is None:
            return False
        return state["description"] is None or self._has_changed(project, state)

    def keep_if_due(self, project_id: ProjectId) -> dict[str, int]:
        """Do what `keep` does where something is due: a step of workflows that take hours."""
        project = self.stores.projects.connected(project_id)
        if project is None or not self.is_due(project):
            return {"n_tabs": 0}
        return self.keep(project_id)

    def keep(self, project_id: ProjectId) -> dict[str, int]:
        """Add, change or remove what is due; a step. Failures are recorded, not raised."""
        project = self.stores.projects.connected(project_id)
        if project is None:
            return {"n_tabs": 0}
        tried_at = datetime.now(UTC).isoformat()
        self._save(project_id, self._state(project_id) | {"tried_at": tried_at})
        try:
            n_tabs = self._update(project) if self.is_on else self.remove(project)
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, TABS, str(exc))
            return {"n_tabs": 0}
        self.stores.jobs.clear_problem(project_id, TABS)
        return {"n_tabs": n_tabs}

    def remove(self, project: Project) -> int:
        """Remove what was added, unless people made it their own; raises PlatformError."""
        state = self._state(project.id)
        for name, stored in list(state["tabs"].items()):
            self.platform.delete(project.platform_id, stored["id"], _tab(stored))
            del state["tabs"][name]
            self._save(project.id, state)
        if state["description"]:
            self.platform.describe(project.platform_id, "", instead_of=state["description"])
        self.stores.state.put(project.id, TABS, None)
        return 0

    def bring_back(self, project: Project) -> None:
        """Have the tabs that somebody deleted added again by the next `keep`."""
        state = self._state(project.id)
        self._save(project.id, {**state, "deleted": [], "tried_at": None})

    def _update(self, project: Project) -> int:
        state = self._state(project.id)
        if state["description"] is None:
            page = f"{self.page}/projects/{project.platform_id}/"
            text = f"Progress, accuracy and label errors: {page}"
            is_empty = self.platform.describe(project.platform_id, text, instead_of="")
            state["description"] = text if is_empty else ""
            self._save(project.id, state)
        present = self.platform.ids(project.platform_id)
        if not present:  # Label Studio makes its own first tab only where there is none
            return 0
        for name in [n for n, stored in state["tabs"].items() if stored["id"] not in present]:
            _LOG.info("project=%s somebody deleted the tab %r, so it stays away", project.id, name)
            del state["tabs"][name]
            state["deleted"].append(name)
        for name, tab in list(self._changes(project, state)):
            stored = state["tabs"].get(name)
            if stored is None:
                tab_id = self.platform.add(project.platform_id, tab)
            else:
                tab_id, before = stored["id"], _tab(stored)
                self.platform.update(project.platform_id, tab_id, before=before, after=tab)
            state["tabs"][name] = {"id": tab_id, "title": tab.title, "shows": tab.shows}
            self._save(project.id, state)
        self._save(project.id, state)
        return len(state["tabs"])

    def _has_changed(self, project: Project, state: Mapping[str, Any]) -> bool:
        """Return whether a tab would change; looked at for a twentieth of the time at most."""
        started_at = time.monotonic()
        if started_at < self._next_look_at.get(project.id, 0.0):
            return False
        if any(True for _ in self._changes(project, state)):
            return True
        took_s = time.monotonic() - started_at
        pause_s = max(_MIN_INTERVAL.total_seconds(), took_s / _LOOKING_SHARE)
        self._next_look_at[project.id] = started_at + pause_s
        return False

    def _changes(self, project: Project, state: Mapping[str, Any]) -> Iterator[tuple[str, Tab]]:
        """Yield the tabs that are missing or show other tasks than they should, by name."""
        for name, tab in self._wanted(project):
            stored = state["tabs"].get(name)
            is_changed = tab.shows != () if stored is None else _tab(stored) != tab
            if is_changed and name not in state["deleted"]:
                yield name, tab

    def _wanted(self, project: Project) -> Iterator[tuple[str, Tab]]:
        yield "Queue", Tab("Queue", TabFilter.WAITING)
        for name, task_ids in self.lists.items():
            ids = tuple(task_ids(project))
            is_cut = len(ids) > _MAX_IDS
            title = f"{name} ({_MAX_IDS:,} of {len(ids):,})" if is_cut else name
            yield name, Tab(title, ids[:_MAX_IDS])
        yield "No label", Tab("No label", TabFilter.UNLABELED)

    def _state(self, project_id: ProjectId) -> dict[str, Any]:
        empty: dict[str, Any] = {"tabs": {}, "deleted": [], "description": None, "tried_at": None}
        return empty | (self.stores.state.get(project_id, TABS) or {})

    def _save(self, project_id: ProjectId, state: Mapping[str, Any]) -> None:
        self.stores.state.put(project_id, TABS, dict(state))


def keep_tabs(project_id: ProjectId, runner: StepRunner, keeper: TabKeeper) -> None:
    """Bring a project's tabs up to date: a workflow of one step."""
    runner.run("tabs", keeper.keep, project_id)


def _tab(stored: Mapping[str, Any]) -> Tab:
    """Return a tab as it was stored."""
    shows = stored["shows"]
    return Tab(stored["title"], TabFilter(shows) if isinstance(shows, str) else tuple(shows))
