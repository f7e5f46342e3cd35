"""Order the queue and draft a release: aggregated labels as predictions, places as their scores."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from backend.active_learning.holdout import with_holdout
from backend.active_learning.strategy_interface import Ordering, PoolView, QueryStrategy
from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import Prediction, Project, ProjectId, QueuePlace, QueueState, Task
from backend.domain.questions import Question
from backend.errors import UnsupportedLabelConfig
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.label_model.crowd import Consensus
from backend.label_model.label_tables import given_table
from backend.llm.prompts.templates import describe_task
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import AggregatedPool, Pool, class_indices
from backend.pipeline.status import LABELS, OUTDATED, QUEUE, read_queue
from backend.pipeline.sync import PrelabelPlan
from backend.store import Stores

_LOG = logging.getLogger(__name__)
LEARNED, LABELS_FROM, MODEL_FROM, RECIPE = "learned", "labels_from", "model_from", "recipe"
"""Provenance of a release by question: the round of its labels, round and cycle of its student, the
round's recipe. A release that only brings another order has them from the one that it replaces.
"""
ORDERING = "ordering"
"""Source of problems with the ordering."""
_N_QUANTILES = 101
_GROWTH = 1.1
_HOLDOUT_REASON = "drawn at random: the random holdout, from which accuracy is estimated"

MakeStrategy = Callable[[str], QueryStrategy]
"""Makes a project's query strategy, given in words what people are asked."""


@dataclass(frozen=True)
class ReleaseBuilder:
    """Makes a draft release of aggregated labels, in the order of the query strategy."""

    ensemble: AnnotatorEnsemble
    config: ConfigReader
    stores: Stores
    make_strategy: MakeStrategy

    def draft(self, aggregated: AggregatedPool, provenance: Mapping[str, Any]) -> Project:
        """Write a draft and its queue; the publisher promotes it when it is whole.

        Tasks that people answered get no prediction.
        """
        pool = aggregated.pool
        project = pool.project
        strategy = self.make_strategy(
            describe_task(pool.guidelines.schema, pool.guidelines.instruction)
        )
        with track_usage(project.id, "order"):
            view = self._view(aggregated)
            rng = np.random.default_rng(holdout_seed(project.id))
            ordering = strategy.order(view, rng=rng)
        places = _places(project.id, view, ordering)
        predictions = self._predictions(aggregated, places)
        served = self.stores.releases.provenance(project.id, project.model_version)
        inherited = {LEARNED: served[LEARNED]} if LEARNED in served else {}
        draft = self.stores.releases.draft(
            project,
            predictions,
            places,
            {**inherited, **provenance, LABELS: _counts(aggregated), "strategy": strategy.name},
        )
        waiting = [v for v in aggregated.labels if v.example_id not in pool.human_ids]
        known = [u for label in waiting if (u := _uncertainty([label])) is not None]
        quantiles = np.quantile(known, np.linspace(0, 1, _N_QUANTILES)).tolist() if known else ()
        state = QueueState(
            project.question_version,
            strategy.name,
            len(pool.tasks),
            len(pool.human_ids),
            tuple(quantiles),
            asdict(ordering.diagnostics),
        )
        self.stores.state.put(project.id, QUEUE, asdict(state))
        line = "project=%s release=%s n_predictions=%d strategy=%s"
        _LOG.info(line, project.id, draft.model_version, len(predictions), strategy.name)
        return draft

    def _view(self, aggregated: AggregatedPool) -> PoolView:
        pool = aggregated.pool
        question = pool.questions[0]
        held_out = class_indices(question, pool.held_out.get(question.name, Consensus({})))
        human = {**pool.human.get(question.name, {}), **held_out}
        kinds = pool.matrices[question.name].kinds
        own = aggregated.matrices[question.name].annotator_posteriors
        posteriors = aggregated.posteriors(question)
        total = posteriors.sum(axis=1, keepdims=True)  # above 1 where several labels may hold
        students = [p for name, p in own.items() if kinds[name] is AnnotatorKind.STUDENT]
        flags = {v.example_id: v.injection_flag for v in aggregated.labels if v.injection_flag}
        return PoolView(
            example_ids=pool.example_ids,
            embeddings=self.ensemble.embed(question, pool.examples),
            posteriors=posteriors / np.where(total > 0, total, 1.0) if question.labels else None,
            student_posteriors=next(iter(students), None),
            agreement=mean_pairwise_kappa(
                {n: p for n, p in sorted(own.items()) if not kinds[n].is_from_round}
            ),
            labeled={
                at: human.get(example.id)
                for at, example in enumerate(pool.examples)
                if example.id in pool.human_ids
            },
            read_texts=lambda rows: [pool.examples[row].text_of(question) for row in rows],
            pinned={
                at: f"the text looks like an order to the model: {flags[example.id]}"
                for at, example in enumerate(pool.examples)
                if example.id in flags and example.id not in pool.human_ids
            },
            label_names=tuple(label.name for label in question.labels),
        )

    def _predictions(
        self, aggregated: AggregatedPool, places: Sequence[QueuePlace]
    ) -> list[Prediction]:
        pool, n_questions = aggregated.pool, len(aggregated.pool.questions)
        position = {place.task_id: place.position for place in places}
        predictions = []
        for at, task in enumerate(pool.tasks):
            of_task = aggregated.labels[at * n_questions : (at + 1) * n_questions]
            if task.id not in position or all(label.abstention for label in of_task):
                continue
            prediction = valid_prediction(self.config, pool, task, of_task)
            if prediction is not None:
                score = (position[task.id] + 0.5) / len(position)
                predictions.append(replace(prediction, score=score))
        return predictions


@dataclass(frozen=True)
class Orderer:
    """Drafts a release in a new order when all tasks are labeled, and when the pool has grown."""

    aggregator: Aggregator
    releases: ReleaseBuilder
    stores: Stores
    plan: PrelabelPlan

    def is_due(self, project: Project) -> bool:
        """Return whether the pool is labeled, and its queue has no order or an outgrown one.

        It is due too when what is served is outdated: labels have changed since it was drafted.
        """
        stores = self.stores
        if stores.releases.pending(project) is not None:
            return False
        progress = stores.labels.progress(project)
        if progress.n_to_label:
            return False
        if stores.state.current(project, OUTDATED) is not None:
            return True
        if not (self.plan.manages_queue and progress.n_labelled):
            return False
        queue = read_queue(stores, project)
        return queue is None or progress.n_tasks > queue.n_tasks * _GROWTH

    def is_settled(self, project: Project) -> bool:
        """Return whether nothing is left to order, and Label Studio holds one release alone."""
        return (
            not self.is_due(project)
            and self.stores.releases.pending(project) is None
            and not self.stores.projects.superseded_versions(project.id)
        )

    def order(self, project_id: ProjectId) -> dict[str, int]:
        """Draft a release in a new order if one is due; a step."""
        project = self.stores.projects.connected(project_id)
        if project is None or not self.is_due(project):
            return {"is_ordered": 0}
        try:
            learned = self.stores.releases.provenance(project.id, project.model_version)
            is_outdated = self.stores.state.current(project, OUTDATED) is not None
            decided = [
                name
                for name, source in learned.get(LEARNED, {}).items()
                if LABELS_FROM in source and not is_outdated
            ]
            aggregated = self.aggregator.aggregate(project, decided=decided)
            self.releases.draft(aggregated, {"kind": "ordering"})
        except UnsupportedLabelConfig as exc:
            self.stores.jobs.note_problem(project_id, ORDERING, str(exc))
            return {"is_ordered": 0}
        self.stores.jobs.clear_problem(project_id, ORDERING)
        self.stores.state.put(project_id, OUTDATED, None)
        return {"is_ordered": 1}


def _counts(aggregated: AggregatedPool) -> dict[str, Any]:
    """Return by question how often the pool has each label, and labels of each source."""
    counts: dict[str, Any] = {}
    for question in aggregated.pool.questions:
        if not question.labels:
            continue
        own = [label for label in aggregated.labels if label.question == question.name]
        table = given_table(question, own)
        values = Counter(
            question.labels[part].value if isinstance(part, int) else str(part[2])
            for parts in table.parts
            for part in parts
        )
        n_none = sum(not parts for parts in table.parts)
        counts[question.name] = {
            "by_label": {label.value: values[label.value] for label in question.labels},
            "n_none": n_none if question.kind.can_be_empty else 0,
            "by_source": dict(Counter(one.source for one in own if one.source).most_common()),
        }
    return counts


def learned_from(stores: Stores, project: Project, question: Question) -> Mapping[str, Any]:
    """Return what the served labels and student of a question come from; empty before a round."""
    provenance = stores.releases.provenance(project.id, project.model_version)
    found: Mapping[str, Any] = provenance.get(LEARNED, {}).get(question.name, {})
    return found


def valid_prediction(
    config: ConfigReader, pool: Pool, task: Task, labels: Sequence[WeakLabel]
) -> Prediction | None:
    """Return the prediction of a task's aggregated labels; None where none fits the config."""
    project = pool.project
    prediction = config.write_prediction(
        pool.guidelines.schema, labels, project.model_version, task
    )
    errors = [] if prediction is None else config.errors(project.label_config, prediction)
    if errors:
        line = "project=%s task=%d prediction does not fit the label config: %s"
        _LOG.error(line, project.id, task.id, "; ".join(errors))
    return None if errors else prediction


def queue_score(queue: QueueState, labels: Sequence[WeakLabel]) -> float:
    """Return where a task that came after the ordering belongs, in [0, 1], 0 being first.

    The less certain its aggregated labels are among those of the ordered tasks, the earlier.
    """
    uncertainty = _uncertainty(labels)
    if uncertainty is None or not queue.uncertainty:
        return 0.5
    rank = float(np.searchsorted(np.asarray(queue.uncertainty), uncertainty))
    return min(1.0, max(0.0, 1.0 - rank / len(queue.uncertainty)))


def _places(project_id: ProjectId, view: PoolView, ordering: Ordering) -> list[QueuePlace]:
    seed = holdout_seed(project_id)
    ids = [int(i) for i in ordering.example_ids(view)]
    reasons = dict(zip(ids, ordering.reasons, strict=True))
    held_out = {task_id for task_id in ids if in_holdout(task_id, seed=seed)}
    reasons |= dict.fromkeys(held_out, _HOLDOUT_REASON)
    return [
        QueuePlace(task_id, at, reasons[task_id], task_id in held_out)
        for at, task_id in enumerate(with_holdout(ids, seed=seed))
    ]


def _uncertainty(labels: Sequence[WeakLabel]) -> float | None:
    """Return 1 minus the confidence of the least certain label, in [0, 1]."""
    confidences = [
        max(max(v.probabilities), 1 - min(v.probabilities)) if v.probabilities else v.confidence
        for v in labels
        if v.abstention is None
    ]
    known = [confidence for confidence in confidences if confidence is not None]
    return 1.0 - min(known) if known else None
