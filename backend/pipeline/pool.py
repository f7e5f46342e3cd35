"""A project as annotators and the label model see it: questions, texts, human and weak labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.domain.definitions import Definitions, with_definitions
from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import AbstentionReason, AnnotatorKind, Example, Span, WeakLabel
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project, Task
from backend.domain.questions import Question, TaskSchema
from backend.label_model.crowd import (
    Consensus,
    HumanAnswer,
    PersonAgreement,
    estimate_consensus,
    is_evidence,
)
from backend.label_model.label_tables import LabelTable, Posteriors, SpanTable
from backend.label_model.labels_matrix import AggregatedMatrix, LabelsMatrix, first_labels
from backend.store import Stores

T = TypeVar("T")

MIN_TEXTS = 20
"""Texts under which neither a label model is fitted nor a round is made."""
N_SAMPLED = 400


@dataclass(frozen=True, slots=True)
class Guidelines:
    """What annotators are told: the questions and the instruction."""

    schema: TaskSchema
    instruction: str

    def restrict(self, *questions: Question) -> Guidelines:
        """Return the guidelines of some questions alone."""
        return replace(self, schema=replace(self.schema, questions=questions))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Tasks of a project with what people and annotators say about them, ascending by id.

    `tasks` and `examples` share their order. By question and example id, `human` holds the class
    index of each exclusive question, `human_sets` the positions of all labels that hold of each
    multiple choice, `human_spans` the spans. The answers to the random holdout are not among them
    but in `held_out`: nothing learns from them or is chosen by them, so that they can measure and
    certify all of it. `human_ids` are the examples with an answer to any question, `people` how
    they agree. `matrices` and `first_labels` are the weak labels by question. The LLM was not asked
    about `not_sampled_ids`, and by question not about `not_shown_ids`: answers to others hide it.
    """

    project: Project
    guidelines: Guidelines
    tasks: Sequence[Task]
    examples: Sequence[Example]
    human: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    human_sets: Mapping[str, Mapping[int, frozenset[int]]] = field(default_factory=dict)
    human_spans: Mapping[str, Mapping[int, tuple[Span, ...]]] = field(default_factory=dict)
    held_out: Mapping[str, Consensus] = field(default_factory=dict)
    human_ids: frozenset[int] = frozenset()
    people: Mapping[str, tuple[PersonAgreement, ...]] = field(default_factory=dict)
    matrices: Mapping[str, LabelsMatrix] = field(default_factory=dict)
    first_labels: Mapping[str, Mapping[int, WeakLabel]] = field(default_factory=dict)
    not_sampled_ids: frozenset[int] = frozenset()
    not_shown_ids: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def questions(self) -> tuple[Question, ...]:
        """Return the questions in the order of the label config."""
        return self.guidelines.schema.questions

    @property
    def example_ids(self) -> NDArray[np.int64]:
        """Return the examples' ids (n,)."""
        return np.array([example.id for example in self.examples], dtype=np.int64)

    def with_weak_labels(self, weak_labels: Sequence[WeakLabel]) -> Pool:
        """Return the pool with the labels of annotators; aggregated ones are left out."""
        by_question: dict[str, list[WeakLabel]] = {q.name: [] for q in self.questions}
        for label in weak_labels:
            if label.annotator_kind is not AnnotatorKind.AGGREGATED:
                by_question.setdefault(label.question, []).append(label)
        return replace(
            self,
            matrices={
                q.name: LabelsMatrix.read(q, self.examples, by_question[q.name])
                for q in self.questions
            },
            first_labels={q.name: first_labels(q, by_question[q.name]) for q in self.questions},
            not_sampled_ids=_abstained(weak_labels, AbstentionReason.NOT_SAMPLED),
            not_shown_ids={
                q.name: _abstained(by_question[q.name], AbstentionReason.NOT_SHOWN)
                for q in self.questions
            },
        )

    def is_shown(self, question: Question) -> NDArray[np.bool_]:
        """Return for which examples (n,) a question is shown beside the answers to others."""
        hidden = self.not_shown_ids.get(question.name, frozenset())
        return ~np.isin(self.example_ids, list(hidden))

    def select(self, rows: Sequence[int]) -> Pool:
        """Return the pool with some of its examples alone, before it has weak labels."""
        return replace(
            self,
            tasks=[self.tasks[at] for at in rows],
            examples=[self.examples[at] for at in rows],
        )

    def restrict(self, *questions: Question) -> Pool:
        """Return the pool with some of its questions alone."""
        return replace(self, guidelines=self.guidelines.restrict(*questions))

    def with_matrix(self, question: Question, matrix: LabelsMatrix) -> Pool:
        """Return the pool with other weak labels on one question."""
        return replace(self, matrices={**self.matrices, question.name: matrix})

    def human_table(self, question: Question) -> LabelTable:
        """Return people's labels that teach, in the pool's order, certain where there are any."""
        name = question.name
        return _certain_table(
            question,
            self.example_ids,
            {i: frozenset({at}) for i, at in self.human.get(name, {}).items()}
            | dict(self.human_sets.get(name, {})),
            self.human_spans.get(name, {}),
        )

    def holdout_table(self, question: Question) -> LabelTable:
        """Return people's labels of the random holdout, in the pool's order."""
        found = self.held_out.get(question.name, Consensus({}))
        single = {i: frozenset({at}) for i, at in class_indices(question, found).items()}
        sets = single | dict(label_positions(question, found))
        return _certain_table(question, self.example_ids, sets, human_spans(question, found))

    def every_human_table(self, question: Question) -> LabelTable:
        """Return people's labels, those of the random holdout too."""
        held_out = self.holdout_table(question)
        return self.human_table(question).overlay(held_out.has_label, held_out)

    def with_annotator(
        self, question: Question, labels: LabelTable, name: str, kind: AnnotatorKind, version: str
    ) -> Pool:
        """Return the pool with one more annotator's labels on a question."""
        labels = labels.align(self.example_ids)
        matrix = labels.joined_to(self.matrices[question.name], name, kind, version)
        return self.with_matrix(question, matrix)

    def without_human(self, question: Question, ids: Collection[int] | None = None) -> Pool:
        """Return the pool as if people had not answered a question about these examples, or any."""

        def left(answers: Mapping[str, Mapping[int, T]]) -> dict[str, Mapping[int, T]]:
            own = answers.get(question.name, {})
            kept = {} if ids is None else {i: one for i, one in own.items() if i not in ids}
            return {**answers, question.name: kept}

        return replace(
            self,
            human=left(self.human),
            human_sets=left(self.human_sets),
            human_spans=left(self.human_spans),
        )


@dataclass(frozen=True, slots=True, eq=False)
class AggregatedPool:
    """A pool with one aggregated label per example and question, in the pool's order."""

    pool: Pool
    matrices: Mapping[str, AggregatedMatrix]
    labels: Sequence[WeakLabel]

    @classmethod
    def of(cls, pool: Pool, matrices: Mapping[str, AggregatedMatrix]) -> AggregatedPool:
        """Return the pool with one weak label per example and question."""
        columns = [
            matrices[q.name].weak_labels(q, pool.examples, pool.first_labels[q.name])
            for q in pool.questions
        ]
        labels = [label for of_example in zip(*columns, strict=True) for label in of_example]
        return cls(pool, matrices, labels)

    def keep(
        self, served: Sequence[WeakLabel], is_kept: Callable[[WeakLabel], bool]
    ) -> AggregatedPool:
        """Return the pool with the served labels in place of some, where there are any.

        The annotators' posteriors stay those of this pool, so that the queue uses them.
        """
        known = {(label.example_id, label.question): label for label in served}
        labels = [
            replace(
                known.get((label.example_id, label.question), label),
                annotator_posteriors=label.annotator_posteriors,
            )
            if is_kept(label)
            else label
            for label in self.labels
        ]
        matrices = {
            q.name: _with_posteriors(self.matrices[q.name], q, labels) for q in self.pool.questions
        }
        return AggregatedPool(self.pool, matrices, labels)

    def posteriors(self, question: Question) -> NDArray[np.float64]:
        """Return the aggregated posteriors (n, K) of a question, NaN rows without a label."""
        return self.matrices[question.name].probabilities


@dataclass(frozen=True)
class GuidelinesReader:
    """Reads a project's guidelines, its examples and what people answered.

    Texts beyond `max_text_chars` are cut before any annotator or model reads them.
    """

    config: ConfigReader
    stores: Stores
    definitions: Callable[[int], Definitions] = lambda platform_id: Definitions()
    max_text_chars: int = 200_000

    def read(self, project: Project) -> Guidelines:
        """Return the guidelines; raises UnsupportedLabelConfig."""
        definitions = self.definitions(project.platform_id)
        schema = with_definitions(self.config.read_schema(project.label_config), definitions.labels)
        return Guidelines(schema, definitions.instruct(project.instruction))

    def examples(self, guidelines: Guidelines, tasks: Sequence[Task]) -> list[Example]:
        """Return the tasks' texts, in order."""
        examples = (self.config.read_example(guidelines.schema, task) for task in tasks)
        return [example.truncate(self.max_text_chars) for example in examples]

    def consensus(
        self, project: Project, guidelines: Guidelines, *, has_holdout: bool = True
    ) -> dict[str, Consensus]:
        """Return people's consensus by question: one label per task that has an answer.

        Without the random holdout's answers it is as if they had not been given.
        """
        tasks, seed = self.stores.tasks, holdout_seed(project.id)
        labels = [
            label
            for label in tasks.human_labels(project.id)
            if is_evidence(label) and (has_holdout or not in_holdout(label.task_id, seed=seed))
        ]
        ids = sorted({label.task_id for label in labels})
        data = {task.id: task.data for task in tasks.get(project.id, ids)}
        answers: dict[str, list[HumanAnswer]] = {q.name: [] for q in guidelines.schema.questions}
        for label in labels:
            if label.task_id not in data:
                continue
            given = self.config.read_answers(guidelines.schema, label.result, data[label.task_id])
            for name, answer in given.items():
                answers[name].append(HumanAnswer(label, answer))
        return {
            question.name: estimate_consensus(question, answers[question.name])
            for question in guidelines.schema.questions
        }

    def pool(self, project: Project, *, is_sample: bool = False) -> Pool:
        """Return the whole pool or a sample of it, without weak labels.

        A sample is up to 400 tasks, evenly spread over the ids, and those that people answered.
        """
        guidelines = self.read(project)
        everybody = self.consensus(project, guidelines)
        human_ids = frozenset(i for found in everybody.values() for i in found.labels)
        ids = self.stores.tasks.ids(project.id)
        if is_sample:
            spread = ids[:: max(1, -(-len(ids) // N_SAMPLED))]
            ids = sorted({*sorted(human_ids & set(ids))[:N_SAMPLED], *spread})
        tasks = self.stores.tasks.get(project.id, ids)
        questions = guidelines.schema.questions
        consensus = self.consensus(project, guidelines, has_holdout=False)
        return Pool(
            project,
            guidelines,
            tasks,
            self.examples(guidelines, tasks),
            held_out={name: _only_holdout(project, one) for name, one in everybody.items()},
            human={q.name: class_indices(q, consensus[q.name]) for q in questions},
            human_sets={q.name: label_positions(q, consensus[q.name]) for q in questions},
            human_spans={q.name: human_spans(q, consensus[q.name]) for q in questions},
            human_ids=human_ids,
            people={q.name: everybody[q.name].people for q in questions},
        )


def _abstained(weak_labels: Sequence[WeakLabel], reason: AbstentionReason) -> frozenset[int]:
    """Return the ids of examples with an abstention for this reason."""
    return frozenset(
        label.example_id
        for label in weak_labels
        if label.abstention and label.abstention.reason is reason
    )


def _only_holdout(project: Project, consensus: Consensus) -> Consensus:
    seed = holdout_seed(project.id)
    rows = consensus.labels.items()
    return replace(consensus, labels={i: one for i, one in rows if in_holdout(i, seed=seed)})


def _certain_table(
    question: Question,
    ids: NDArray[np.int64],
    sets: Mapping[int, frozenset[int]],
    spans: Mapping[int, tuple[Span, ...]],
) -> LabelTable:
    """Return answers as a table: positions of labels by example id, or spans."""
    if question.kind.has_spans:
        return SpanTable(ids, tuple(spans.get(int(i)) for i in ids))
    posteriors = np.full((len(ids), len(question.labels)), np.nan)
    for row, example_id in enumerate(ids.tolist()):
        if example_id in sets:
            posteriors[row] = 0.0
            posteriors[row, sorted(sets[example_id])] = 1.0
    return Posteriors(ids, posteriors, question.kind.is_exclusive)


def class_indices(question: Question, consensus: Consensus) -> Mapping[int, int]:
    """Return people's answers to an exclusive question as class indices by example id."""
    if not question.kind.is_exclusive:
        return {}
    index = {label.value: at for at, label in enumerate(question.labels)}
    return {
        example_id: index[label.answer.labels[0]]
        for example_id, label in consensus.labels.items()
        if label.answer.labels and label.answer.labels[0] in index
    }


def label_positions(question: Question, consensus: Consensus) -> Mapping[int, frozenset[int]]:
    """Return people's answers to a multiple choice as positions of labels by example id."""
    if not question.kind.is_multilabel:
        return {}
    index = {label.value: at for at, label in enumerate(question.labels)}
    return {
        example_id: frozenset(index[value] for value in label.answer.labels if value in index)
        for example_id, label in consensus.labels.items()
    }


def human_spans(question: Question, consensus: Consensus) -> Mapping[int, tuple[Span, ...]]:
    """Return people's answers to a question about spans by example id."""
    if not question.kind.has_spans:
        return {}
    return {example_id: label.answer.spans for example_id, label in consensus.labels.items()}


def _with_posteriors(
    matrix: AggregatedMatrix, question: Question, labels: Sequence[WeakLabel]
) -> AggregatedMatrix:
    """Return aggregated labels with the posteriors of weak labels in their place."""
    missing = (np.nan,) * len(question.labels)
    rows = [label.probabilities or missing for label in labels if label.question == question.name]
    posteriors = np.array(rows, dtype=np.float64).reshape(len(rows), len(question.labels))
    return replace(matrix, probabilities=posteriors)
