"""The random holdout: a uniform sample of tasks, and unbiased estimates from its human labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.holdout import HOLDOUT_SHARE, holdout_rank
from backend.evaluation.metrics import Estimate, Kappa, estimate_kappa, tighter_share


def with_holdout(order: Sequence[int], *, seed: int) -> list[int]:
    """Return a query strategy's order of example ids with the holdout spread evenly through it.

    Examples of the holdout are taken out of the strategy's order and come in the order of their
    ranks, one in ten. Wherever labeling stops, the labeled ones are then the first of a random
    order: a uniformly random sample, which the strategy's first picks are not. A longer list of one
    kind ends the order.
    """
    ranks = {example_id: holdout_rank(example_id, seed=seed) for example_id in order}
    in_order = sorted(order, key=lambda e: (ranks[e], e))
    held_out = deque(e for e in in_order if ranks[e] < HOLDOUT_SHARE)
    others = deque(e for e in order if ranks[e] >= HOLDOUT_SHARE)
    mixed: list[int] = []
    while held_out and others:
        is_next_held_out = int((len(mixed) + 1) * HOLDOUT_SHARE) > int(len(mixed) * HOLDOUT_SHARE)
        mixed.append((held_out if is_next_held_out else others).popleft())
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
