"""How the default round and FreeAL's published round differ: targets, demonstrations, labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from backend.label_model.label_tables import (
    LabelTable,
    aggregated_table,
    combined_table,
    with_table,
)
from backend.label_model.labels_matrix import AggregatedMatrix, rows_by_id
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.pool import Pool

_N_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class StudentTargets:
    """Training targets, and which rows are people's (n,)."""

    labels: LabelTable
    is_human: NDArray[np.bool_]


@dataclass(frozen=True)
class RoundRecipe:
    """What a round trains on, demonstrates and makes its labels of: the best that was measured.

    Every method is about one question, whatever its kind. `student_key` names the array of a
    training that holds the student's labels for others. `learns_from_people`: human labels are
    training targets and demonstrations. `has_views`: the student sees paraphrases. `has_one_cycle`:
    labels count as stable after the first cycle. `n_shots` in-context examples per prompt; None: as
    the settings say.
    """

    student_key: ClassVar[Literal["cross_fitted", "prediction"]] = "cross_fitted"
    learns_from_people: ClassVar[bool] = True
    has_views: ClassVar[bool] = False
    has_one_cycle: ClassVar[bool] = False
    tries_demonstrations: ClassVar[bool] = True
    n_shots: ClassVar[int | None] = None

    ensemble: AnnotatorEnsemble

    def targets(self, pool: Pool, question: Question) -> StudentTargets:
        """Return aggregated labels; texts that the LLM was never asked about have none.

        Neither have texts beside whose other answers the question is not shown.
        """
        pool, people = pool.restrict(question), pool.human_table(question)
        labels = self._aggregated(pool, question, self.ensemble.fit(pool, is_saved=False))
        labels = labels.overlay(people.has_label, people)
        matrix = pool.matrices[question.name]
        relabeled = combined_table(question, matrix, AnnotatorKind.LLM_DEMONSTRATIONS).has_label
        is_unlabeled = np.isin(pool.example_ids, list(pool.not_sampled_ids))
        is_dropped = (is_unlabeled & ~relabeled) | ~pool.is_shown(question)
        is_dropped &= ~people.has_label
        return StudentTargets(labels.without(is_dropped), people.has_label)

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
    ) -> tuple[AggregatedMatrix, EnsembleState | None]:
        """Return the round's labels, of all annotators, and the state to save with them."""
        pool = pool.restrict(question)
        state = self.ensemble.fit(pool, is_saved=False)
        return self.ensemble.aggregate_question(pool, question, state), state

    def held_out(self, pool: Pool, question: Question, labels: LabelTable) -> LabelTable:
        """Return aggregated labels; those of texts with a human label are made without it.

        The label model is fitted without each fifth of the human labels, which is then aggregated.
        The student's labels are cross-fitted already. What stays is that other texts' training
        targets knew all human labels, through the label model's few weights. Cost: 5 fits.
        """
        pool = pool.restrict(question)
        answered = np.flatnonzero(pool.human_table(question).has_label)
        unanswered = pool.without_human(question)
        for fold in range(min(_N_FOLDS, len(answered))):
            rows = answered[fold::_N_FOLDS]
            others = pool.without_human(question, set(pool.example_ids[rows].tolist()))
            state = self.ensemble.fit(others, is_saved=False)
            found = self._aggregated(unanswered, question, state)
            labels = labels.overlay(np.isin(np.arange(len(labels.ids)), rows), found)
        return labels

    def without_human(
        self, pool: Pool, question: Question, is_wanted: Callable[[AnnotatorKind], bool]
    ) -> LabelTable:
        """Return the aggregated labels of annotators of some kinds, human labels left out."""
        matrix = pool.matrices[question.name].select(is_wanted)
        pool = pool.restrict(question).with_matrix(question, matrix).without_human(question)
        return self._aggregated(pool, question, self.ensemble.fit(pool, is_saved=False))

    def without_student(self, pool: Pool, question: Question, labels: LabelTable) -> LabelTable:
        """Return labels made without the student and people, for the student to judge."""
        return self.without_human(pool, question, lambda kind: kind is not AnnotatorKind.STUDENT)

    def _aggregated(self, pool: Pool, question: Question, state: EnsembleState) -> LabelTable:
        matrix = self.ensemble.aggregate_question(pool, question, state)
        return aggregated_table(question, pool.example_ids, matrix)


class PaperRecipe(RoundRecipe):
    """FreeAL as published (arXiv 2311.15614): LLM and student alone, people left out."""

    student_key = "prediction"
    learns_from_people = False
    has_views = True
    has_one_cycle = True
    tries_demonstrations = False
    n_shots = 10

    def targets(self, pool: Pool, question: Question) -> StudentTargets:
        """Return the LLM's newest labels."""
        kinds = (AnnotatorKind.LLM, AnnotatorKind.LLM_DEMONSTRATIONS)
        labels = combined_table(question, pool.matrices[question.name], *kinds)
        return StudentTargets(labels, np.zeros(len(labels.ids), dtype=bool))

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
    ) -> tuple[AggregatedMatrix, EnsembleState | None]:
        """Return the student's labels, the saved label model's elsewhere."""
        pool, matrix = pool.restrict(question), pool.matrices[question.name]
        state = self.ensemble.state(pool.project)
        before = self.ensemble.aggregate_question(pool, question, state)
        student = combined_table(question, matrix, AnnotatorKind.STUDENT)
        name = next(n for n, kind in matrix.kinds.items() if kind is AnnotatorKind.STUDENT)
        is_given = student.has_label
        labels = aggregated_table(question, pool.example_ids, before).overlay(is_given, student)
        own = {
            annotator: np.where(is_given[:, None], np.nan, posteriors)
            for annotator, posteriors in before.annotator_posteriors.items()
        }
        pairs = zip(is_given.tolist(), before.sources, strict=True)
        replaced = replace(
            with_table(before, labels),
            sources=[name if is_student else source for is_student, source in pairs],
            annotator_posteriors=own | dict(matrix.select(_is_student).posteriors),
        )
        return replaced, None

    def held_out(self, pool: Pool, question: Question, labels: LabelTable) -> LabelTable:
        """Return the labels themselves: people's had no part in them."""
        return labels

    def without_student(self, pool: Pool, question: Question, labels: LabelTable) -> LabelTable:
        """Return the labels themselves, as published."""
        return labels


def round_recipes(ensemble: AnnotatorEnsemble) -> dict[RoundRecipeName, RoundRecipe]:
    """Return the recipes by name."""
    return {"default": RoundRecipe(ensemble), "paper": PaperRecipe(ensemble)}


def _is_student(kind: AnnotatorKind) -> bool:
    return kind is AnnotatorKind.STUDENT
