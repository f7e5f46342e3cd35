"""Store what Label Studio reports (connections, webhooks): each event once, in any order."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from backend.domain.audit import record
from backend.domain.ports import ConfigReader
from backend.domain.projects import Disconnection, Event, JobKind, Project, ProjectId
from backend.errors import InvalidRequest, UnsupportedLabelConfig
from backend.pipeline.config_change import asks_the_same, note_asked
from backend.pipeline.connection import note_reached
from backend.pipeline.rounds.requests import RoundRequests
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_RECENT_S = 1.0
_JOB_OF_EVENT = {
    "TASKS_CREATED": JobKind.PRELABEL,
    "PROJECT_UPDATED": JobKind.PRELABEL,
    "ANNOTATIONS_DELETED": JobKind.PRELABEL,
    "START_TRAINING": JobKind.ROUND_NOW,
}


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """Which projects may connect: those of these numbers (none named: all), so many at a time."""

    allowed: frozenset[int] = frozenset()
    max_projects: int = 200


@dataclass(frozen=True)
class EventService:
    """What happens at connection and with each webhook. Nothing here waits for a model."""

    config: ConfigReader
    stores: Stores
    limits: ProjectLimits = field(default_factory=lambda: ProjectLimits())
    _recent: dict[ProjectId, tuple[Project, float]] = field(default_factory=dict, init=False)

    def connect(self, project_id: ProjectId, label_config: str, *, address: str = "") -> Project:
        """Register a project; raises UnsupportedLabelConfig and InvalidRequest.

        A known project that asks something else by now is followed by the worker, which does
        nothing before it has seen that Label Studio lists this backend. One that was disconnected
        on the command line stays so.

        Args:
            address: where Label Studio has reached this backend, "" if it cannot be told.
        """
        known = self.stores.projects.get(project_id)
        is_news = known is None or not known.is_connected
        if is_news:
            self._check_limits(project_id, is_new=known is None)
        self.config.read_schema(label_config)
        if known is None:
            known, _ = self.stores.projects.save(project_id, label_config=label_config)
        elif not asks_the_same(self.config, known, label_config):
            note_asked(self.stores, known, label_config, known.instruction)
            is_news = True
        if address:
            note_reached(self.stores, known, address)
        if not is_news or known.disconnection == Disconnection.ASKED:
            return known
        project = self.stores.projects.reconnect(known)
        self.stores.jobs.request_job(project_id, JobKind.PRELABEL, "connected")
        record("connected", project_id, f"version={project.model_version}")
        return project

    def _check_limits(self, project_id: ProjectId, *, is_new: bool) -> None:
        limits, number = self.limits, int(project_id.partition(".")[0])
        if limits.allowed and number not in limits.allowed:
            raise InvalidRequest(f"project {number} is not in ALLOWED_PROJECTS")
        if is_new and self.stores.projects.n_open() >= limits.max_projects:
            raise InvalidRequest(
                f"{limits.max_projects} projects are connected, or were never found in Label "
                "Studio: remove this backend where it is not used, or raise MAX_PROJECTS"
            )

    def recent(self, project_id: ProjectId, label_config: str) -> Project | None:
        """Return a project as `connect` does, or as it was less than a second ago.

        None while it is about to ask something else: what is stored answers another question. Each
        /predict comes through here; a version that is new takes up to a second to be seen.
        """
        known, read_at = self._recent.get(project_id, (None, 0.0))
        is_fresh = time.monotonic() - read_at < _RECENT_S
        if known is None or not is_fresh or known.label_config != label_config:
            known = self.connect(project_id, label_config)
            self._recent[project_id] = (known, time.monotonic())
        return known if asks_the_same(self.config, known, label_config) else None

    def receive(self, event: Event, *, only_connected: bool = False) -> bool:
        """Apply an event; return whether it was news.

        `only_connected`: nothing is kept of a project that is not connected. label-studio-ml's own
        server does not tell us of connections.
        """
        if event.project is None:
            _LOG.info("event %.64s without a project is passed over", event.action)
            return False
        project_id = event.project.id
        self._recent.pop(project_id, None)
        if only_connected and self.stores.projects.connected(project_id) is None:
            _LOG.info("project=%s is not connected: %s is passed over", project_id, event.action)
            return False
        self._note_asked(event)
        kind = _JOB_OF_EVENT.get(event.action)
        is_news = self.stores.tasks.apply(project_id, event, (kind, event.action) if kind else None)
        if kind is JobKind.ROUND_NOW and is_news:
            RoundRequests(self.stores).note_platform(project_id)
            record("started", project_id)
        _LOG.debug("project=%s event=%s news=%s", project_id, event.action, is_news)
        return is_news

    def _note_asked(self, event: Event) -> None:
        """Note a changed label config or instruction; one that we cannot label changes nothing.

        The worker follows it once changes stop for a while; the next sync says what cannot be
        labeled.
        """
        info = event.project
        if info is None or not info.label_config:
            return
        known = self.stores.projects.get(info.id)
        if (
            known is None
            or not known.is_connected
            or (
                asks_the_same(self.config, known, info.label_config)
                and known.instruction == info.instruction
            )
        ):
            return
        try:
            self.config.read_schema(info.label_config)
        except UnsupportedLabelConfig as exc:
            _LOG.warning("project=%s changed its label config: %s", info.id, exc)
            return
        record("changed", info.id)
        note_asked(self.stores, known, info.label_config, info.instruction)
        self.stores.jobs.request_job(info.id, JobKind.PRELABEL, "the project asks something new")
