"""The random holdout: a uniform sample of tasks, and unbiased estimates from its human labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.holdout import holdout_order, in_holdout
from backend.domain.labels import MIN_HOLDOUT_ANSWERS
from backend.evaluation.metrics import Estimate, Kappa, estimate_kappa, tighter_share


def n_held_out(n_answers: float, share: float) -> int:
    """Return how many of the first answers are for the holdout.

    The share is the highest until there are as many as an estimate needs. An interval's width falls
    with the root of their number: later only as many are asked for as keep it falling, and their
    number grows with the root of all answers.

    Args:
        n_answers: how many tasks people have answered.
        share: of the first answers, in [0, 1].
    """
    if share <= 0:
        return 0
    n_early = MIN_HOLDOUT_ANSWERS / share
    if n_answers <= n_early:
        return int(n_answers * share)
    return int(MIN_HOLDOUT_ANSWERS * (n_answers / n_early) ** 0.5)


def with_holdout(
    order: Sequence[int], *, seed: int, share: float = 0.15, answered: Collection[int] = ()
) -> list[int]:
    """Return a query strategy's order of example ids with the holdout spread through it.

    Examples of the holdout are taken out of the strategy's order and come in the order of their
    ranks, as often as `n_held_out` says. Wherever labeling stops, the labeled ones are then the
    first of a random order: a uniformly random sample, which the strategy's first picks are not. A
    longer list of one kind ends the order.

    Args:
        order: example ids that nobody has answered.
        seed: the project's.
        share: of the holdout in the first answers, in [0, 1].
        answered: example ids with an answer, which the share counts from.
    """
    in_order = holdout_order(order, seed=seed)
    members = set(in_order)
    held_out, others = deque(in_order), deque(e for e in order if e not in members)
    n_done = sum(in_holdout(e, seed=seed) for e in answered)
    mixed: list[int] = []
    while held_out and others:
        is_held_out = n_done < n_held_out(len(answered) + len(mixed) + 1, share)
        mixed.append((held_out if is_held_out else others).popleft())
        n_done += is_held_out
    return [*mixed, *held_out, *others]


@dataclass(frozen=True, slots=True)
class LabelSource:
    """The label probabilities (n, K) of one source, in the pool's order; a row of zeros is none.

    Rows of all examples with human labels, of the holdout or not, must be made without the
    examples' own labels (before they came, or cross-fitted): else the source repeats its training
    labels and looks better than it is, and the holdout is no random sample of the rows any more.
    """

    name: str
    probabilities: NDArray[np.floating]

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Return which examples have an answer."""
        return np.asarray(self.probabilities.sum(axis=1) > 0)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the likeliest class of each example, -1 for no answer."""
        return np.where(self.is_answered, self.probabilities.argmax(axis=1), -1)

    @property
    def confidences(self) -> NDArray[np.float64]:
        """Return the probability of the likeliest class, 0.0 for no answer."""
        return np.asarray(self.probabilities.max(axis=1, initial=0.0), dtype=np.float64)


def estimate_accuracies(
    sources: Sequence[LabelSource],
    human_labels: Mapping[int, int],
    *,
    reference: LabelSource | None = None,
) -> dict[str, Estimate]:
    """Estimate each source's accuracy over the pool, by name; no answer counts as wrong.

    Args:
        sources: what is measured.
        human_labels: position in the pool -> class index, of the holdout's examples only.
        reference: a source (the aggregated labels, as a rule) whose probability of a label predicts
            that it is right, which narrows the intervals (`tighter_share`); None for the source's
            own confidence.
    """
    rows, truth = _as_arrays(human_labels)
    accuracies = {}
    for source in sources:
        predicted = source.confidences  # the probability that each label is right
        if reference is not None:
            labels = np.maximum(source.labels, 0)[:, None]
            own = np.take_along_axis(reference.probabilities, labels, axis=1)[:, 0]
            predicted = np.where(reference.is_answered, own, predicted)
            predicted = np.where(source.is_answered, predicted, 0.0)
        is_right = source.labels[rows] == truth
        estimate = tighter_share(is_right, predicted[rows], np.delete(predicted, rows))
        if estimate is not None:
            accuracies[source.name] = estimate
    return accuracies


def estimate_kappas(
    sources: Sequence[LabelSource], human_labels: Mapping[int, int]
) -> dict[str, Kappa]:
    """Estimate each source's chance-corrected agreement with people, where it answers.

    The arguments are those of `estimate_accuracies`.
    """
    rows, truth = _as_arrays(human_labels)
    kappas = {}
    for source in sources:
        labels = source.labels[rows]
        is_answered = labels >= 0
        kappa = estimate_kappa(labels[is_answered], truth[is_answered])
        if kappa is not None:
            kappas[source.name] = kappa
    return kappas


def _as_arrays(human_labels: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = np.array(sorted(human_labels), dtype=np.int64)
    return rows, np.array([human_labels[int(row)] for row in rows], dtype=np.int64)
