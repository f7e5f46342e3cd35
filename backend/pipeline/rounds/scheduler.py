"""Decide from the database whether a project's next FreeAL round is due, and open it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain.labels import AbstentionReason
from backend.domain.projects import Progress, Project, ProjectId
from backend.domain.rounds import RoundState
from backend.errors import LanguageModelUnavailable, UnsupportedLabelConfig
from backend.pipeline.pool import MIN_TEXTS, GuidelinesReader
from backend.pipeline.rounds.context import STOPPED, ActiveRound, RoundContext
from backend.pipeline.rounds.requests import close_request, is_called_off
from backend.store import Stores

_MAX_UNREACHABLE = 0.1


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """When rounds are made by themselves.

    The first one when `min_tasks` are labeled and none is left; the next after every `every` human
    labels. 0: never by themselves.
    """

    min_tasks: int = 100
    every: int = 20


@dataclass(frozen=True)
class RoundScheduler:
    """Reads from the database whether a round is due; nothing depends on a message arriving."""

    context: RoundContext
    guidelines: GuidelinesReader
    stores: Stores
    policy: RoundPolicy

    def due(self, project: Project) -> str | None:
        """Return why a round is to be made or to be gone on with, None when none is."""
        history = self.stores.rounds.current(project)
        if any(made.state is RoundState.RUNNING for made in history):
            return "a round is not finished"
        progress = self.stores.labels.progress(project)
        if self.policy.every == 0 or progress.n_to_label or not self._has_question(project):
            return None
        if progress.n_labelled + progress.n_human_labelled < self.policy.min_tasks:
            return None
        if not history:
            return "all tasks have their first label"
        n_new = abs(progress.n_human_labels - history[-1].n_human)
        return f"{n_new} new labels by people" if n_new >= self.policy.every else None

    def begin(self, project_id: ProjectId, *, is_asked: bool) -> dict[str, int]:
        """Open a round if one is due or asked for; a step.

        While the LLM could not be reached about more than a tenth of the tasks, the round waits:
        it would learn from similarity alone what the LLM is about to answer.
        """
        project = self.stores.projects.get(project_id)
        if project is None or not project.is_connected:
            return dict(STOPPED)
        is_asked = is_asked and not is_called_off(self.stores, project_id)
        begun = self._begin(project, is_asked=is_asked)
        if begun.get("is_stopped") and not is_asked:
            return begun
        if close_request(self.stores, project_id):
            return begun
        running = self.stores.rounds.running(project_id)
        if running is not None:
            self.stores.rounds.finish(running, RoundState.CANCELLED)
        return dict(STOPPED)

    def _begin(self, project: Project, *, is_asked: bool) -> dict[str, int]:
        progress = self.stores.labels.progress(project)
        reason = self.due(project) or ("asked for" if is_asked else None)
        has_enough = progress.n_labelled + progress.n_human_labelled >= MIN_TEXTS
        if reason is None or not has_enough or not self._has_question(project):
            return dict(STOPPED)
        opened = self.stores.rounds.open(
            project,
            recipe=self.context.plan.recipe,
            reason=reason,
            n_human=progress.n_human_labels,
            models=self.context.models(),
        )
        begun = {"round": opened.number}
        return self.context.run_all(project.id, lambda turns: begun | _begun(turns, progress))

    def _has_question(self, project: Project) -> bool:
        try:
            return bool(self.guidelines.read(project).schema.learned)
        except UnsupportedLabelConfig:
            return False


def _begun(turns: Sequence[ActiveRound], progress: Progress) -> dict[str, int]:
    n_unreachable = progress.abstentions.get(AbstentionReason.UNREACHABLE, 0)
    if n_unreachable > _MAX_UNREACHABLE * progress.n_tasks * len(turns):
        raise LanguageModelUnavailable(f"the LLM could not be reached about {n_unreachable} tasks")
    return {"n_questions": len(turns)}
