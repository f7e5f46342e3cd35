"""The protocol of the queue's benchmark: budgets, a learner, the same draws for everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.ordering import PoolView, QueryStrategy
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.label_model.single_label import aggregate, fit_label_model
from benchmarks.ordering_learners import Learner, learn_probe
from benchmarks.ordering_sets import LabelledSet, Pool

BUDGETS = (8, 16, 32, 64, 128)


@dataclass(frozen=True, eq=False)
class Curve:
    """What one strategy reached on one pool at each budget."""

    accuracy: tuple[float, ...]
    macro_f1: tuple[float, ...]
    class_coverage: tuple[float, ...]
    n_tokens: int = 0
    picks: tuple[int, ...] = ()
    extra: Mapping[str, float | None] = field(default_factory=dict)


Build = Callable[[int], QueryStrategy]
"""From the size of the next batch to a strategy."""


def follow(
    data: LabelledSet,
    pool: Pool,
    build: Build,
    *,
    is_deaf: bool = False,
    learn: Learner = learn_probe,
) -> Curve:
    """Let a strategy choose up to each budget, telling it labels and learner in between.

    `is_deaf`: the strategy does not look at the annotators, who need not be fused for it.
    """
    x, y = data.train[pool.rows], data.y_train[pool.rows]
    labelled: dict[int, int] = {}
    small_model: NDArray[np.float64] | None = None
    scores, n_tokens = [], 0
    extra: dict[str, Any] = {}
    for budget in BUDGETS:
        said = Said() if is_deaf else collect(data, pool, labelled)
        view = PoolView(
            np.arange(len(x)),
            x,
            posteriors=said.posteriors,
            agreement=said.agreement,
            small_model_posteriors=small_model,
            labelled=dict(labelled),
            read_texts=lambda positions: [data.texts[pool.rows[at]] for at in positions],
            label_names=data.label_names,
        )
        n_wanted = budget - len(labelled)
        ordering = build(n_wanted).order(view, rng=np.random.default_rng([pool.seed, budget]))
        labelled.update((int(at), int(y[at])) for at in ordering.positions[:n_wanted])
        n_tokens += ordering.health.n_tokens
        if not extra:
            extra = {
                "ascending_share": ordering.health.ascending_share,
                "split_half_reliability": ordering.health.split_half_reliability,
                "judgement_weight": ordering.health.judgement_weight,
            }
        chosen = np.array(list(labelled))
        learned = learn(data, pool, chosen)
        scores.append(_score(data, learned.of_test, y[chosen]))
        if budget < BUDGETS[-1]:
            small_model = learned.of_pool()
    return _curve(scores, n_tokens, tuple(labelled), extra)


@dataclass(frozen=True, eq=False)
class Said:
    """What the annotators say about a pool: fused posteriors (n, K), how far they agree."""

    posteriors: NDArray[np.float64] | None = None
    agreement: float | None = None


def collect(data: LabelledSet, pool: Pool, labelled: Mapping[int, int]) -> Said:
    """Fuse the annotators as the product does; `labelled` maps positions to people's labels."""
    if not data.votes:
        return Said()
    votes = {name: rows[pool.rows] for name, rows in data.votes.items()}
    vectors = data.train[pool.rows].astype(float)
    label_model = fit_label_model(votes, vectors, labelled)
    result = aggregate(votes, label_model, embeddings=vectors, human=labelled)
    own = {name: label_model.annotator_posterior(name, said) for name, said in votes.items()}
    return Said(result.probabilities, mean_pairwise_kappa(own))


def random_curves(
    data: LabelledSet, pool: Pool, n_draws: int, *, learn: Learner = learn_probe
) -> list[Curve]:
    """Return what random orders reach on a pool, draw by draw."""
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


def macro_f1(predicted: NDArray[np.int64], gold: NDArray[np.int64], n_classes: int) -> float:
    """Return the mean F1 over the classes that occur in the gold labels."""
    table = np.bincount(gold * n_classes + predicted, minlength=n_classes**2)
    table = table.reshape(n_classes, n_classes)
    right, wanted = np.diag(table), table.sum(axis=1)
    total = wanted + table.sum(axis=0)
    return float((2 * right[wanted > 0] / total[wanted > 0]).mean())


def _n_classes(data: LabelledSet) -> int:
    return len(data.label_names)


def _score(
    data: LabelledSet, probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float, float]:
    predicted = probabilities.argmax(axis=1)
    n_classes = _n_classes(data)
    return (
        float((predicted == data.y_test).mean()),
        macro_f1(predicted, data.y_test, n_classes),
        len(np.unique(labels)) / n_classes,
    )


def _curve(
    scores: list[tuple[float, float, float]],
    n_tokens: int,
    picks: tuple[int, ...],
    extra: Mapping[str, float | None],
) -> Curve:
    accuracy, f1, coverage = zip(*scores, strict=True)
    return Curve(accuracy, f1, coverage, n_tokens, picks, extra)
