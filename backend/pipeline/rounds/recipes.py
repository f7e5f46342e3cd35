"""How the default round and FreeAL's published round differ: targets, demonstrations, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.pool_selection import (
    PoolEvidence,
    pool_size_per_class,
    select_pool,
    select_pool_paper,
)
from backend.demonstrations.retrieval import (
    DemonstrationPool,
    Retrieval,
    Texts,
    retrieve,
    retrieve_paper,
)
from backend.domain.labels import AnnotatorKind
from backend.domain.questions import Question
from backend.domain.rounds import RoundRecipeName
from backend.label_model.labels_matrix import AggregatedMatrix, LabelsMatrix, has_label, rows_by_id
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.pool import AggregatedPool, Pool

Floats = NDArray[np.float64]
_N_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class StudentTargets:
    """Training targets (n, K), NaN rows without a label, and which rows are people's (n,)."""

    targets: Floats
    is_human: NDArray[np.bool_]


@dataclass(frozen=True)
class RoundRecipe:
    """What a round trains on, demonstrates and makes its labels of: the best that was measured.

    `student_key` names the array of a training that holds the student's posteriors for others.
    `learns_from_people`: human labels are training targets and demonstrations. `has_views`: the
    student sees paraphrases. `has_one_cycle`: labels count as stable after the first cycle.
    `n_shots` in-context examples per prompt; None: as the settings say.
    """

    student_key: ClassVar[Literal["cross_fitted", "prediction"]] = "cross_fitted"
    learns_from_people: ClassVar[bool] = True
    has_views: ClassVar[bool] = False
    has_one_cycle: ClassVar[bool] = False
    n_shots: ClassVar[int | None] = None

    ensemble: AnnotatorEnsemble

    def targets(self, pool: Pool, question: Question) -> StudentTargets:
        """Return aggregated posteriors; texts that the LLM was never asked about have none."""
        matrix, human = pool.matrices[question.name], pool.human[question.name]
        only = pool.restrict(question)
        state = self.ensemble.fit(only, is_saved=False)
        targets = self.ensemble.aggregate_question(only, question, state).probabilities.copy()
        relabeled = has_label(matrix.combined(AnnotatorKind.LLM_DEMONSTRATIONS))
        is_human = np.isin(matrix.example_ids, list(human))
        is_unlabeled = np.isin(matrix.example_ids, list(pool.not_sampled_ids))
        targets[is_unlabeled & ~relabeled & ~is_human] = np.nan
        return StudentTargets(targets, is_human)

    def embeddings(
        self, pool: Pool, question: Question, trained: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float32]:
        """Return unit vectors (n, d) by which demonstrations are chosen: the encoder's."""
        return self.ensemble.embed(question, pool.examples)

    def select_demonstrations(self, evidence: PoolEvidence, n_shots: int) -> list[NDArray[np.intp]]:
        """Return the rows of each class's demonstrations, enough that none is in every prompt."""
        n_classes = evidence.is_candidate.shape[1]
        return select_pool(evidence, pool_size_per_class(n_classes, n_shots))

    def retrieve(
        self, texts: Texts, pool: DemonstrationPool, n_shots: int, rng: np.random.Generator
    ) -> Retrieval:
        """Return near demonstrations, balanced over classes, none in too many prompts."""
        return retrieve(texts, pool, n_shots, rng=rng)

    def aggregate(
        self, pool: Pool, question: Question
    ) -> tuple[AggregatedPool, EnsembleState | None]:
        """Return the round's labels, of all annotators, and the state to save with them."""
        state = self.ensemble.fit(pool, is_saved=False)
        return self.ensemble.aggregate(pool, state), state

    def held_out(self, aggregated: AggregatedPool, question: Question) -> Floats:
        """Return posteriors (n, K); those of texts with a human label are made without it.

        The label model is fitted without each fifth of the human labels, which is then aggregated.
        The student's posteriors are cross-fitted already. What stays is that other texts' training
        targets knew all human labels, through the label model's few weights. Cost: 5 fits.
        """
        pool = aggregated.pool.restrict(question)
        held_out = aggregated.posteriors(question).copy()
        human = pool.human[question.name]
        row_of = {int(i): row for row, i in enumerate(pool.example_ids)}
        answered = sorted(set(human) & set(row_of))
        for fold in range(min(_N_FOLDS, len(answered))):
            ids = answered[fold::_N_FOLDS]
            others = {i: label for i, label in human.items() if i not in set(ids)}
            without_fold = replace(pool, human={**pool.human, question.name: others})
            state = self.ensemble.fit(without_fold, is_saved=False)
            found = self.ensemble.aggregate_question(pool.without_human(), question, state)
            rows = [row_of[i] for i in ids]
            held_out[rows] = found.probabilities[rows]
        return held_out

    def without_human(self, pool: Pool, question: Question, matrix: LabelsMatrix) -> Floats:
        """Return the aggregated posteriors (n, K) of some annotators, human labels left out."""
        pool = pool.restrict(question).with_matrix(question, matrix).without_human()
        state = self.ensemble.fit(pool, is_saved=False)
        return self.ensemble.aggregate_question(pool, question, state).probabilities

    def without_student(self, aggregated: AggregatedPool, question: Question) -> Floats:
        """Return posteriors (n, K) without the student and people, for the student to judge."""
        pool = aggregated.pool
        others = pool.matrices[question.name].select(lambda kind: kind is not AnnotatorKind.STUDENT)
        return self.without_human(pool, question, others)


class PaperRecipe(RoundRecipe):
    """FreeAL as published (arXiv 2311.15614): LLM and student alone, people left out."""

    student_key = "prediction"
    learns_from_people = False
    has_views = True
    has_one_cycle = True
    n_shots = 10

    def targets(self, pool: Pool, question: Question) -> StudentTargets:
        """Return the LLM's newest posteriors."""
        targets = pool.matrices[question.name].combined(
            AnnotatorKind.LLM, AnnotatorKind.LLM_DEMONSTRATIONS
        )
        return StudentTargets(targets, np.zeros(len(targets), dtype=bool))

    def embeddings(
        self, pool: Pool, question: Question, trained: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float32]:
        """Return the student's own vectors, zeros for texts that it was not trained on."""
        rows, is_there = rows_by_id(trained["ids"], pool.example_ids)
        vectors = np.asarray(trained["embeddings"][rows], dtype=np.float32)
        vectors[~is_there] = 0.0
        return vectors

    def select_demonstrations(self, evidence: PoolEvidence, n_shots: int) -> list[NDArray[np.intp]]:
        """Return the medoids of each class's smallest losses."""
        return select_pool_paper(evidence)

    def retrieve(
        self, texts: Texts, pool: DemonstrationPool, n_shots: int, rng: np.random.Generator
    ) -> Retrieval:
        """Return the nearest demonstrations of every class."""
        return retrieve_paper(texts, pool, n_shots)

    def aggregate(
        self, pool: Pool, question: Question
    ) -> tuple[AggregatedPool, EnsembleState | None]:
        """Return the student's posteriors as labels, the saved label model's elsewhere."""
        before = self.ensemble.aggregate(pool)
        matrix, old = pool.matrices[question.name], before.matrices[question.name]
        student = matrix.combined(AnnotatorKind.STUDENT)
        names = [n for n in matrix.posteriors if matrix.kinds[n] is AnnotatorKind.STUDENT]
        is_given = has_label(student)
        own = {
            name: np.where(is_given[:, None], np.nan, posteriors)
            for name, posteriors in old.annotator_posteriors.items()
        }
        replaced = AggregatedMatrix(
            np.where(is_given[:, None], student, old.probabilities),
            [
                names[0] if is_student else source
                for is_student, source in zip(is_given, old.sources, strict=True)
            ],
            own | {name: student for name in names},
        )
        matrices = {**before.matrices, question.name: replaced}
        return AggregatedPool.of(pool, matrices), None

    def held_out(self, aggregated: AggregatedPool, question: Question) -> Floats:
        """Return the labels themselves: people's had no part in them."""
        return aggregated.posteriors(question)

    def without_student(self, aggregated: AggregatedPool, question: Question) -> Floats:
        """Return the labels themselves, as published."""
        return aggregated.posteriors(question)


def round_recipes(ensemble: AnnotatorEnsemble) -> dict[RoundRecipeName, RoundRecipe]:
    """Return the recipes by name."""
    return {"default": RoundRecipe(ensemble), "paper": PaperRecipe(ensemble)}
