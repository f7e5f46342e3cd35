"""Published query strategies for comparison, from scikit-activeml, behind our interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import (
    Badge,
    CoreSet,
    GreedyBALD,
    MaxHerding,
    ProbCover,
    TypiClust,
    UncertaintySampling,
)
from skactiveml.utils import MISSING_LABEL
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from backend.active_learning.baselines import complete_order
from backend.active_learning.ordering import Ordering, PoolView, Reason

_C = 30.0
_N_COMMITTEE = 8
_MAX_TEXTS = 4000
"""Some strategies compare every text with every other: larger pools are drawn down to this."""
_HERDING_GAMMA = 0.5
"""The paper's width of 1 on unit vectors; the library's 1 / n_features is nearly flat there."""

Labels = NDArray[np.float64]
Select = Callable[[PoolView, Labels, int, int], NDArray[np.int64]]
"""From a pool, its labels (NaN where open), how many are wanted and a seed to positions."""


class PublishedStrategy:
    """One of scikit-activeml's strategies: its first `n_head`, the rest at random.

    Strategies that cluster into as many groups as they pick depend on `n_head`.
    """

    def __init__(self, name: str, *, n_head: int) -> None:
        if name not in PUBLISHED:
            raise ValueError(f"no strategy {name!r}; there are {', '.join(PUBLISHED)}")
        self._name = name
        self._n_head = n_head

    @property
    def name(self) -> str:
        """Return the strategy's name in settings."""
        return self._name

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool."""
        rows = _drawn(pool, rng)
        seen = pool if len(rows) == len(pool) else _part(pool, rows)
        n_wanted = min(self._n_head, len(seen.open_positions))
        labels = np.full(len(seen), MISSING_LABEL)
        for at, label in seen.labelled.items():
            labels[at] = np.nan if label is None else label
        seed = int(rng.integers(2**31 - 1))
        chosen: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        if n_wanted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chosen = PUBLISHED[self._name](seen, labels, n_wanted, seed)
        return complete_order(pool, rows[chosen].tolist(), Reason(f"chosen by {self._name}"), rng)


def _drawn(pool: PoolView, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the positions that a strategy sees: all labelled ones, and as many open ones as go."""
    candidates = pool.open_positions
    if len(candidates) > _MAX_TEXTS:
        candidates = rng.choice(candidates, size=_MAX_TEXTS, replace=False)
    positions: NDArray[np.int64] = np.sort(np.concatenate([pool.labelled_positions, candidates]))
    return positions


def _part(pool: PoolView, rows: NDArray[np.int64]) -> PoolView:
    place = {int(row): at for at, row in enumerate(rows)}
    return PoolView(
        example_ids=pool.example_ids[rows],
        embeddings=pool.embeddings[rows],
        labelled={place[row]: label for row, label in pool.labelled.items()},
        label_names=pool.label_names,
    )


def _classifier(pool: PoolView) -> SklearnClassifier:
    n_classes = len(pool.label_names)
    known = [label for label in pool.labelled.values() if label is not None]
    n_classes = max([n_classes, 2, *(label + 1 for label in known)])
    return SklearnClassifier(LogisticRegression(C=_C, max_iter=200), classes=range(n_classes))


def _uncertainty(method: str) -> Select:
    def select(pool: PoolView, labels: Labels, n: int, seed: int) -> NDArray[np.int64]:
        strategy = UncertaintySampling(method=method, random_state=seed)
        return _asked(strategy, pool, labels, n, clf=_classifier(pool))

    return select


def _badge(pool: PoolView, labels: Labels, n: int, seed: int) -> NDArray[np.int64]:
    return _asked(Badge(random_state=seed), pool, labels, n, clf=_classifier(pool))


def _bald(pool: PoolView, labels: Labels, n: int, seed: int) -> NDArray[np.int64]:
    """Ask a committee of classifiers, each fitted to a bootstrap of the labels."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(~np.isnan(labels))
    committee = []
    for _ in range(_N_COMMITTEE):
        sample = rng.choice(known, size=len(known)) if len(known) else known
        committee.append(_classifier(pool).fit(pool.embeddings[sample], labels[sample]))
    strategy = GreedyBALD(random_state=seed)
    return _asked(strategy, pool, labels, n, ensemble=committee, fit_ensemble=False)


def _blind(make: Callable[[int], Any]) -> Select:
    """Wrap a strategy that looks at vectors only."""

    def select(pool: PoolView, labels: Labels, n: int, seed: int) -> NDArray[np.int64]:
        return _asked(make(seed), pool, labels, n)

    return select


def _asked(strategy: Any, pool: PoolView, labels: Labels, n: int, **more: Any) -> NDArray[np.int64]:
    found = strategy.query(
        pool.embeddings.astype(np.float64),
        labels,
        candidates=pool.open_positions,
        batch_size=n,
        **more,
    )
    return np.asarray(found, dtype=np.int64)


def _k_means(pool: PoolView, labels: Labels, n: int, seed: int) -> NDArray[np.int64]:
    """Take the open text nearest to each of n centres, the largest cluster first."""
    candidates = pool.open_positions
    vectors = pool.embeddings[candidates]
    fitted = KMeans(n, n_init=1, random_state=seed).fit(vectors)
    sizes = np.bincount(fitted.labels_, minlength=n)
    distances = fitted.transform(vectors)
    chosen: list[int] = []
    for centre in np.argsort(-sizes, kind="stable"):
        nearest = np.argsort(distances[:, centre], kind="stable")
        chosen.append(next(int(at) for at in nearest if int(at) not in chosen))
    positions: NDArray[np.int64] = candidates[chosen]
    return positions


def _herding(seed: int) -> MaxHerding:
    return MaxHerding(metric="rbf", metric_dict={"gamma": _HERDING_GAMMA}, random_state=seed)


PUBLISHED: Mapping[str, Select] = {
    "least-confidence": _uncertainty("least_confident"),
    "breaking-ties": _uncertainty("margin_sampling"),
    "entropy": _uncertainty("entropy"),
    "badge": _badge,
    "bald": _bald,
    "core-set": _blind(lambda seed: CoreSet(random_state=seed)),
    "k-means": _k_means,
    "typiclust": _blind(lambda seed: TypiClust(random_state=seed)),
    "probcover": _blind(lambda seed: ProbCover(random_state=seed)),
    "maxherding": _blind(_herding),
}
"""Strategies by name."""
