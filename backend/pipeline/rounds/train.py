"""A round's training: the student learns the pool's labels and is saved with its model card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.domain.labels import AnnotatorKind
from backend.domain.llm_usage import track_usage
from backend.domain.projects import ProjectId
from backend.domain.student import PoolTexts, TrainingHooks, TrainingProgress
from backend.label_model.label_tables import stored_table
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.context import (
    ActiveRound,
    Arrays,
    RoundContext,
    Turn,
    has_other_text,
    text_digests,
)
from backend.pipeline.rounds.students import StudentTrainers, TrainingJob

_NOTE_EVERY_S = 2.0
_NO_PARAPHRASES, _BY_LLM = "", "paraphrase"


@dataclass(frozen=True)
class TrainStep:
    """Does the `train` step."""

    context: RoundContext
    aggregator: Aggregator
    trainers: StudentTrainers
    paraphrases: Paraphrases

    def train(self, project_id: ProjectId, *, turn: Turn) -> dict[str, int]:
        """Train on the labels as they are in this cycle, 0 being before any relabeling; a step."""
        return self.context.run(
            project_id, turn.question, lambda active: self._train(active, turn.cycle)
        )

    def _train(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        if active.files.has(f"train-{cycle}"):
            return {"is_trained": 1}
        self.context.note(active, f"train {cycle + 1}", cycle=cycle)
        pool = pool_of(self.aggregator, active, cycle)
        targets = active.recipe.targets(pool, active.question)
        job = TrainingJob(
            seed=100 * active.round.number + cycle,
            folder=active.files.model(cycle),
            hooks=self._hooks(active, cycle),
            views=self._views(active, pool),
        )
        arrays = self.trainers.of(active.question).train(active, pool, targets, job)
        digests = text_digests(arrays["ids"], pool.tasks)
        active.files.write(f"train-{cycle}", **arrays, digests=digests)
        return {"is_trained": 1, "n_texts": len(pool.examples)}

    def _views(self, active: ActiveRound, pool: Pool) -> tuple[str | None, ...] | None:
        if not active.recipe.has_views or active.question.kind.has_spans:
            return None
        return self.paraphrases.of(pool, PoolTexts.of(active.question, pool.examples).texts)

    def _hooks(self, active: ActiveRound, cycle: int) -> TrainingHooks:
        noted_at = 0.0

        def note(progress: TrainingProgress) -> None:
            nonlocal noted_at
            if time.monotonic() < noted_at + _NOTE_EVERY_S:
                return
            noted_at = time.monotonic()
            self.context.note(
                active,
                f"train {cycle + 1}",
                cycle=cycle,
                stage=progress.stage,
                epoch=progress.epoch,
                n_epochs=progress.n_epochs,
                loss=round(progress.loss, 4),
            )

        # what a training needs to go on after a kill
        checkpoints = active.files.folder / "checkpoints" / f"train-{cycle}"
        return TrainingHooks(on_progress=note, checkpoints=checkpoints)


@dataclass(frozen=True)
class Paraphrases:
    """Second wordings by the LLM ("paraphrase"), from a field of the tasks, or none ("")."""

    source: str
    paraphrase: Callable[[Sequence[str]], Sequence[str | None]]

    def of(self, pool: Pool, texts: Sequence[str]) -> tuple[str | None, ...] | None:
        """Return a second wording of each text, None for one without; None when there are none.

        Asks the LLM once in a text's life: its answers are kept. Raises LanguageModelError.
        """
        if self.source == _NO_PARAPHRASES:
            return None
        if self.source == _BY_LLM:
            with track_usage(pool.project.id, "rewording"):
                return tuple(self.paraphrase(texts))
        given = [task.data.get(self.source) for task in pool.tasks]
        return tuple(view if isinstance(view, str) else None for view in given)


def pool_of(aggregator: Aggregator, active: ActiveRound, cycle: int) -> Pool:
    """Return the pool with the LLM's labels of this cycle as those of another annotator."""
    return with_votes(aggregator, active, active.files.read(f"votes-{cycle}"))


def with_votes(aggregator: Aggregator, active: ActiveRound, votes: Arrays | None) -> Pool:
    """Return the pool with labels that the LLM gave with demonstrations; None: without any."""
    pool, question = aggregator.pool(active.project, has_round_labels=False), active.question
    if votes is None:
        return pool
    labels = stored_table(question, votes).align(pool.example_ids)
    labels = labels.without(has_other_text(votes, pool))
    name, version = str(votes["annotator"]), str(votes["version"])
    return pool.with_annotator(question, labels, name, AnnotatorKind.LLM_DEMONSTRATIONS, version)
