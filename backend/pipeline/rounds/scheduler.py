"""When a round is due, and its first step."""

from __future__ import annotations

from dataclasses import dataclass

from backend.domain.labels import AbstentionReason
from backend.domain.projects import Progress, Project, ProjectId
from backend.domain.rounds import Round, RoundState
from backend.errors import LanguageModelUnavailable, UnsupportedLabelConfig
from backend.pipeline.ensemble import MIN_TO_LEARN
from backend.pipeline.guidelines import GuidelinesReader
from backend.pipeline.rounds.context import STOPPED, RoundContext, question_of
from backend.store import Stores

_MAX_UNHEARD = 0.1


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """When rounds are made by themselves.

    The first one when `n_least` tasks are labelled and none is left; the next after every `every`
    labels by people. 0: never by themselves.
    """

    n_least: int = 100
    every: int = 20


class RoundScheduler:
    """Reads from the database whether a round is due; nothing depends on a message arriving."""

    def __init__(
        self,
        context: RoundContext,
        guidelines_reader: GuidelinesReader,
        stores: Stores,
        policy: RoundPolicy,
    ) -> None:
        self._context = context
        self._guidelines_reader = guidelines_reader
        self._stores = stores
        self._policy = policy

    def due(self, project: Project) -> str | None:
        """Return why a round is to be made or to be gone on with, None when none is."""
        history = self.history(project)
        if any(found.state is RoundState.RUNNING for found in history):
            return "a round is not finished"
        progress = self._stores.labels.progress(project)
        if self._policy.every == 0 or progress.n_to_label or not self._can_learn(project):
            return None
        if progress.n_labelled + progress.n_human_labelled < self._policy.n_least:
            return None
        if not history:
            return "all tasks have their first label"
        n_new = abs(progress.n_human_labels - history[-1].n_human)
        return f"{n_new} new labels by people" if n_new >= self._policy.every else None

    def history(self, project: Project) -> list[Round]:
        """Return the rounds that answer the present question."""
        return [
            found
            for found in self._stores.rounds.history(project.id)
            if found.question_version == project.question_version
        ]

    def begin(self, project_id: ProjectId, *, is_asked: bool) -> dict[str, int]:
        """Open a round if one is due or asked for; a step.

        While the LLM could not be reached about more than a tenth of the tasks, the round waits:
        it would learn from similarity alone what the LLM is about to say.
        """
        project = self._stores.projects.get(project_id)
        if project is None or not project.is_connected:
            return dict(STOPPED)
        progress = self._stores.labels.progress(project)
        reason = self.due(project) or ("asked for" if is_asked else None)
        if reason is None or not self._has_enough(progress) or not self._can_learn(project):
            return dict(STOPPED)
        found = self._stores.rounds.open(
            project,
            recipe=self._context.plan.recipe,
            reason=reason,
            n_human=progress.n_human_labels,
        )
        return self._context.run(project_id, lambda _: _heard(found, progress))

    def _has_enough(self, progress: Progress) -> bool:
        return progress.n_labelled + progress.n_human_labelled >= MIN_TO_LEARN

    def _can_learn(self, project: Project) -> bool:
        try:
            return question_of(self._guidelines_reader.read(project).schema) is not None
        except UnsupportedLabelConfig:
            return False


def _heard(found: Round, progress: Progress) -> dict[str, int]:
    n_unheard = progress.abstentions.get(AbstentionReason.UNREACHABLE, 0)
    if n_unheard > _MAX_UNHEARD * progress.n_tasks:
        raise LanguageModelUnavailable(f"the LLM could not be reached about {n_unheard} tasks")
    return {"round": found.number}
