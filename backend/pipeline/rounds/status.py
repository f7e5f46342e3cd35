"""What rounds have done for a project, and whether more of them, or of labels, will pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.domain.projects import Project
from backend.domain.rounds import Round, RoundState
from backend.evaluation.stopping import LearningPoint, advise_on_labels, advise_on_rounds
from backend.pipeline.rounds.context import RoundPlan
from backend.store import Stores

_MAX_SHOWN = 20


class RoundStatus:
    """Reads the rounds' table."""

    def __init__(self, stores: Stores, plan: RoundPlan) -> None:
        self._stores = stores
        self._plan = plan

    def report(self, project: Project) -> dict[str, Any]:
        """Return the rounds of the present question, newest last, and advice, JSON-ready."""
        history = [
            found
            for found in self._stores.rounds.history(project.id)
            if found.question_version == project.question_version
        ]
        return {
            "n_rounds": len(history),
            "rounds": [_as_json(found) for found in history[-_MAX_SHOWN:]],
            "advice": self._advice(history),
        }

    def _advice(self, history: Sequence[Round]) -> dict[str, Any]:
        done = [found for found in history if found.state is RoundState.RELEASED]
        changed = [share for found in done[-1:] for share in found.metrics.get("changed", [])]
        points = [point for found in done if (point := _point(found)) is not None]
        on_rounds = advise_on_rounds(
            changed, max_changed=self._plan.max_changed, max_rounds=1 + self._plan.limit
        )
        on_labels = advise_on_labels(points, changed[-1] if changed else None)
        return {
            "rounds": on_rounds.sentence,
            "is_converged": on_rounds.is_converged,
            "labels": on_labels.sentence,
            "are_labels_paying": on_labels.is_paying,
            "figures": {**on_rounds.figures, **on_labels.figures},
        }


def _point(found: Round) -> LearningPoint | None:
    fused = found.metrics.get("accuracies", {}).get("fused")
    if fused is None:
        return None
    return LearningPoint(found.n_human, fused["value"], fused["high"] - fused["low"])


def _as_json(found: Round) -> dict[str, Any]:
    return {
        "number": found.number,
        "state": str(found.state),
        "recipe": found.recipe,
        "reason": found.reason,
        "n_human": found.n_human,
        "step": found.step,
        "progress": dict(found.progress),
        "metrics": dict(found.metrics),
        "model_version": found.model_version,
        "error": found.error,
        "started_at": found.started_at.isoformat(),
        "seconds": found.seconds,
    }
