"""The learners of the ordering benchmark: a linear probe, or the student fine-tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from sklearn.linear_model import LogisticRegression

from backend.domain.student import PLAIN, PoolTexts, TrainingSet
from benchmarks.ordering_pools import LabeledSet, Pool

PROBE_C = 30.0
"""The inverse regularization that is best for random picks on held-out training rows."""
_JITTER = 1e-6
_N_EPOCHS = 15
"""With the small batches of a small set this is 15 to 240 steps for 8 to 128 texts."""


@dataclass(frozen=True, eq=False)
class LearnerOutput:
    """A learner's posteriors (n, K) of the test rows; `of_pool` computes the pool's."""

    of_test: NDArray[np.float64]
    of_pool: Callable[[], NDArray[np.float64]] = field(repr=False)


Learner = Callable[[LabeledSet, Pool, NDArray[np.int64]], LearnerOutput]
"""Function of a data set, a pool and the pool's labeled positions in order."""


def learn_probe(data: LabeledSet, pool: Pool, chosen: NDArray[np.int64]) -> LearnerOutput:
    """Fit a logistic regression to the frozen sentence vectors."""
    x, y = data.train[pool.rows], data.y_train[pool.rows]
    n_test = len(data.test)
    posteriors = probe(x[chosen], y[chosen], np.vstack([data.test, x]), len(data.label_names))
    return LearnerOutput(posteriors[:n_test], lambda: posteriors[n_test:])


def learn_by_fine_tuning(data: LabeledSet, pool: Pool, chosen: NDArray[np.int64]) -> LearnerOutput:
    """Fine-tune the student as the plain recipe does; seeded by the pool."""
    from backend.self_training.self_trainer import SelfTrainer

    rows = pool.rows[chosen]
    n_classes = len(data.label_names)
    known = np.ones(len(rows), dtype=bool)
    targets = np.eye(n_classes)[data.y_train[rows]]
    training_set = TrainingSet(
        _texts([data.texts[row] for row in rows]), data.label_names, targets, known, known
    )
    recipe = replace(PLAIN, n_epochs=_N_EPOCHS, max_tokens=128)
    model, _ = SelfTrainer("", recipe=recipe).fit(training_set, seed=pool.seed)
    in_pool = _texts([data.texts[row] for row in pool.rows])
    return LearnerOutput(
        model.predict(_texts(data.test_texts)).probabilities,
        lambda: model.predict(in_pool).probabilities,
    )


LEARNERS: dict[str, Learner] = {"probe": learn_probe, "fine-tune": learn_by_fine_tuning}


def probe(
    x: NDArray[np.float32], y: NDArray[np.int64], x_new: NDArray[np.float32], n_classes: int
) -> NDArray[np.float64]:
    """Return the probabilities (m, K) of a multinomial logistic regression for new vectors.

    Fitted in the coordinates of the Gram matrix's Cholesky factor, n instead of d of them: the same
    solution, as the penalty does not change under rotation.
    """
    seen = np.unique(y)
    result = np.zeros((len(x_new), n_classes))
    if len(seen) == 1:
        result[:, seen[0]] = 1.0
        return result
    gram = x.astype(np.float64) @ x.T.astype(np.float64)
    factor = cholesky(gram + _JITTER * np.eye(len(x)), lower=True)
    model = LogisticRegression(C=PROBE_C, max_iter=200, tol=1e-3).fit(factor, y)
    weights = solve_triangular(factor.T, model.coef_.T, lower=False)
    scores = x_new @ (x.T @ weights).astype(np.float32) + model.intercept_
    if len(seen) == 2:
        scores = np.column_stack([np.zeros(len(scores)), scores[:, 0]])
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    result[:, seen] = scores / scores.sum(axis=1, keepdims=True)
    return result


def _texts(texts: Sequence[str]) -> PoolTexts:
    return PoolTexts(tuple(range(len(texts))), tuple(texts))
