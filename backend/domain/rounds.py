"""Values of a FreeAL round: its recipe, state, progress and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from backend.domain.projects import ProjectId

RoundRecipeName = Literal["default", "paper"]
"""`default`: the best measured; `paper`: FreeAL's four rounds as published, people left out."""

LabelsChange = Literal["evidence", "people", "never"]
"""On what served labels change: people's answers or evidence, people's answers alone, nothing."""

QUESTIONS = "questions"
"""Key of a round's figures by question, in its metrics."""
MAX_CHANGED = 0.02
"""Share of changed labels up to which a cycle leaves labels stable."""


class RoundState(StrEnum):
    """The state of a round; only a running one is worked on."""

    RUNNING = "running"
    RELEASED = "released"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


def changed_models(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """Return in words which settings name other models than before; "" where none is known to."""
    known = before or {}
    changed = [name for name in sorted(known.keys() & now.keys()) if known[name] != now[name]]
    return " and ".join(f"{name} was {known[name]} and is {now[name]}" for name in changed)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a project.

    `number` counts from 1 per project; `n_human` labels by people existed when it began. `step` and
    `progress` (JSON) are its present position, `metrics` (JSON) what it measured, by question.
    `model_version` is the release that it made, None without one. `models` are those that it began
    with, by the settings that name them; None where an earlier version of the backend began it.
    """

    project_id: ProjectId
    number: int
    question_version: str
    recipe: RoundRecipeName
    reason: str
    state: RoundState
    n_human: int
    step: str
    started_at: datetime
    finished_at: datetime | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model_version: str | None = None
    error: str | None = None
    models: Mapping[str, str] | None = None

    @property
    def figures(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what was measured, by question."""
        found: Mapping[str, Mapping[str, Any]] = self.metrics.get(QUESTIONS, {})
        return found

    @property
    def seconds(self) -> float | None:
        """Return its duration in seconds, None while it runs."""
        if self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()
