"""Run query strategies on drawn pools: labels up to each budget, then a learner's test scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from backend.active_learning.strategy_interface import PoolView, QueryStrategy
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.label_model.single_label import aggregate, fit_label_model
from benchmarks.ordering_learners import Learner, learn_probe
from benchmarks.ordering_pools import LabeledSet, Pool

BUDGETS = (8, 16, 32, 64, 128)


@dataclass(frozen=True, eq=False)
class Curve:
    """One strategy's test scores on one pool at each budget."""

    accuracy: tuple[float, ...]
    macro_f1: tuple[float, ...]
    class_coverage: tuple[float, ...]
    n_tokens: int = 0
    picks: tuple[int, ...] = ()
    extra: Mapping[str, float | None] = field(default_factory=dict)


Build = Callable[[int], QueryStrategy]
"""Function from the size of the next batch to a strategy."""


def learning_curve(
    data: LabeledSet,
    pool: Pool,
    build: Build,
    *,
    without_annotators: bool = False,
    learn: Learner = learn_probe,
) -> Curve:
    """Let a strategy select texts up to each budget, and fit and score a new learner there.

    Args:
        data: The data set.
        pool: The rows to select from.
        build: Builds the strategy for each batch.
        without_annotators: The strategy ignores posteriors, which then are not aggregated.
        learn: Fits the learner.
    """
    x, y = data.train[pool.rows], data.y_train[pool.rows]
    labeled: dict[int, int] = {}
    student: NDArray[np.float64] | None = None
    scores, n_tokens = [], 0
    extra: dict[str, Any] = {}
    for budget in BUDGETS:
        outputs = AnnotatorOutputs() if without_annotators else collect(data, pool, labeled)
        view = PoolView(
            np.arange(len(x)),
            x,
            posteriors=outputs.posteriors,
            agreement=outputs.agreement,
            student_posteriors=student,
            labeled=dict(labeled),
            read_texts=lambda positions: [data.texts[pool.rows[at]] for at in positions],
            label_names=data.label_names,
        )
        n_wanted = budget - len(labeled)
        ordering = build(n_wanted).order(view, rng=np.random.default_rng([pool.seed, budget]))
        labeled.update((int(at), int(y[at])) for at in ordering.positions[:n_wanted])
        n_tokens += ordering.diagnostics.n_tokens
        if not extra:
            extra = {
                "ascending_share": ordering.diagnostics.ascending_share,
                "split_half_reliability": ordering.diagnostics.split_half_reliability,
                "judgement_weight": ordering.diagnostics.judgement_weight,
            }
        chosen = np.array(list(labeled))
        learned = learn(data, pool, chosen)
        scores.append(_score(data, learned.of_test, y[chosen]))
        if budget < BUDGETS[-1]:
            student = learned.of_pool()
    return _curve(scores, n_tokens, tuple(labeled), extra)


@dataclass(frozen=True, eq=False)
class AnnotatorOutputs:
    """The annotators' aggregated posteriors (n, K) for a pool, and their agreement (kappa)."""

    posteriors: NDArray[np.float64] | None = None
    agreement: float | None = None


def collect(data: LabeledSet, pool: Pool, labeled: Mapping[int, int]) -> AnnotatorOutputs:
    """Aggregate the annotators as the product does; `labeled` maps positions to people's labels."""
    if not data.posteriors:
        return AnnotatorOutputs()
    posteriors = {name: rows[pool.rows] for name, rows in data.posteriors.items()}
    vectors = data.train[pool.rows].astype(float)
    label_model = fit_label_model(posteriors, vectors, labeled)
    result = aggregate(posteriors, label_model, embeddings=vectors, human=labeled)
    own = {name: label_model.annotator_posterior(name, rows) for name, rows in posteriors.items()}
    return AnnotatorOutputs(result.probabilities, mean_pairwise_kappa(own))


def random_curves(
    data: LabeledSet, pool: Pool, n_draws: int, *, learn: Learner = learn_probe
) -> list[Curve]:
    """Return the learning curves of random orders of a pool."""
    y = data.y_train[pool.rows]
    curves = []
    for draw in range(n_draws):
        order = np.random.default_rng([pool.seed, 2, draw]).permutation(len(y))
        scores = []
        for budget in BUDGETS:
            chosen = order[:budget]
            scores.append(_score(data, learn(data, pool, chosen).of_test, y[chosen]))
        curves.append(_curve(scores, 0, tuple(order[: BUDGETS[-1]].tolist()), {}))
    return curves


def macro_f1(predicted: NDArray[np.int64], gold: NDArray[np.int64]) -> float:
    """Return the mean F1 over the classes that occur in the gold labels."""
    return float(f1_score(gold, predicted, labels=np.unique(gold), average="macro"))


def _score(
    data: LabeledSet, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float, float]:
    predicted = probabilities.argmax(axis=1)
    return (
        float((predicted == data.y_test).mean()),
        macro_f1(predicted, data.y_test),
        len(np.unique(labels)) / len(data.label_names),
    )


def _curve(
    scores: list[tuple[float, float, float]],
    n_tokens: int,
    picks: tuple[int, ...],
    extra: Mapping[str, float | None],
) -> Curve:
    accuracy, f1, coverage = zip(*scores, strict=True)
    return Curve(accuracy, f1, coverage, n_tokens, picks, extra)
