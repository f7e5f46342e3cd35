"""Decide when rounds have converged, and when more human labels stop improving the accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_DECAYS = tuple(np.linspace(0.05, 2.0, 40).tolist())
_MIN_POINTS = 3
_N_NEXT = 50  # labels that must bring _MIN_GAIN
_MIN_GAIN = 0.005
_MAX_CHANGED = 0.02
_MAX_WIDTH = 0.10  # of the accuracy's interval, for a user who wants to rely on it


@dataclass(frozen=True, slots=True)
class RoundAdvice:
    """Whether another round is not expected to change anything; the sentence has the numbers."""

    is_converged: bool
    sentence: str
    figures: Mapping[str, float]


def advise_on_rounds(
    changed_shares: Sequence[float],
    *,
    max_changed: float = _MAX_CHANGED,
    patience: int = 2,
    max_rounds: int = 6,
) -> RoundAdvice:
    """Decide whether the loop of refinement and training has converged.

    Args:
        changed_shares: per round from the second on, the share of aggregated labels that differ
            from the round before, in [0, 1].
        max_changed: the largest such share of a round that changed nothing that matters.
        patience: how many such rounds in a row mean convergence (one can be chance).
        max_rounds: converged in any case after so many.
    """
    n_rounds = len(changed_shares) + 1
    recent = list(changed_shares[-patience:])
    figures = {"n_rounds": float(n_rounds), "max_changed": max_changed}
    if recent:
        figures["changed"] = recent[-1]
    shown = " and ".join(f"{share:.1%}" for share in recent)
    if len(recent) == patience and max(recent) <= max_changed:
        sentence = (
            f"The last {patience} rounds changed {shown} of the labels, at most {max_changed:.0%} "
            "each: another round is not expected to pay."
        )
        return RoundAdvice(True, sentence, figures)
    if n_rounds >= max_rounds:
        return RoundAdvice(True, f"The limit of {max_rounds} rounds is reached.", figures)
    sentence = (
        f"The latest changes were {shown} of the labels; until {patience} in a row are at most "
        f"{max_changed:.0%}, another round may pay."
    )
    if not recent:
        sentence = "One round cannot show whether labels still change."
    return RoundAdvice(False, sentence, figures)


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """Accuracy in [0, 1], and its interval's width, at a number of human labels."""

    n_labels: int
    accuracy: float
    interval_width: float


@dataclass(frozen=True, slots=True)
class LabelAdvice:
    """Whether more human labels are expected to pay; None: too early to say."""

    is_paying: bool | None
    sentence: str
    figures: Mapping[str, float]


def advise_on_labels(points: Sequence[LearningPoint], changed_share: float | None) -> LabelAdvice:
    """Decide whether more human labels are expected to pay.

    They do while the learning curve predicts half a point by the next 50, while over 2 % of the
    aggregated labels change, or while the accuracy's interval is over 10 points wide. Fewer than 3
    points at different numbers of labels: no advice.

    Args:
        points: the learning curve, in any order.
        changed_share: of the aggregated labels, between the last two points; None if unknown.
    """
    curve = sorted({point.n_labels: point for point in points}.values(), key=lambda p: p.n_labels)
    if len(curve) < _MIN_POINTS:
        sentence = (
            f"Too early to say whether more labels pay: the accuracy was measured at {len(curve)} "
            f"numbers of labels, {_MIN_POINTS} are needed."
        )
        return LabelAdvice(None, sentence, {"n_points": len(curve)})
    last = curve[-1]
    gain = expected_gain(curve, n_next=_N_NEXT)
    figures = {"n_labels": last.n_labels, "expected_gain": gain, "width": last.interval_width}
    if changed_share is not None:
        figures["changed"] = changed_share
    known = (
        f"With {last.n_labels} labels the accuracy is {last.accuracy:.1%} "
        f"(interval {100 * last.interval_width:.1f} points wide); the next {_N_NEXT} are "
        f"expected to add {100 * gain:.1f} points"
    )
    is_paying = True
    if gain >= _MIN_GAIN:
        advice = ": go on."
    elif changed_share is not None and changed_share > _MAX_CHANGED:
        advice = f", but the last ones still changed {changed_share:.1%} of the labels: go on."
    elif last.interval_width > _MAX_WIDTH:
        advice = ", but would tell the accuracy more exactly: go on if you need to know it."
    else:
        is_paying, advice = False, ": more labels are not expected to pay."
    return LabelAdvice(is_paying, f"{known}{advice}", figures)


def expected_gain(points: Sequence[LearningPoint], *, n_next: int) -> float:
    """Return how much accuracy the next `n_next` labels are expected to add, at least 0.0.

    The error is modeled as a + b n^-c, the usual form of learning curves (Hestness et al. 2017,
    arXiv 1712.00409), with a, b >= 0: for each c on a grid from 0.05 to 2 the best a and b are
    found by non-negative least squares, the best c wins. This has no local minimum, needs no start
    value, and an accuracy that does not rise gives b = 0 and so no gain. Points count by the
    inverse of their interval's width. With fewer than 3 points that have labels the mean slope is
    continued. Cost: 40 fits of two numbers.
    """
    curve = [point for point in points if point.n_labels > 0]
    if len(curve) < _MIN_POINTS:
        ordered = sorted(points, key=lambda point: point.n_labels)
        if len(ordered) < 2 or ordered[0].n_labels == ordered[-1].n_labels:
            return 0.0
        rise = ordered[-1].accuracy - ordered[0].accuracy
        return max(rise / (ordered[-1].n_labels - ordered[0].n_labels), 0.0) * n_next
    from scipy.optimize import nnls  # slow to import, and the status command often need not

    n = np.array([point.n_labels for point in curve], dtype=np.float64)
    errors = np.array([1 - point.accuracy for point in curve])
    weights = 1 / np.array([max(point.interval_width, 0.01) for point in curve])
    best_residual, best = np.inf, 0.0
    for decay in _DECAYS:
        # b is the fall from the first point on, which keeps the columns of one size
        columns = np.stack([np.ones_like(n), (n / n[0]) ** -decay], axis=1)
        (_, fall), residual = nnls(columns * weights[:, None], errors * weights)
        if residual < best_residual - 1e-12:
            now, then = ((x / n[0]) ** -decay for x in (n[-1], n[-1] + n_next))
            best_residual, best = residual, float(fall * (now - then))
    return best
