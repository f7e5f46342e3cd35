"""Baseline query strategies: random order and those of scikit-activeml, behind our interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import subsample
from backend.active_learning.diagnostics import diagnose
from backend.active_learning.strategy_interface import Ordering, PoolView, Positions

# scikit-activeml and scikit-learn are imported on use: the web process imports this module

_C = 30.0
_N_COMMITTEE = 8
_MAX_TEXTS = 4000
"""Some strategies compare every text with every other: larger pools are sampled down to this."""
_HERDING_GAMMA = 0.5
"""The paper's width of 1 on unit vectors; the library's 1 / n_features is nearly flat there."""

Labels = NDArray[np.float64]
Select = Callable[[PoolView, Labels, int, int], Positions]
"""From a pool, its labels (NaN where open), how many are wanted and a seed to positions."""


class RandomOrder:
    """Order the open positions at random."""

    name = "random"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool."""
        return complete_order(pool, [], "drawn at random", rng)


def complete_order(
    pool: PoolView, head: Sequence[int], reason: str, rng: np.random.Generator
) -> Ordering:
    """Return an ordering of `head`, for that reason, with all other open positions at random.

    Raises:
        ValueError: the head repeats a position or holds one that is not open.
    """
    chosen = np.array(head, dtype=np.int64)
    open_positions = pool.open_positions
    if len(np.unique(chosen)) < len(chosen) or not np.isin(chosen, open_positions).all():
        raise ValueError("a strategy chose a position twice, or one that is labeled already")
    rest = rng.permutation(np.setdiff1d(open_positions, chosen))
    positions = np.concatenate([chosen, rest]).astype(np.int64)
    reasons = (reason,) * len(chosen) + ("drawn at random",) * len(rest)
    return Ordering(positions, reasons, diagnose(pool, positions, rng))


class PublishedStrategy:
    """Order by one of scikit-activeml's strategies: its first `n_head`, the rest at random.

    Strategies that cluster into as many groups as they pick depend on `n_head`.

    Raises:
        ValueError: `name` is none of `PUBLISHED`.
    """

    def __init__(self, name: str, *, n_head: int) -> None:
        if name not in PUBLISHED:
            raise ValueError(f"no strategy {name!r}; there are {', '.join(PUBLISHED)}")
        self.name = name
        self._n_head = n_head

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        """Order all open positions of the pool."""
        candidates = subsample(pool.open_positions, _MAX_TEXTS, rng)
        rows = np.sort(np.concatenate([pool.labeled_positions, candidates]))
        place = {int(row): at for at, row in enumerate(rows)}
        labeled = {place[row]: label for row, label in pool.labeled.items()}
        sample = PoolView(
            pool.example_ids[rows],
            pool.embeddings[rows],
            labeled=labeled,
            label_names=pool.label_names,
        )
        n_wanted = min(self._n_head, len(sample.open_positions))
        labels = np.full(len(sample), np.nan)
        for at, label in sample.labeled.items():
            labels[at] = np.nan if label is None else label
        seed = int(rng.integers(2**31 - 1))
        chosen: Positions = np.zeros(0, dtype=np.int64)
        if n_wanted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chosen = PUBLISHED[self.name](sample, labels, n_wanted, seed)
        return complete_order(pool, rows[chosen].tolist(), f"chosen by {self.name}", rng)


def _classifier(pool: PoolView) -> Any:
    from skactiveml.classifier import SklearnClassifier
    from sklearn.linear_model import LogisticRegression

    known = [label for label in pool.labeled.values() if label is not None]
    n_classes = max([len(pool.label_names), 2, *(label + 1 for label in known)])
    return SklearnClassifier(LogisticRegression(C=_C, max_iter=200), classes=range(n_classes))


def _skactiveml(make: Callable[[Any, int], Any], *, has_classifier: bool = False) -> Select:
    """Return the selection of a strategy that `make` builds of `skactiveml.pool` and a seed."""

    def select(pool: PoolView, labels: Labels, n: int, seed: int) -> Positions:
        from skactiveml import pool as strategies

        more = {"clf": _classifier(pool)} if has_classifier else {}
        return _query(make(strategies, seed), pool, labels, n, **more)

    return select


def _query(strategy: Any, pool: PoolView, labels: Labels, n: int, **more: Any) -> Positions:
    vectors, candidates = pool.embeddings.astype(np.float64), pool.open_positions
    chosen = strategy.query(vectors, labels, candidates=candidates, batch_size=n, **more)
    return np.asarray(chosen, dtype=np.int64)


def _bald(pool: PoolView, labels: Labels, n: int, seed: int) -> Positions:
    """Select by the disagreement of classifiers that are each fitted to a bootstrap sample."""
    from skactiveml.pool import GreedyBALD

    rng = np.random.default_rng(seed)
    known = np.flatnonzero(~np.isnan(labels))
    committee = []
    for _ in range(_N_COMMITTEE):
        sample = rng.choice(known, size=len(known)) if len(known) else known
        committee.append(_classifier(pool).fit(pool.embeddings[sample], labels[sample]))
    strategy = GreedyBALD(random_state=seed)
    return _query(strategy, pool, labels, n, ensemble=committee, fit_ensemble=False)


def _k_means(pool: PoolView, labels: Labels, n: int, seed: int) -> Positions:
    """Select the open text nearest to each of n centers, the largest cluster first."""
    from sklearn.cluster import KMeans

    candidates = pool.open_positions
    vectors = pool.embeddings[candidates]
    fitted = KMeans(n, n_init=1, random_state=seed).fit(vectors)
    sizes = np.bincount(fitted.labels_, minlength=n)
    distances = fitted.transform(vectors)
    chosen: list[int] = []
    for center in np.argsort(-sizes, kind="stable"):
        nearest = np.argsort(distances[:, center], kind="stable")
        chosen.append(next(int(at) for at in nearest if int(at) not in chosen))
    return candidates[chosen]


def _uncertainty(method: str) -> Select:
    return _skactiveml(
        lambda of, seed: of.UncertaintySampling(method=method, random_state=seed),
        has_classifier=True,
    )


PUBLISHED: Mapping[str, Select] = {
    "least-confidence": _uncertainty("least_confident"),
    "breaking-ties": _uncertainty("margin_sampling"),
    "entropy": _uncertainty("entropy"),
    "badge": _skactiveml(lambda of, seed: of.Badge(random_state=seed), has_classifier=True),
    "bald": _bald,
    "core-set": _skactiveml(lambda of, seed: of.CoreSet(random_state=seed)),
    "k-means": _k_means,
    "typiclust": _skactiveml(lambda of, seed: of.TypiClust(random_state=seed)),
    "probcover": _skactiveml(lambda of, seed: of.ProbCover(random_state=seed)),
    "maxherding": _skactiveml(
        lambda of, seed: of.MaxHerding(
            metric="rbf", metric_dict={"gamma": _HERDING_GAMMA}, random_state=seed
        )
    ),
}
"""Strategies by name."""
