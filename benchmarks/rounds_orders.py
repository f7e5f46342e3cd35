"""Order the tasks of a simulated project that people label next, by the queue and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backend.active_learning.baselines import PublishedStrategy
from backend.active_learning.pool_estimate import margin_uncertainty
from backend.active_learning.strategy_interface import PoolView
from backend.domain.projects import Project
from backend.label_model.labels_matrix import AGGREGATED
from backend.services import Services

NextTasks = Callable[[Services, Project, int, int], list[int]]
"""From services, project, number of tasks and seed to the tasks that people label next."""


def by_queue(services: Services, project: Project, n: int, seed: int) -> list[int]:
    """Return the first open tasks of the served release."""
    places = services.stores.releases.places(project)
    return _open(services, project, [place.task_id for place in places])[:n]


def at_random(services: Services, project: Project, n: int, seed: int) -> list[int]:
    """Return the first open tasks of one random order."""
    ids = services.stores.tasks.ids(project.id)
    return _open(services, project, np.random.default_rng(seed).permutation(ids).tolist())[:n]


def by_uncertainty(services: Services, project: Project, n: int, seed: int) -> list[int]:
    """Return the open tasks whose aggregated labels have the smallest margin."""
    rows = {
        label.example_id: label.probabilities
        for label in services.stores.labels.weak_labels(project, annotator=AGGREGATED)
        if label.probabilities
    }
    ids = np.array(_open(services, project, sorted(rows)), dtype=np.int64)
    uncertainty = margin_uncertainty(np.array([rows[i] for i in ids.tolist()]))
    return [int(i) for i in ids[np.argsort(-uncertainty, kind="stable")][:n]]


def by_maxherding(services: Services, project: Project, n: int, seed: int) -> list[int]:
    """Return the open tasks that MaxHerding chooses by the embeddings alone."""
    pool = services.aggregator.pool(project)
    view = PoolView(
        pool.example_ids,
        services.ensemble.embed(pool.questions[0], pool.examples),
        labeled={at: None for at, e in enumerate(pool.examples) if e.id in pool.human_ids},
    )
    strategy = PublishedStrategy("maxherding", n_head=n)
    ordering = strategy.order(view, rng=np.random.default_rng(seed))
    return [int(i) for i in ordering.example_ids(view)[:n]]


ORDERS: Mapping[str, NextTasks] = {
    "queue": by_queue,
    "random": at_random,
    "uncertainty": by_uncertainty,
    "maxherding": by_maxherding,
}


def _open(services: Services, project: Project, ids: list[int]) -> list[int]:
    answered = {label.task_id for label in services.stores.tasks.human_labels(project.id)}
    return [task_id for task_id in ids if task_id not in answered]
