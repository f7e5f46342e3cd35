"""Order the queue and draft a release: aggregated labels as predictions, places as their scores."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import with_holdout
from backend.active_learning.strategy_interface import Ordering, PoolView, QueryStrategy
from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import Prediction, Project, QueuePlace, QueueState, Task
from backend.domain.questions import Question
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.label_model.crowd import Consensus
from backend.label_model.label_tables import given_table
from backend.llm.prompts.templates import describe_task
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import AggregatedPool, Pool, class_indices
from backend.pipeline.status import LABELS, QUEUE
from backend.store import Stores

_LOG = logging.getLogger(__name__)
LEARNED, LABELS_FROM, MODEL_FROM, RECIPE = "learned", "labels_from", "model_from", "recipe"
"""Provenance of a release by question: the round of its labels, round and cycle of its student, the
round's recipe. A release that only brings another order has them from the one that it replaces.
"""
_N_QUANTILES = 101
_UNREAD_REASON = "at random: its text is not embedded yet"
_HOLDOUT_REASON = "drawn at random: the random holdout, from which accuracy is estimated"


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """What the queue's order aims at.

    `holdout_share` is that of the first answers; `weights` say by question how much a corrected
    label counts, 1 where nothing is said.
    """

    holdout_share: float = 0.15
    weights: Mapping[str, float] = field(default_factory=dict)


MakeStrategy = Callable[[str], QueryStrategy]
"""Makes a project's query strategy, given in words what people are asked."""


@dataclass(frozen=True)
class ReleaseBuilder:
    """Makes a draft release of aggregated labels, in the order of the query strategy."""

    ensemble: AnnotatorEnsemble
    config: ConfigReader
    stores: Stores
    make_strategy: MakeStrategy
    plan: QueuePlan = QueuePlan()

    def draft(self, aggregated: AggregatedPool, provenance: Mapping[str, Any]) -> Project:
        """Write a draft and its queue; the publisher promotes it when it is whole.

        Tasks that people answered get no prediction.
        """
        pool = aggregated.pool
        project = pool.project
        strategy, ordering, places = self._order(aggregated)
        predictions = self._predictions(aggregated, places)
        served = self.stores.releases.provenance(project.id, project.model_version)
        inherited = {LEARNED: served[LEARNED]} if LEARNED in served else {}
        draft = self.stores.releases.draft(
            project,
            predictions,
            places,
            {**inherited, **provenance, LABELS: _counts(aggregated), "strategy": strategy},
        )
        waiting = [v for v in aggregated.labels if v.example_id not in pool.human_ids]
        known = [u for label in waiting if (u := _uncertainty([label])) is not None]
        quantiles = np.quantile(known, np.linspace(0, 1, _N_QUANTILES)).tolist() if known else ()
        state = QueueState(
            project.question_version,
            strategy,
            len(pool.tasks),
            len(pool.human_ids),
            tuple(quantiles),
            asdict(ordering.diagnostics),
        )
        self.stores.state.put(project.id, QUEUE, asdict(state))
        line = "project=%s release=%s n_predictions=%d strategy=%s"
        _LOG.info(line, project.id, draft.model_version, len(predictions), strategy)
        return draft

    def rank(self, aggregated: AggregatedPool, unread: Sequence[int], n_evidence: int) -> None:
        """Give the tasks of the version that is being made an order by what is known so far.

        Predictions that Label Studio has keep their scores: nothing is imported again, and nobody
        loses an open task.

        Args:
            aggregated: tasks whose text is embedded, with the labels that there are.
            unread: ids of the others, which follow in a random order.
            n_evidence: how much was known, for `QueueState`.
        """
        pool = aggregated.pool
        strategy, ordering, places = self._order(aggregated, is_early=True)
        seed, n_known = holdout_seed(pool.project.id), len(places)
        places += [
            QueuePlace(task_id, n_known + at, _UNREAD_REASON, in_holdout(task_id, seed=seed))
            for at, task_id in enumerate(t for t in unread if t not in pool.human_ids)
        ]
        self.stores.releases.put_places(pool.project, places)
        state = QueueState(
            pool.project.question_version,
            strategy,
            len(pool.tasks) + len(unread),
            len(pool.human_ids),
            health=asdict(ordering.diagnostics),
            is_early=True,
            n_evidence=n_evidence,
        )
        self.stores.state.put(pool.project.id, QUEUE, asdict(state))
        line = "project=%s ranked n_tasks=%d unread=%d evidence=%d"
        _LOG.info(line, pool.project.id, n_known, len(unread), n_evidence)

    def _order(
        self, aggregated: AggregatedPool, *, is_early: bool = False
    ) -> tuple[str, Ordering, list[QueuePlace]]:
        """Return the strategy's name, its order, and the places with the holdout among them."""
        pool = aggregated.pool
        strategy = self.make_strategy(
            describe_task(pool.guidelines.schema, pool.guidelines.instruction)
        )
        with track_usage(pool.project.id, "order"):
            view = self._view(aggregated, is_early=is_early)
            rng = np.random.default_rng(holdout_seed(pool.project.id))
            ordering = strategy.order(view, rng=rng)
        places = _places(pool, view, ordering, self.plan.holdout_share)
        return strategy.name, ordering, places

    def _view(self, aggregated: AggregatedPool, *, is_early: bool) -> PoolView:
        """Return the pool as a strategy sees it.

        While labels are being made (`is_early`) those of similarity alone are about to be replaced,
        so that correcting them gains nothing; and the LLM, which is busy, is asked for no choice.
        """
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
            posteriors=posteriors / np.where(total > 0, total, 1.0)
            if np.isfinite(posteriors).any()
            else None,
            student_posteriors=next(iter(students), None),
            agreement=mean_pairwise_kappa(
                {n: p for n, p in sorted(own.items()) if not kinds[n].is_from_round}
            ),
            labeled={
                at: human.get(example.id)
                for at, example in enumerate(pool.examples)
                if example.id in pool.human_ids
            },
            read_texts=None
            if is_early
            else lambda rows: [pool.examples[row].text_of(question) for row in rows],
            pinned={
                at: f"the text looks like an order to the model: {flags[example.id]}"
                for at, example in enumerate(pool.examples)
                if example.id in flags and example.id not in pool.human_ids
            },
            label_names=tuple(label.name for label in question.labels),
            prelabeled_share=self._prelabeled_share(aggregated, is_early=is_early),
            expected_errors=self._expected_errors(aggregated),
        )

    def _expected_errors(self, aggregated: AggregatedPool) -> NDArray[np.float64] | None:
        """Return the weighted sum of expected errors over the questions, (n,); None without any."""
        weighted = [
            self.plan.weights.get(q.name.lower(), 1.0)
            * aggregated.matrices[q.name].expected_errors(q)
            for q in aggregated.pool.questions
        ]
        is_known = np.isfinite(weighted).any(axis=0)
        total = np.where(is_known, np.nansum(weighted, axis=0), np.nan)
        return total if is_known.any() else None

    @staticmethod
    def _prelabeled_share(aggregated: AggregatedPool, *, is_early: bool) -> float:
        has_label = np.zeros(len(aggregated.pool.examples), dtype=bool)
        for matrix in aggregated.pool.matrices.values():
            names = [
                name
                for name, kind in matrix.kinds.items()
                if not (is_early and kind is AnnotatorKind.SIMILARITY)
            ]
            for name in names:
                if name in matrix.posteriors:
                    has_label |= np.isfinite(matrix.posteriors[name]).all(axis=1)
                else:
                    has_label |= np.array([spans is not None for spans in matrix.spans[name]])
        return float(has_label.mean()) if len(has_label) else 0.0

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


def queue_score(
    queue: QueueState, labels: Sequence[WeakLabel], position: int | None = None
) -> float:
    """Return where a task stands in the queue, in [0, 1], 0 being first.

    One without a position came after the ordering: the less certain its aggregated labels are among
    those of the ordered tasks, the earlier it is.
    """
    if position is not None:
        return (position + 0.5) / max(position + 1, queue.n_tasks - queue.n_human)
    uncertainty = _uncertainty(labels)
    if uncertainty is None or not queue.uncertainty:
        return 0.5
    rank = float(np.searchsorted(np.asarray(queue.uncertainty), uncertainty))
    return min(1.0, max(0.0, 1.0 - rank / len(queue.uncertainty)))


def _places(pool: Pool, view: PoolView, ordering: Ordering, share: float) -> list[QueuePlace]:
    seed = holdout_seed(pool.project.id)
    ids = [int(i) for i in ordering.example_ids(view)]
    reasons = dict(zip(ids, ordering.reasons, strict=True))
    held_out = {task_id for task_id in ids if in_holdout(task_id, seed=seed)}
    reasons |= dict.fromkeys(held_out, _HOLDOUT_REASON)
    return [
        QueuePlace(task_id, at, reasons[task_id], task_id in held_out)
        for at, task_id in enumerate(
            with_holdout(ids, seed=seed, share=share, answered=pool.human_ids)
        )
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
