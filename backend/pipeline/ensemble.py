"""The jury: the LLM and similarity heard together, each as far as the project bears it out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import holdout_seed, in_holdout
from backend.domain.labels import Abstention, AbstentionReason, Example, PromptContext, WeakLabel
from backend.domain.ports import Encoder, PoolAnnotator
from backend.domain.projects import Project
from backend.domain.questions import Question
from backend.errors import LanguageModelError
from backend.label_model import multilabel
from backend.label_model.multilabel import MultilabelModel, fit_multilabel_model
from backend.label_model.single_label import LabelModel, aggregate, fit_label_model
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.selection import N_SELECTION_TEXTS, TemplateSelector
from backend.pipeline.guidelines import Guidelines
from backend.pipeline.labels_matrix import (
    aggregate_multilabel,
    aggregate_single_label,
    as_aggregated_label,
    heard,
    leading_votes,
    posteriors_by_annotator,
)
from backend.store import Stores

_LOG = logging.getLogger(__name__)
JURY = "label_model"
_EARLY = "early_weak_labels"
MIN_TO_LEARN = 20
_UNASKED = Abstention(AbstentionReason.NOT_SAMPLED, "the LLM labels a share of the tasks")

Human = Mapping[str, Mapping[int, int]]
"""People's answers to exclusive questions: class index by question name and example id."""
HumanSets = Mapping[str, Mapping[int, frozenset[int]]]
"""The same for multiple choice: the positions of all labels that hold."""


@dataclass(frozen=True, slots=True)
class EnsembleState:
    """What was measured on a project's texts; JSON in the state store.

    `templates`: the selected prompt template by question, `reports` their figures. `similarity` and
    `label_model`
    hold what those learned, by question. `n_texts` texts were looked at,
    `n_human` labels by people.
    """

    question_version: str
    templates: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, Any] = field(default_factory=dict)
    similarity: Mapping[str, Any] = field(default_factory=dict)
    label_model: Mapping[str, Any] = field(default_factory=dict)
    n_texts: int = 0
    n_human: int = 0


class AnnotatorEnsemble:
    """Hears every annotator about some examples and fuses their votes.

    What it knows about a project (`EnsembleState`) is fitted by `fit_sample` on a sample of its
    texts and
    by `learn` from all of its votes, and kept between calls. When the LLM cannot be reached and
    similarity has been studied, similarity answers alone; the LLM's vote is an abstention that is
    asked again later.
    """

    def __init__(
        self,
        llm: LLMAnnotator,
        similarity: PoolAnnotator,
        encoder: Encoder,
        stores: Stores,
    ) -> None:
        self._llm = llm
        self._similarity = similarity
        self._encoder = encoder
        self._stores = stores

    def findings(self, project: Project) -> EnsembleState:
        """Return what is known about what the project asks now; empty before `study`."""
        stored = self._stores.state.get(project.id, JURY)
        if not stored or stored["question_version"] != project.question_version:
            return EnsembleState(project.question_version)
        return EnsembleState(**stored)

    def fit_sample(
        self, project: Project, guidelines: Guidelines, examples: Sequence[Example], human: Human
    ) -> EnsembleState:
        """Measure prompt forms, learn similarity's scales and a first trust, on a sample.

        The LLM is asked only where something can be learned: not for spans and free text. Votes on
        texts that people have answered already are kept (`early_votes`): these are never labelled,
        and without votes their answers would teach nothing later on.
        Raises LanguageModelError when the LLM cannot be reached; what needs no LLM is kept then.
        """
        found = self.findings(project)
        found = replace(
            found,
            similarity={
                q.name: self._similarity.learn(q, examples, human.get(q.name, {}))
                for q in guidelines.schema.questions
            },
            n_texts=len(examples),
            n_human=sum(len(labels) for labels in human.values()),
        )
        self._put(project, found)
        taught = tuple(q for q in guidelines.schema.questions if _teaches_trust(q))
        if not taught:
            return found
        guidelines = replace(guidelines, schema=replace(guidelines.schema, questions=taught))
        found = self._measure_forms(guidelines, found, examples, human)
        votes = self._votes(guidelines, found, examples, None)
        self._keep_early(project, votes, {i for labels in human.values() for i in labels})
        return self.learn(project, guidelines, examples, votes, human, found)

    def learn(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        votes: Sequence[WeakLabel],
        human: Human,
        found: EnsembleState | None = None,
        *,
        sets: HumanSets | None = None,
        is_kept: bool = True,
    ) -> EnsembleState:
        """Learn from votes how far each annotator is to be trusted; keep it unless told not to.

        All of people's labels are heard, those of the queue's choice too: they teach as much as
        as many random ones, and ten times as many as the audit slice has (docs/algorithms.md).
        Where several labels may hold, the audit slice alone is: how often each label holds is
        counted there, and the queue prefers the rare ones.
        """
        found = found or self.findings(project)
        label_model = dict(found.label_model)
        for question in guidelines.schema.questions:
            if _teaches_trust(question):
                people: Mapping[int, Any] = human.get(question.name, {})
                if question.kind.is_multilabel:
                    people = _at_random(project, (sets or {}).get(question.name, {}))
                learned = self._fit_label_model(question, examples, votes, people)
                if learned is not None:
                    label_model[question.name] = learned.to_json()
        found = replace(
            found, label_model=label_model, n_human=sum(len(labels) for labels in human.values())
        )
        if is_kept:
            self.keep(project, found)
        return found

    def keep(self, project: Project, found: EnsembleState) -> None:
        """Make these findings the project's."""
        self._put(project, found)

    def collect(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
        unasked: Collection[int] = (),
    ) -> list[WeakLabel]:
        """Return every annotator's votes on all questions about all examples.

        The LLM is not asked about the examples in `unasked`.
        Raises LanguageModelError when the LLM cannot be reached and nobody else can answer.
        """
        found = self.findings(project)
        asked = [example for example in examples if example.id not in unasked]
        votes = self._votes(guidelines, found, asked, deadline_s, prompt_context)
        if len(asked) == len(examples):
            return votes
        others = [example for example in examples if example.id in unasked]
        silent = _silent(guidelines, others, _UNASKED)
        return [*votes, *silent, *self._by_similarity(guidelines, found, others)]

    def early_votes(self, project: Project) -> list[WeakLabel]:
        """Return the votes that `study` kept: on texts that people had answered by then."""
        stored = self._stores.state.get(project.id, _EARLY)
        if not stored or stored["question_version"] != project.question_version:
            return []
        return [
            WeakLabel(**vote | {"probabilities": tuple(vote["probabilities"])})
            for vote in stored["votes"]
        ]

    def ask(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        prompt_context: PromptContext,
    ) -> list[WeakLabel]:
        """Return the LLM's answers alone, with the demonstrations of `prompt_context`.

        Raises LanguageModelError.
        """
        prompt_context = replace(prompt_context, templates=self.findings(project).templates)
        return self._llm.annotate(
            guidelines.schema, guidelines.instruction, examples, prompt_context=prompt_context
        )

    def fuse(
        self,
        project: Project,
        guidelines: Guidelines,
        examples: Sequence[Example],
        votes: Sequence[WeakLabel],
        human: Human | None = None,
        *,
        found: EnsembleState | None = None,
    ) -> list[WeakLabel]:
        """Return one verdict per example and question, example by example in the given order.

        `found` None: under the findings that are kept.
        A verdict's `prompt_version` says where it comes from ("human", "agreement", "combination"
        or the only annotator heard), its `votes` hold everybody's calibrated posterior.
        """
        found = found or self.findings(project)
        by_question = [
            self._verdicts(question, found, examples, votes, (human or {}).get(question.name, {}))
            for question in guidelines.schema.questions
        ]
        return [
            label_out for of_example in zip(*by_question, strict=True) for label_out in of_example
        ]

    def vectors(self, question: Question, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Return one unit vector per example for what a question is about, shape (n, d)."""
        return self._encoder.embed([example.text_of(question) for example in examples])

    def _put(self, project: Project, found: EnsembleState) -> None:
        self._stores.state.put(project.id, JURY, asdict(found))

    def _keep_early(
        self, project: Project, votes: Sequence[WeakLabel], answered: Collection[int]
    ) -> None:
        """Keep votes on texts that no chunk will ever label, apart from what each call reads."""
        rows = [
            {
                "example_id": vote.example_id,
                "question": vote.question,
                "annotator": vote.annotator,
                "prompt_version": vote.prompt_version,
                "probabilities": list(vote.probabilities),
            }
            for vote in votes
            if vote.example_id in answered and vote.probabilities
        ]
        stored = {"question_version": project.question_version, "votes": rows}
        self._stores.state.put(project.id, _EARLY, stored)

    def _measure_forms(
        self,
        guidelines: Guidelines,
        found: EnsembleState,
        examples: Sequence[Example],
        human: Human,
    ) -> EnsembleState:
        usable = [e for e in examples if not e.missing]
        if len(usable) < MIN_TO_LEARN:
            return found
        probe = TemplateSelector(self._llm, guidelines.schema, guidelines.instruction)
        reports = {}
        for question in guidelines.schema.questions:
            known = human.get(question.name, {})
            asked = [e for e in usable if e.id in known]
            asked += [e for e in usable if e.id not in known]
            values = {i: question.labels[at].value for i, at in known.items()}
            reports[question.name] = probe.select_template(
                question, asked[:N_SELECTION_TEXTS], human_labels=values
            )
        return replace(
            found,
            templates={name: report.chosen for name, report in reports.items()},
            reports={name: report.to_json() for name, report in reports.items()},
        )

    def _votes(
        self,
        guidelines: Guidelines,
        found: EnsembleState,
        examples: Sequence[Example],
        deadline_s: float | None,
        prompt_context: PromptContext | None = None,
    ) -> list[WeakLabel]:
        schema, instruction = guidelines.schema, guidelines.instruction
        prompt_context = replace(prompt_context or PromptContext(), templates=found.templates)
        others = self._by_similarity(guidelines, found, examples)
        try:
            ours = self._llm.annotate(
                schema, instruction, examples, prompt_context=prompt_context, deadline_s=deadline_s
            )
        except LanguageModelError as exc:
            if not others:
                raise
            _LOG.warning("the LLM does not answer, similarity does: %s", exc)
            silence = Abstention(AbstentionReason.UNREACHABLE, str(exc))
            ours = _silent(guidelines, examples, silence)
        return [*ours, *others]

    def _by_similarity(
        self, guidelines: Guidelines, found: EnsembleState, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        if not found.similarity:
            return []
        similarity = self._similarity.recall(found.similarity)
        votes = similarity.annotate(guidelines.schema, guidelines.instruction, examples)
        return [vote for vote in votes if vote.abstention is None]

    def _fit_label_model(
        self,
        question: Question,
        examples: Sequence[Example],
        votes: Sequence[WeakLabel],
        known: Mapping[int, Any],
    ) -> LabelModel | MultilabelModel | None:
        posteriors = posteriors_by_annotator(question, examples, votes)
        n_heard = max((int(np.isfinite(p[:, 0]).sum()) for p in posteriors.values()), default=0)
        if n_heard < MIN_TO_LEARN:
            return None
        row_of = {example.id: row for row, example in enumerate(examples)}
        by_row = {row_of[i]: label for i, label in known.items() if i in row_of}
        if question.kind.is_multilabel:
            return fit_multilabel_model(posteriors, by_row)
        return fit_label_model(posteriors, self.vectors(question, examples).astype(float), by_row)

    def _verdicts(
        self,
        question: Question,
        found: EnsembleState,
        examples: Sequence[Example],
        votes: Sequence[WeakLabel],
        human: Mapping[int, int],
    ) -> list[WeakLabel]:
        about = [vote for vote in votes if vote.question == question.name]
        lead = leading_votes(about)
        posteriors = posteriors_by_annotator(question, examples, about)
        if not posteriors or question.kind.has_spans or not question.labels:
            return [as_aggregated_label(lead.get(e.id), question, e) for e in examples]
        label_model = found.label_model.get(question.name)
        if question.kind.is_multilabel:
            fused = multilabel.aggregate_multilabel(
                posteriors, MultilabelModel.from_json(label_model) if label_model else None
            )
            return [
                aggregate_multilabel(question, e, row, lead.get(e.id), heard(posteriors, at))
                for at, (e, row) in enumerate(zip(examples, fused, strict=True))
            ]
        if label_model is None:
            return [as_aggregated_label(lead.get(e.id), question, e) for e in examples]
        row_of = {example.id: row for row, example in enumerate(examples)}
        result = aggregate(
            posteriors,
            LabelModel.from_json(label_model),
            embeddings=self.vectors(question, examples).astype(float),
            human={row_of[i]: label for i, label in human.items() if i in row_of},
        )
        return [
            aggregate_single_label(question, e, result, at, lead.get(e.id))
            for at, e in enumerate(examples)
        ]


def _silent(
    guidelines: Guidelines, examples: Sequence[Example], why: Abstention
) -> list[WeakLabel]:
    """Return what stands for the LLM's answers where there are none."""
    return [
        WeakLabel(example.id, question.name, "llm", "none", abstention=why)
        for example in examples
        for question in guidelines.schema.questions
    ]


def _teaches_trust(question: Question) -> bool:
    """Return whether annotators' votes on a question can be compared: a choice among labels."""
    is_choice = question.kind.has_posterior
    return is_choice and len(question.labels) > 1


def _at_random(project: Project, human: Mapping[int, Any]) -> dict[int, Any]:
    seed = holdout_seed(project.id)
    return {i: label for i, label in human.items() if in_holdout(i, seed=seed)}
