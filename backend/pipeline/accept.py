"""Make certified labels annotations in Label Studio, and take exactly these back."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from backend.domain.audit import record
from backend.domain.ports import LabelingPlatform, StepRunner
from backend.domain.projects import (
    ACCEPTANCE,
    UNFINISHED,
    AcceptedLabel,
    JobKind,
    Project,
    ProjectId,
)
from backend.errors import InvalidRequest, PlatformError, UnsupportedLabelConfig
from backend.pipeline.certificate import Certifier
from backend.pipeline.connection import PLATFORM
from backend.pipeline.prelabel import PrelabelSteps, prelabel
from backend.pipeline.status import OUTDATED
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_CHUNK = 50
_UNDOING = "undoing"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What was asked for last, and how far it is; JSON.

    `state` is "asked", "accepting", "accepted", "undoing" or "undone". `n_planned` labels are to be
    accepted or taken back, `n_done` are, `n_left_out` are not: people have annotated or edited.
    """

    max_error: float
    state: str = "asked"
    words: str = ""
    n_planned: int = 0
    n_done: int = 0
    n_left_out: int = 0


@dataclass(frozen=True)
class Acceptor:
    """Accepts in the worker, chunk by chunk, never beside a round: a project has one job at a time.

    A label is stored as planned, then as sent, then with its annotation: whatever was under way
    when a process was killed is looked up in Label Studio, and its unique id stands there once.
    People ask at any time: how far a request is gets noted only while nobody has asked anew.
    """

    platform: LabelingPlatform
    certifier: Certifier
    stores: Stores

    def ask(self, project: Project, max_error: float) -> None:
        """Ask the worker to accept what is certified at this error rate.

        Raises InvalidRequest, also while labels are taken back: some of those would stay.
        """
        if not 0 < max_error < 1:
            raise InvalidRequest(f"an error rate of {max_error} was asked for; expected 0 to 1")

        def accepting(last: Acceptance | None) -> Acceptance:
            if last is not None and last.state == _UNDOING:
                raise InvalidRequest("labels are being taken back; accept when that is done")
            return Acceptance(max_error)

        self._request(project, accepting)
        record("accepted", project.id, f"max_error={max_error:g}")

    def ask_undo(self, project: Project) -> None:
        """Ask the worker to take all accepted labels back; one that accepts now stops.

        Raises InvalidRequest.
        """

        def undoing(last: Acceptance | None) -> Acceptance:
            if last is not None and last.state == _UNDOING:
                return last
            return Acceptance(0.0, _UNDOING, n_planned=self.stores.accepted.count(project.id))

        self._request(project, undoing)
        record("taken-back", project.id)

    def _request(self, project: Project, asked: Callable[[Acceptance | None], Acceptance]) -> None:
        """Put a request in the place of the last one, which tells what is asked for."""
        if not project.is_connected:
            why = project.disconnected_why or "the project is not connected"
            raise InvalidRequest(f"nothing is accepted or taken back: {why}")
        is_noted = False
        while not is_noted:
            stored, last = self._read(project.id)
            is_noted = self._note(project.id, stored, asked(last))
        self.stores.jobs.request_job(project.id, JobKind.ACCEPT, "asked for")

    def request(self, project_id: ProjectId) -> Acceptance | None:
        """Return what was asked for last, None without anything."""
        return self._read(project_id)[1]

    def is_due(self, project: Project) -> bool:
        """Return whether a request waits or is not finished."""
        asked = self.request(project.id)
        return asked is not None and asked.state in UNFINISHED

    def plan(self, project_id: ProjectId) -> dict[str, int]:
        """Decide which labels to accept, as they are now; a step."""
        project = self.stores.projects.connected(project_id)
        stored, asked = self._read(project_id)
        if project is None or asked is None or asked.state != "asked":
            return {"is_planned": int(project is not None and asked is not None)}
        is_changing = self.stores.state.current(project, OUTDATED) is not None
        if is_changing or self.stores.releases.pending(project) is not None:
            return {"is_planned": 0}  # what people see is about to change: the next job goes on
        stale = [
            label.task_id
            for label in self.stores.accepted.all(project_id)
            if label.annotation_id is None and not label.is_sent
        ]
        self.stores.accepted.forget(project_id, stale)
        try:
            labels, words = self._certified(project, asked.max_error)
        except UnsupportedLabelConfig as exc:
            labels, words = [], str(exc)
        self.stores.accepted.plan(project_id, labels)
        found = replace(asked, state="accepting", words=words, n_planned=len(labels))
        if not self._note(project_id, stored, found):
            return self.plan(project_id)  # somebody has asked anew meanwhile
        line = "project=%s accepts n_labels=%d: %s"
        _LOG.info(line, project_id, len(labels), words)
        return {"is_planned": 1}

    def _certified(self, project: Project, max_error: float) -> tuple[list[AcceptedLabel], str]:
        certifiable = self.certifier.certifiable(project)
        rule = certifiable.rule(max_error)
        chosen = certifiable.at_least(rule.threshold)
        results = self.stores.publication.results(project)
        labels = [
            AcceptedLabel(
                task_id, str(uuid.uuid4()), tuple(results[task_id]), project.model_version, p
            )
            for task_id, p in sorted(chosen.items())
        ]
        return labels, certifiable.why_not or rule.reason

    def step(self, project_id: ProjectId) -> dict[str, int]:
        """Accept the next chunk, or take it back; a step. `is_done`: nothing is left to do now."""
        project = self.stores.projects.connected(project_id)
        stored, asked = self._read(project_id)
        if project is None or asked is None or asked.state not in ("accepting", _UNDOING):
            return {"is_done": 1}
        try:
            n_done, n_left_out = self._work(project, is_undoing=asked.state == _UNDOING)
        except PlatformError as exc:
            self.stores.jobs.note_problem(project_id, PLATFORM, str(exc))
            return {"is_done": 1}
        is_done = n_done + n_left_out == 0
        end = "undone" if asked.state == _UNDOING else "accepted"
        found = replace(
            asked,
            state=end if is_done else asked.state,
            n_done=asked.n_done + n_done,
            n_left_out=asked.n_left_out + n_left_out,
        )
        is_noted = self._note(project_id, stored, found)
        return {"is_done": int(is_done and is_noted)}  # else somebody has asked anew meanwhile

    def _work(self, project: Project, *, is_undoing: bool) -> tuple[int, int]:
        """Return how many labels were dealt with, and how many were left as they are."""
        accepted = self.stores.accepted
        if not is_undoing:
            waiting = accepted.send_next(project.id, _CHUNK)
            made = self.platform.accept_predictions(project.platform_id, waiting)
            accepted.note_made(project.id, made)
            others = [label.task_id for label in waiting if label.task_id not in made]
            accepted.forget(project.id, others)
            return len(made), len(others)
        chunk = accepted.all(project.id, limit=_CHUNK)
        sent = [label for label in chunk if label.annotation_id is None and label.is_sent]
        made = self.platform.accept_predictions(project.platform_id, sent) if sent else {}
        known = [
            replace(label, annotation_id=made.get(label.task_id, label.annotation_id))
            for label in chunk
        ]
        kept = self.platform.take_back([one for one in known if one.annotation_id is not None])
        accepted.forget(project.id, [label.task_id for label in chunk])
        return len(chunk) - len(kept), len(kept)

    def _read(self, project_id: ProjectId) -> tuple[Any, Acceptance | None]:
        """Return the last request as it is stored, and as a value."""
        stored = self.stores.state.get(project_id, ACCEPTANCE)
        return stored, Acceptance(**stored) if stored else None

    def _note(self, project_id: ProjectId, stored: Any, acceptance: Acceptance) -> bool:
        """Store a request in place of the `stored` one; False where that is another one by now."""
        return self.stores.state.swap(project_id, ACCEPTANCE, stored, asdict(acceptance))


def accept(
    project_id: ProjectId, runner: StepRunner, acceptor: Acceptor, steps: PrelabelSteps
) -> None:
    """Bring a project up to date, then accept or take back what was asked for, chunk by chunk.

    People's newest answers are listed first: they count, and their tasks are left alone.
    """
    prelabel(project_id, runner, steps, is_thorough=True)
    if not runner.run("plan", acceptor.plan, project_id)["is_planned"]:
        return
    while not runner.run("accept", acceptor.step, project_id)["is_done"]:
        pass
