"""A round's training: the small model learns what the jury and people say of the pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import AbstentionReason, WeakLabel
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.domain.rounds import RoundRecipe
from backend.domain.student import (
    FittedStudent,
    PoolTexts,
    Student,
    TrainingHooks,
    TrainingProgress,
    TrainingSet,
)
from backend.pipeline.aggregate import Aggregator, Pool
from backend.pipeline.labels_matrix import posteriors_by_annotator
from backend.pipeline.rounds.artifacts import RoundArtifacts
from backend.pipeline.rounds.context import (
    ActiveRound,
    RoundContext,
    as_votes,
    is_derived,
    question_of,
)
from backend.pipeline.rounds.model_card import Provenance, model_card
from backend.pipeline.rounds.paraphrases import Paraphrases

_LOOK_S = 2.0
StudentFactory = Callable[[RoundRecipe], Student]


@dataclass(frozen=True, slots=True, eq=False)
class StudentTargets:
    """What is believed of a pool before the small model speaks.

    `targets` (n, K) are the jury's posteriors, people's labels as 0 and 1; NaN rows: no label.
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.float64]
    is_human: NDArray[np.bool_]


class TrainStep:
    """Does the `train` step."""

    def __init__(
        self,
        context: RoundContext,
        aggregator: Aggregator,
        make_small_model: StudentFactory,
        wordings: Paraphrases,
    ) -> None:
        self._context = context
        self._aggregator = aggregator
        self._make = make_small_model
        self._wordings = wordings

    def train(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Train on the labels as they are in this cycle, 0 being before any refinement; a step."""
        return self._context.run(project_id, lambda found: self._train(found, cycle))

    def files(self, project_id: ProjectId, number: int) -> RoundArtifacts:
        """Return a round's files."""
        return self._context.files(project_id, number)

    def load(self, folder: Path, recipe: RoundRecipe) -> FittedStudent:
        """Return a small model that a round has trained; raises InvalidRequest."""
        return self._make(recipe).load(folder)

    def _train(self, found: ActiveRound, cycle: int) -> dict[str, int]:
        if found.files.has(f"train-{cycle}"):
            return {"is_trained": 1}
        self._context.note(found, f"train {cycle + 1}", cycle=cycle)
        pool = self._aggregator.pool(found.project)
        question = question_of(pool.guidelines.schema)
        if question is None:
            return {"is_stopped": 1}
        votes = annotator_outputs(pool, question, found.files, cycle)
        believed = self.student_targets(found, pool, question, votes)
        data = _training_set(pool, question, believed)
        if found.is_paper:
            data = replace(data, views=self._wordings.of(pool, question))
        model, output = self._make(found.round.recipe).fit(
            data, seed=found.seed(cycle), hooks=self._hooks(found, cycle)
        )
        today = datetime.now(UTC).date().isoformat()
        made = Provenance(question.name, found.round.number, today)
        model.save(found.files.model(cycle), card=model_card(data, output, made))
        found.files.write(
            f"train-{cycle}",
            ids=believed.ids,
            targets=believed.targets,
            cross_fitted=output.cross_fitted,
            clean=output.label_quality_score,
            prediction=output.prediction.probabilities,
            embeddings=output.prediction.embeddings,
        )
        return {"is_trained": 1, "n_texts": len(believed.ids)}

    def student_targets(
        self, found: ActiveRound, pool: Pool, question: Question, votes: Sequence[WeakLabel]
    ) -> StudentTargets:
        """Fuse votes into targets, without the small model's own.

        A text about which the LLM was never asked has none, unless people answered it. As
        published, the LLM's answers alone are learned, and no label by people.
        """
        ids = np.array([example.id for example in pool.examples], dtype=np.int64)
        if found.is_paper:
            targets = llm_posteriors(pool, question, votes)
            return StudentTargets(ids, targets, np.zeros(len(ids), dtype=bool))
        aggregated, _ = self._aggregator.try_aggregate(pool, votes)
        targets = np.full((len(ids), len(question.labels)), np.nan)
        human = pool.human[question.name]
        unheard = _unasked(votes) - set(human)
        for row, label_out in enumerate(aggregated.of(question)):
            if label_out.probabilities and label_out.example_id not in unheard:
                targets[row] = label_out.probabilities
        return StudentTargets(ids, targets, np.isin(ids, list(human)))

    def _hooks(self, found: ActiveRound, cycle: int) -> TrainingHooks:
        looked_at = 0.0

        def listen(progress: TrainingProgress) -> None:
            nonlocal looked_at
            if time.monotonic() < looked_at + _LOOK_S:
                return
            looked_at = time.monotonic()
            self._context.note(
                found,
                f"train {cycle + 1}",
                cycle=cycle,
                stage=progress.stage,
                epoch=progress.epoch,
                n_epochs=progress.n_epochs,
                loss=round(progress.loss, 4),
            )

        return TrainingHooks(
            on_progress=listen, checkpoints=found.files.checkpoints / f"train-{cycle}"
        )


def annotator_outputs(
    pool: Pool, question: Question, files: RoundArtifacts, cycle: int
) -> list[WeakLabel]:
    """Return the jury's votes, with the LLM's refined answers of this cycle alone."""
    votes = [vote for vote in pool.votes if not is_derived(vote.annotator)]
    refined = files.read(f"votes-{cycle}")
    if refined is None:
        return votes
    name = str(refined["annotator"])
    return votes + as_votes(
        refined["ids"], refined["probabilities"], question, name, version=str(refined["version"])
    )


def llm_posteriors(
    pool: Pool, question: Question, votes: Sequence[WeakLabel]
) -> NDArray[np.float64]:
    """Return the LLM's newest posteriors, (n, K): a refined answer replaces the first one."""
    by_name = posteriors_by_annotator(question, pool.examples, votes)
    found = np.full((len(pool.examples), len(question.labels)), np.nan)
    names = [n for n in by_name if not n.startswith("similarity")]
    for name in sorted(names, key=is_derived):
        is_heard = np.isfinite(by_name[name]).all(axis=1)
        found[is_heard] = by_name[name][is_heard]
    return found


def _unasked(votes: Sequence[WeakLabel]) -> set[int]:
    """Return the examples that the LLM was not asked about, not even in a refinement."""
    silent = {
        vote.example_id
        for vote in votes
        if vote.abstention is not None and vote.abstention.reason is AbstentionReason.NOT_SAMPLED
    }
    return silent - {vote.example_id for vote in votes if is_derived(vote.annotator)}


def _training_set(pool: Pool, question: Question, believed: StudentTargets) -> TrainingSet:
    has_label = np.asarray(np.isfinite(believed.targets).all(axis=1))
    texts = PoolTexts(
        tuple(int(i) for i in believed.ids),
        tuple(example.text_of(question) for example in pool.examples),
    )
    targets = np.where(has_label[:, None], believed.targets, 0.0)
    human = pool.human[question.name]
    rows = np.flatnonzero(believed.is_human)
    targets[rows] = np.eye(len(question.labels))[[human[int(believed.ids[r])] for r in rows]]
    labels = tuple(label.value for label in question.labels)
    data = TrainingSet(texts, labels, targets, has_label, believed.is_human)
    return replace(data, kind=question.kind)
