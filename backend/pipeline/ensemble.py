"""All annotators of a project together with the label model that aggregates their labels."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    Example,
    PromptContext,
    Span,
    WeakLabel,
)
from backend.domain.ports import Encoder, PoolAnnotator
from backend.domain.projects import Project
from backend.domain.questions import Question
from backend.errors import LanguageModelError, LanguageModelUnavailable
from backend.label_model import multilabel
from backend.label_model.capable import CapableLLM
from backend.label_model.labels_matrix import AggregatedMatrix, LabelsMatrix, has_label
from backend.label_model.single_label import (
    COMBINATION,
    HUMAN,
    LabelModel,
    aggregate,
    fit_label_model,
)
from backend.label_model.spans import SpanModel, aggregate_spans, fit_span_model
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.selection import PromptBudget
from backend.pipeline.llm_prompts import LLMPrompter
from backend.pipeline.origins import stamped
from backend.pipeline.pool import MIN_TEXTS, AggregatedPool, Guidelines, Pool
from backend.pipeline.status import FITTED
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_EARLY = "early_weak_labels"
_MIN_SPAN_ANNOTATORS = 2
_NOT_SAMPLED = Abstention(AbstentionReason.NOT_SAMPLED, "the LLM labels a share of the tasks")


@dataclass(frozen=True, slots=True)
class EnsembleState:
    """What was fitted to a project's texts; JSON in the state store.

    By question: `templates` holds the selected prompt template, `reports` the figures of all,
    `similarity` and `label_model` the fitted parameters, for vectors of `encoder`. `n_texts` texts
    were sampled, with `n_human` human labels. `waits_for_llm`: it is asked about the sample first.
    """

    question_version: str
    templates: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, Any] = field(default_factory=dict)
    similarity: Mapping[str, Any] = field(default_factory=dict)
    label_model: Mapping[str, Any] = field(default_factory=dict)
    n_texts: int = 0
    n_human: int = 0
    encoder: str = ""
    waits_for_llm: bool = False


@dataclass(frozen=True)
class AnnotatorEnsemble:
    """Collects weak labels of all annotators and aggregates them.

    While the LLM cannot be reached, similarity answers alone once it is fitted; the LLM's label is
    an abstention then, and it is asked again later.
    """

    llm: LLMAnnotator
    similarity: PoolAnnotator
    encoder: Encoder
    stores: Stores
    prompts_per_text: float = 1.5

    def state(self, project: Project) -> EnsembleState:
        """Return what is fitted for the present questions; empty before `fit_sample`.

        After a change of the encoder what was fitted to the other one's vectors is left out.
        """
        stored = self.stores.state.current(project, FITTED)
        state = EnsembleState(**stored) if stored else EnsembleState(project.question_version)
        if not state.encoder or state.encoder == self.encoder.name:
            return state
        return replace(state, similarity={}, label_model={}, n_texts=0, encoder="")

    def save_state(self, project: Project, state: EnsembleState) -> None:
        """Make a state the project's."""
        self.stores.state.put(project.id, FITTED, asdict(replace(state, encoder=self.encoder.name)))

    def llm_name(self, *, deadline_s: float | None = None) -> str:
        """Return the LLM's name in weak labels; raises LanguageModelError."""
        return self.llm.name(deadline_s=deadline_s)

    def fit_sample(self, pool: Pool) -> EnsembleState:
        """Select prompt templates and fit similarity and a first label model on a sample.

        The LLM is not asked about spans and free text, where nothing is fitted. Labels of texts
        that people have answered are kept (`early_weak_labels`): no chunk will label them, and
        without weak labels their human labels would teach the label model nothing.

        Raises:
            LanguageModelError: The LLM cannot be reached; what needs no LLM is saved before.
        """
        project, human = pool.project, pool.human
        similarity = {
            q.name: self.similarity.learn(q, pool.examples, human.get(q.name, {}))
            for q in pool.questions
        }
        choices = tuple(q for q in pool.questions if _has_label_model(q))
        before = self.state(project)
        state = replace(
            before,
            similarity=similarity,
            n_texts=len(pool.examples),
            n_human=sum(map(len, human.values())),
            waits_for_llm=bool(choices) and not before.templates,
        )
        self.save_state(project, state)
        if not choices:
            return state
        pool = pool.restrict(*choices)
        state = replace(self._select_prompts(pool, state), waits_for_llm=False)
        labels = self._label(state, pool.guidelines, pool.examples)
        copied = ("example_id", "question", "annotator", "annotator_kind", "prompt_version")
        rows = [
            {name: getattr(label, name) for name in copied}
            | {"probabilities": list(label.probabilities)}
            for label in labels
            if label.example_id in pool.human_ids and label.probabilities
        ]
        stored = {"question_version": project.question_version, "labels": rows}
        self.stores.state.put(project.id, _EARLY, stored)
        return self.fit(pool.with_weak_labels(labels), state)

    def fit(
        self, pool: Pool, state: EnsembleState | None = None, *, is_saved: bool = True
    ) -> EnsembleState:
        """Fit the label model of every question to the pool's weak and human labels.

        All human labels of the pool count, those of the queue's choice by their margin's share in
        the pool (docs/algorithms.md). How often each label of a multiple choice holds is estimated
        over the whole pool, so that a queue that prefers rare labels does not raise it.

        Args:
            state: The templates and similarity that it belongs to; None: those saved.
            is_saved: Whether the result becomes the project's.
        """
        state = state or self.state(pool.project)
        fitted = dict(state.label_model)
        for question in pool.questions:
            label_model = self._fit_label_model(pool, question, state)
            if label_model is not None:
                fitted[question.name] = label_model.to_json()
        n_human = sum(len(labels) for labels in pool.human.values())
        state = replace(state, label_model=fitted, n_human=n_human)
        if is_saved:
            self.save_state(pool.project, state)
        return state

    def collect(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        *,
        deadline_s: float | None = None,
        not_sampled: Collection[int] = (),
    ) -> list[WeakLabel]:
        """Return the weak labels of the LLM and similarity on all questions.

        Args:
            deadline_s: Seconds after which the LLM's answer is not waited for.
            not_sampled: Ids of examples that the LLM is not asked about.

        Raises:
            LanguageModelError: The LLM cannot be reached and no other annotator can answer.
        """
        state = self.state(project)
        asked = [example for example in examples if example.id not in not_sampled]
        labels = self._label(state, guidelines, asked, deadline_s)
        if len(asked) == len(examples):
            return labels
        others = [example for example in examples if example.id in not_sampled]
        abstentions = _llm_abstentions(guidelines, others, _NOT_SAMPLED)
        return [*labels, *abstentions, *self._by_similarity(state, guidelines, others)]

    def label_by_similarity(
        self, project: Project, guidelines: Guidelines, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return the weak labels of similarity alone, which takes milliseconds."""
        return self._by_similarity(self.state(project), guidelines, examples)

    def early_weak_labels(self, project: Project) -> list[WeakLabel]:
        """Return the labels of texts that people had answered before `fit_sample`."""
        stored = self.stores.state.current(project, _EARLY)
        labels = []
        for row in (stored or {}).get("labels", ()):
            kind = AnnotatorKind(row["annotator_kind"])
            values = row | {"annotator_kind": kind, "probabilities": tuple(row["probabilities"])}
            labels.append(WeakLabel(**values))
        return labels

    def label_with_demonstrations(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        context: PromptContext,
    ) -> list[WeakLabel]:
        """Return the LLM's labels, prompted with in-context examples; raises LanguageModelError."""
        context = replace(context, templates=self.state(project).templates)
        return self.llm.annotate(
            guidelines.schema, guidelines.instruction, examples, prompt_context=context
        )

    def aggregate(self, pool: Pool, state: EnsembleState | None = None) -> AggregatedPool:
        """Return one label per example and question; `state` None: the saved one."""
        state = state or self.state(pool.project)
        matrices = {q.name: self.aggregate_question(pool, q, state) for q in pool.questions}
        return AggregatedPool.of(pool, matrices)

    def aggregate_question(
        self, pool: Pool, question: Question, state: EnsembleState
    ) -> AggregatedMatrix:
        """Return the aggregated posteriors on one question, human labels being certain."""
        matrix = pool.matrices[question.name]
        fitted = state.label_model.get(question.name)
        if question.kind.has_spans:
            return _aggregate_spans(matrix, fitted, pool.human_spans.get(question.name, {}))
        if question.kind.is_multilabel and matrix.posteriors:
            return _aggregate_multilabel(matrix, fitted)
        if fitted is None or not matrix.posteriors or not _has_label_model(question):
            return AggregatedMatrix(matrix.first(), [None] * len(pool.examples), {})
        row_of = {example.id: row for row, example in enumerate(pool.examples)}
        human = pool.human.get(question.name, {})
        result = aggregate(
            matrix.posteriors,
            LabelModel.from_json(fitted),
            embeddings=self.embed(question, pool.examples).astype(float),
            human={row_of[i]: label for i, label in human.items() if i in row_of},
        )
        is_given = np.array([source == HUMAN for source in result.sources], dtype=bool)
        for own in result.annotator_posteriors.values():
            is_given |= has_label(own)
        sources = [s if given else None for s, given in zip(result.sources, is_given, strict=True)]
        probabilities = np.where(is_given[:, None], result.probabilities, matrix.first())
        return AggregatedMatrix(probabilities, sources, result.annotator_posteriors)

    def embed(self, question: Question, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Return one unit vector (n, d) per example for the texts that a question is about."""
        return self.encoder.embed([example.text_of(question) for example in examples])

    def _select_prompts(self, pool: Pool, state: EnsembleState) -> EnsembleState:
        usable = [e for e in pool.examples if not e.missing]
        if len(usable) < MIN_TEXTS:
            return state
        n_tasks = max(len(usable), self.stores.tasks.counts(pool.project.id)[0])
        others = self._by_similarity(state, pool.guidelines, usable)
        budget = PromptBudget(n_tasks, self.prompts_per_text)
        reports = LLMPrompter(self.llm).select(pool, usable, others, budget)
        return replace(
            state,
            templates={name: report.chosen for name, report in reports.items()},
            reports={name: report.to_json() for name, report in reports.items()},
        )

    def _label(
        self,
        state: EnsembleState,
        guidelines: Guidelines,
        examples: Sequence[Example],
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        by_similarity = self._by_similarity(state, guidelines, examples)
        try:
            if state.waits_for_llm:
                raise LanguageModelUnavailable("the LLM did not answer when it was first asked")
            by_llm = LLMPrompter(self.llm, state.reports).label(
                guidelines, examples, deadline_s=deadline_s
            )
        except LanguageModelError as exc:
            if not by_similarity:
                raise
            _LOG.warning("the LLM does not answer, similarity does: %s", exc)
            by_llm = llm_unreachable(guidelines, examples, exc)
        return [*stamped(guidelines, by_llm), *by_similarity]

    def _by_similarity(
        self, state: EnsembleState, guidelines: Guidelines, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        if not state.similarity:
            return []
        similarity = self.similarity.recall(state.similarity)
        labels = similarity.annotate(guidelines.schema, guidelines.instruction, examples)
        return stamped(guidelines, [label for label in labels if label.abstention is None])

    def _fit_label_model(
        self, pool: Pool, question: Question, state: EnsembleState
    ) -> LabelModel | multilabel.MultilabelModel | SpanModel | None:
        if question.kind.has_spans:
            return _fit_span_model(pool, question)
        matrix = pool.matrices[question.name]
        posteriors, kinds = matrix.posteriors, matrix.kinds
        n_labeled = max((int(np.isfinite(p[:, 0]).sum()) for p in posteriors.values()), default=0)
        if not _has_label_model(question) or n_labeled < MIN_TEXTS:
            return None
        row_of = {example.id: row for row, example in enumerate(pool.examples)}
        if question.kind.is_multilabel:
            sets = pool.human_sets.get(question.name, {}).items()
            known_sets = {row_of[i]: labels for i, labels in sets if i in row_of}
            return multilabel.fit_multilabel_model(posteriors, known_sets, matrix.students)
        human = pool.human.get(question.name, {})
        known = {row_of[i]: label for i, label in human.items() if i in row_of}
        embeddings = self.embed(question, pool.examples).astype(float)
        capable = CapableLLM.of(kinds, state.reports.get(question.name))
        return fit_label_model(posteriors, embeddings, known, capable=capable)


def _aggregate_multilabel(
    matrix: LabelsMatrix, fitted: Mapping[str, Any] | None
) -> AggregatedMatrix:
    posteriors = matrix.posteriors
    model = multilabel.MultilabelModel.from_json(fitted) if fitted else None
    is_given = {name: has_label(p) for name, p in posteriors.items()}
    by_row = [[n for n in posteriors if is_given[n][row]] for row in range(len(matrix.example_ids))]
    sources = [
        None if not names else COMBINATION if len(names) > 1 else names[0] for names in by_row
    ]
    aggregated = multilabel.aggregate_multilabel(posteriors, model)
    is_any = np.any(list(is_given.values()), axis=0)[:, None]
    return AggregatedMatrix(np.where(is_any, aggregated, np.nan), sources, posteriors)


def _fit_span_model(pool: Pool, question: Question) -> SpanModel | None:
    """Fit the rates of annotators of spans; one alone has nobody to be compared with."""
    spans = pool.matrices[question.name].spans
    n_answers = [sum(row is not None for row in rows) for rows in spans.values()]
    if len(spans) < _MIN_SPAN_ANNOTATORS or max(n_answers) < MIN_TEXTS:
        return None
    people = pool.human_spans.get(question.name, {})
    rows = enumerate(pool.example_ids.tolist())
    return fit_span_model(spans, {row: people[i] for row, i in rows if i in people})


def _aggregate_spans(
    matrix: LabelsMatrix, fitted: Mapping[str, Any] | None, people: Mapping[int, tuple[Span, ...]]
) -> AggregatedMatrix:
    """Return the annotators' spans in one, people's being certain; the LLM's without a model."""
    n_rows = len(matrix.example_ids)
    empty = np.full((n_rows, matrix.n_labels), np.nan)
    if fitted is None:
        return AggregatedMatrix(
            empty, [None] * n_rows, {}, matrix.combined_spans(AnnotatorKind.LLM)
        )
    found, certainties = aggregate_spans(matrix.spans, SpanModel.from_json(fitted))
    spans, sources = list(found), [_source_of(matrix, row) for row in range(n_rows)]
    for row, example_id in enumerate(matrix.example_ids.tolist()):
        if example_id in people:
            spans[row], certainties[row], sources[row] = people[example_id], 1.0, HUMAN
    kept = [None if own is None else source for own, source in zip(spans, sources, strict=True)]
    return AggregatedMatrix(empty, kept, {}, tuple(spans), certainties)


def _source_of(matrix: LabelsMatrix, row: int) -> str | None:
    names = [name for name, rows in matrix.spans.items() if rows[row] is not None]
    return None if not names else COMBINATION if len(names) > 1 else names[0]


def llm_unreachable(
    guidelines: Guidelines, examples: Sequence[Example], error: LanguageModelError
) -> list[WeakLabel]:
    """Return abstentions that the LLM is asked again about."""
    unreachable = Abstention(AbstentionReason.UNREACHABLE, str(error))
    return _llm_abstentions(guidelines, examples, unreachable)


def _llm_abstentions(
    guidelines: Guidelines, examples: Sequence[Example], why: Abstention
) -> list[WeakLabel]:
    """Return what stands for the LLM's answers where there are none."""
    return [
        WeakLabel(example.id, question.name, "llm", "none", abstention=why)
        for example in examples
        for question in guidelines.schema.questions
    ]


def _has_label_model(question: Question) -> bool:
    """Return whether labels on a question are posteriors over at least two labels."""
    return question.kind.has_posterior and len(question.labels) > 1
