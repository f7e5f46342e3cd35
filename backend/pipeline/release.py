"""Order the queue and write a release: verdicts as predictions, places as their scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import holdout_seed, in_holdout, with_holdout
from backend.active_learning.ordering import Ordering, PoolView, QueryStrategy
from backend.domain.labels import WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import Prediction, Project, ProjectId, QueuePlace, Task
from backend.domain.questions import Question
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.llm.prompts.templates import describe_task
from backend.pipeline.aggregate import AggregatedPool
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.rounds.context import SMALL_MODEL, is_derived
from backend.store import Stores

_LOG = logging.getLogger(__name__)
QUEUE = "queue"
LABELS_FROM, MODEL_FROM, RECIPE = "labels_from", "model_from", "recipe"
INHERITED = (LABELS_FROM, MODEL_FROM, RECIPE)
"""Which round a release's labels, and which round and cycle its small model, come from, and the
round's recipe. A release that only brings another order has them from the one that it replaces.
"""
_N_QUANTILES = 101
_HOLDOUT_REASON = "drawn at random: the random holdout, from which accuracy is estimated"

MakeStrategy = Callable[[str], QueryStrategy]
"""Makes a project's query strategy, told in words what people are asked there."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What is known about the queue of the newest release; JSON in the state store.

    `uncertainty` are quantiles of the open tasks' uncertainty, by which a task that is imported
    later finds its place; `health` is the strategy's own report.
    """

    question_version: str
    strategy: str
    n_tasks: int
    n_human: int
    uncertainty: tuple[float, ...] = ()
    health: Mapping[str, Any] | None = None


class ReleaseBuilder:
    """Makes a draft release of settled verdicts."""

    def __init__(
        self,
        ensemble: AnnotatorEnsemble,
        config: ConfigReader,
        stores: Stores,
        make_strategy: MakeStrategy,
    ) -> None:
        self._ensemble = ensemble
        self._config = config
        self._stores = stores
        self._make_strategy = make_strategy

    def queue(self, project: Project) -> QueueState | None:
        """Return what is known about the present question's queue, None before the first."""
        stored = self._stores.state.get(project.id, QUEUE)
        if not stored or stored["question_version"] != project.question_version:
            return None
        return QueueState(**{**stored, "uncertainty": tuple(stored["uncertainty"])})

    def release(self, aggregated: AggregatedPool, provenance: Mapping[str, Any]) -> Project:
        """Write a draft whose queue the strategy orders; the publisher promotes it when whole.

        Tasks that people answered keep no prediction of ours.
        """
        pool = aggregated.pool
        project = pool.project
        strategy = self._make_strategy(
            describe_task(pool.guidelines.schema, pool.guidelines.instruction)
        )
        with track_usage(project.id, "order"):
            view, ordering = self._order(aggregated, strategy)
        places = _places(project.id, view, ordering)
        predictions = self._predictions(aggregated, places)
        served = self._stores.releases.provenance(project.id, project.model_version)
        inherited = {key: served[key] for key in INHERITED if key in served}
        made_from = {**inherited, **provenance, "strategy": strategy.name}
        draft = self._stores.releases.draft(project, predictions, places, made_from)
        state = QueueState(
            project.question_version,
            strategy.name,
            len(pool.tasks),
            len(pool.answered_ids),
            _quantiles([v for v in aggregated.labels_out if v.example_id not in pool.answered_ids]),
            asdict(ordering.diagnostics),
        )
        self._stores.state.put(project.id, QUEUE, asdict(state))
        _LOG.info(
            "project=%s release=%s n_predictions=%d strategy=%s",
            project.id,
            draft.model_version,
            len(predictions),
            strategy.name,
        )
        return draft

    def _order(
        self, aggregated: AggregatedPool, strategy: QueryStrategy
    ) -> tuple[PoolView, Ordering]:
        pool = aggregated.pool
        question = pool.guidelines.schema.questions[0]
        labeled = {
            at: pool.human[question.name].get(example.id)
            for at, example in enumerate(pool.examples)
            if example.id in pool.answered_ids
        }
        label_issues = {
            v.example_id: v.injection_flag for v in aggregated.labels_out if v.injection_flag
        }
        view = PoolView(
            example_ids=np.array([example.id for example in pool.examples], dtype=np.int64),
            embeddings=self._ensemble.vectors(question, pool.examples),
            posteriors=_normalised(aggregated.posteriors(question)) if question.labels else None,
            student_posteriors=aggregated.heard(question, SMALL_MODEL),
            agreement=_agreement(aggregated, question),
            labeled=labeled,
            read_texts=lambda rows: [pool.examples[row].text_of(question) for row in rows],
            pinned={
                at: f"the text looks like an order to the model: {label_issues[example.id]}"
                for at, example in enumerate(pool.examples)
                if example.id in label_issues and example.id not in pool.answered_ids
            },
            label_names=tuple(label.name for label in question.labels),
        )
        return view, strategy.order(view, rng=np.random.default_rng(holdout_seed(pool.project.id)))

    def _predictions(
        self, aggregated: AggregatedPool, places: Sequence[QueuePlace]
    ) -> list[Prediction]:
        pool = aggregated.pool
        position = {place.task_id: place.position for place in places}
        by_task: dict[int, list[WeakLabel]] = {}
        for label_out in aggregated.labels_out:
            by_task.setdefault(label_out.example_id, []).append(label_out)
        predictions = []
        for task in pool.tasks:
            if task.id not in position:
                continue
            written = self._write(aggregated, task, by_task.get(task.id, []))
            if written is not None:
                score = (position[task.id] + 0.5) / len(position)
                predictions.append(
                    Prediction(task.id, written.model_version, written.result, score)
                )
        return predictions

    def _write(
        self, aggregated: AggregatedPool, task: Task, labels_out: Sequence[WeakLabel]
    ) -> Prediction | None:
        project, schema = aggregated.pool.project, aggregated.pool.guidelines.schema
        given = [label_out for label_out in labels_out if label_out.abstention is None]
        if not given:
            return None
        written = self._config.write_prediction(schema, given, project.model_version, task)
        if written is None:
            return None
        mistakes = self._config.errors(project.label_config, written)
        if mistakes:
            _LOG.error(
                "project=%s task=%d prediction does not fit the label config: %s",
                project.id,
                task.id,
                "; ".join(mistakes),
            )
        return None if mistakes else written


def slot_score(queue: QueueState, labels_out: Sequence[WeakLabel]) -> float:
    """Return where a task that came after the ordering belongs, in [0, 1], 0 being first.

    The less sure its verdict is among those of the ordered tasks, the earlier.
    """
    unsure = _uncertainty(labels_out)
    if unsure is None or not queue.uncertainty:
        return 0.5
    rank = float(np.searchsorted(np.asarray(queue.uncertainty), unsure)) / len(queue.uncertainty)
    return min(1.0, max(0.0, 1.0 - rank))


def _places(project_id: ProjectId, view: PoolView, ordering: Ordering) -> list[QueuePlace]:
    seed = holdout_seed(project_id)
    ids = [int(i) for i in ordering.example_ids(view)]
    reasons = dict(zip(ids, ordering.reasons, strict=True))
    return [
        QueuePlace(
            task_id,
            at,
            _HOLDOUT_REASON if in_holdout(task_id, seed=seed) else reasons[task_id],
            in_holdout(task_id, seed=seed),
        )
        for at, task_id in enumerate(with_holdout(ids, seed=seed))
    ]


def _agreement(aggregated: AggregatedPool, question: Question) -> float | None:
    """Return how far the annotators agree beyond chance, those of a round left out."""
    names = {name for label_out in aggregated.of(question) for name in label_out.votes}
    said = {
        name: aggregated.heard(question, name) for name in sorted(names) if not is_derived(name)
    }
    return mean_pairwise_kappa({name: rows for name, rows in said.items() if rows is not None})


def _normalised(posteriors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows that sum to 1: a strategy asks which class, also where several may hold."""
    total = posteriors.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = posteriors / np.where(total > 0, total, 1.0)
    return shares


def _uncertainty(labels_out: Sequence[WeakLabel]) -> float | None:
    """Return how unsure the least sure verdict is, in [0, 1]."""
    confidences = [
        max(max(v.probabilities), 1 - min(v.probabilities)) if v.probabilities else v.confidence
        for v in labels_out
        if v.abstention is None
    ]
    known = [confidence for confidence in confidences if confidence is not None]
    return 1.0 - min(known) if known else None


def _quantiles(labels_out: Sequence[WeakLabel]) -> tuple[float, ...]:
    values = [u for v in labels_out if (u := _uncertainty([v])) is not None]
    if not values:
        return ()
    return tuple(np.quantile(values, np.linspace(0, 1, _N_QUANTILES)).tolist())
