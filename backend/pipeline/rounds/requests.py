"""Start, cancel and take back rounds because somebody asks for it, once however many ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.domain.audit import actor, record
from backend.domain.projects import JobKind, Project, ProjectId
from backend.domain.rounds import RoundState
from backend.errors import InvalidRequest
from backend.store import Stores
from backend.store.projects import ROUND_ASKED

_PLATFORM = "Label Studio"
_NO_WORKER = "; no worker runs: it begins when `python -m backend worker` is started"


@dataclass(frozen=True)
class RoundRequests:
    """Asks the worker for rounds, and for the return to an earlier release."""

    stores: Stores

    def start(self, project: Project) -> str:
        """Ask for a round; whoever asks while one is asked for or runs is told so."""
        if not project.is_connected:
            why = project.disconnected_why or "it is not connected"
            return f"No round is started: {why}."
        running = self._running(project)
        if running is not None:
            return f"Round {running} runs already; this starts no second one."
        asked = self.asked(project)
        is_known = self.stores.jobs.request_job(project.id, JobKind.ROUND_NOW, "asked for")
        record("started", project.id)
        if asked is None and not is_known:
            at = datetime.now(UTC).isoformat()
            self.stores.state.put(project.id, ROUND_ASKED, {"by": actor(), "at": at})
            return f"A round is asked for{self._unless_worker()}."
        by = f" by {asked['by']}" if asked else ""
        words = f"A round is asked for already{by}; both get the same one"
        return f"{words}{self._unless_worker()}."

    def cancel(self, project: Project) -> str:
        """End the round that runs, or call off the one that is asked for."""
        running = self.stores.rounds.running(project.id)
        if running is not None and self.stores.rounds.finish(running, RoundState.CANCELLED):
            record("cancelled", project.id, f"round={running.number}")
            return f"Round {running.number} is cancelled."
        stored = self.stores.state.get(project.id, ROUND_ASKED)
        if self.asked(project) is None:
            return "No round is running."
        at = datetime.now(UTC)
        is_under_way = not self.stores.jobs.drop_request(project.id, JobKind.ROUND_NOW, at)
        called_off = {"by": actor(), "at": at.isoformat(), "is_called_off": True}
        left = called_off if is_under_way else None
        if not self.stores.state.swap(project.id, ROUND_ASKED, stored, left):
            return self.cancel(project)  # it has begun meanwhile, or somebody has asked anew
        record("called-off", project.id)
        return "The round that was asked for is called off."

    def asked(self, project: Project) -> Mapping[str, Any] | None:
        """Return who asked for a round that has not begun, and when; None where nobody did."""
        asked: Mapping[str, Any] = self.stores.state.get(project.id, ROUND_ASKED) or {}
        if asked and not _is_off(asked):
            return asked
        for project_id, kind, at in self.stores.jobs.job_requests():
            if (project_id, kind) == (project.id, JobKind.ROUND_NOW):
                return {"by": _PLATFORM, "at": at.isoformat()}
        return None

    def note_platform(self, project_id: ProjectId) -> None:
        """Note that Label Studio asked for a round, unless somebody has before."""
        asked = {"by": _PLATFORM, "at": datetime.now(UTC).isoformat()}
        self.stores.state.swap(project_id, ROUND_ASKED, None, asked)

    def repeat(self, project: Project) -> None:
        """Ask again for a round that was asked for and has not begun: its job may have died."""
        if self._is_waiting(project.id):
            self.stores.jobs.request_job(project.id, JobKind.ROUND_NOW, "asked for")
            if not self._is_waiting(project.id):  # it has begun meanwhile
                self.stores.jobs.drop_request(project.id, JobKind.ROUND_NOW, datetime.now(UTC))

    def roll_back(self, project: Project, model_version: str) -> str:
        """Have an earlier release served again.

        Raises:
            UnknownModelVersion: there is none that answers what the project asks now.
            InvalidRequest: another release is just being published.
        """
        pending = self.stores.releases.pending(project)
        if pending is not None and pending.model_version != model_version:
            raise InvalidRequest(
                f"{pending.model_version} is being published; roll back when it is served"
            )
        self.stores.releases.restore(project, model_version)
        self.stores.jobs.request_job(project.id, JobKind.PRELABEL, "rollback")
        record("rolled-back", project.id, f"version={model_version}")
        words = f"The worker publishes {model_version} and then serves it"
        return f"{words}{self._unless_worker()}."

    def _is_waiting(self, project_id: ProjectId) -> bool:
        asked = self.stores.state.get(project_id, ROUND_ASKED)
        return bool(asked) and not _is_off(asked)

    def _running(self, project: Project) -> int | None:
        running = self.stores.rounds.running(project.id)
        is_current = running and running.question_version == project.question_version
        return running.number if running and is_current else None

    def _unless_worker(self) -> str:
        return "" if self.stores.jobs.live_workers() else _NO_WORKER


def is_called_off(stores: Stores, project_id: ProjectId) -> bool:
    """Return whether the round that a job is to make is not wanted any more; tells so once."""
    stored = stores.state.get(project_id, ROUND_ASKED)
    return _is_off(stored) and stores.state.swap(project_id, ROUND_ASKED, stored, None)


def close_request(stores: Stores, project_id: ProjectId) -> bool:
    """Note that the round that was asked for has begun: it is the one for all who asked.

    Returns whether it is still wanted: it may have been called off while it was opened.
    """
    stored = stores.state.get(project_id, ROUND_ASKED)
    if not stores.state.swap(project_id, ROUND_ASKED, stored, None):
        return close_request(stores, project_id)
    stores.jobs.drop_request(project_id, JobKind.ROUND_NOW, datetime.now(UTC))
    return not _is_off(stored)


def _is_off(stored: Mapping[str, Any] | None) -> bool:
    return bool((stored or {}).get("is_called_off"))
