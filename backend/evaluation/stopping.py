"""When a loop of rounds has converged, and when more human labels stop paying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

_DECAYS = tuple(np.linspace(0.05, 2.0, 40).tolist())
_MIN_POINTS = 3


@dataclass(frozen=True, slots=True)
class RoundAdvice:
    """Whether another round is not expected to change anything; the sentence has the numbers."""

    is_converged: bool
    sentence: str
    figures: Mapping[str, float]


def advise_on_rounds(
    changed_shares: Sequence[float],
    *,
    max_changed: float = 0.02,
    patience: int = 2,
    max_rounds: int = 6,
) -> RoundAdvice:
    """Say whether the loop of refinement and training has converged.

    `changed_shares` holds, per round from the second on, the share of fused labels that differ from
    the round before, in [0, 1]. Converged: at most `max_changed` of them `patience` times in a row
    (a round can stand still once by chance), or `max_rounds` rounds were made.
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
    if not recent:
        return RoundAdvice(False, "One round cannot show whether labels still change.", figures)
    sentence = (
        f"The latest changes were {shown} of the labels; until {patience} in a row are at most "
        f"{max_changed:.0%}, another round may pay."
    )
    return RoundAdvice(False, sentence, figures)


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """What was known with `n_labels` human labels: accuracy in [0, 1] and its interval's width."""

    n_labels: int
    accuracy: float
    interval_width: float


@dataclass(frozen=True, slots=True)
class Goals:
    """When labels pay: the least gain of accuracy that the next `n_next` labels must bring.

    `max_changed`: of the fused labels, between the last two points; `max_width`: how wide the
    interval of the accuracy may be for a user who wants to rely on it.
    """

    n_next: int = 50
    min_gain: float = 0.005
    max_changed: float = 0.02
    max_width: float = 0.10


@dataclass(frozen=True, slots=True)
class LabelAdvice:
    """Whether more human labels are expected to pay; None: too early to say.

    `expected_gain` is that of accuracy by the next labels, as the learning curve has it.
    """

    is_paying: bool | None
    expected_gain: float | None
    sentence: str
    figures: Mapping[str, float]


def advise_on_labels(
    points: Sequence[LearningPoint], changed_share: float | None, goals: Goals | None = None
) -> LabelAdvice:
    """Say in one sentence whether to go on labelling.

    Labels pay while the learning curve promises `min_gain`, while the fused labels still change
    (`changed_share`, between the last two points; None if unknown), or while the accuracy is known
    less exactly than wished for. Fewer than 3 points at different numbers of labels: no advice.
    """
    goals = goals or Goals()
    curve = sorted({point.n_labels: point for point in points}.values(), key=lambda p: p.n_labels)
    if len(curve) < _MIN_POINTS:
        sentence = (
            f"Too early to say whether more labels pay: the accuracy was measured at {len(curve)} "
            f"numbers of labels, {_MIN_POINTS} are needed."
        )
        return LabelAdvice(None, None, sentence, {"n_points": len(curve)})
    last = curve[-1]
    gain = expected_gain(curve, n_next=goals.n_next)
    figures = {"n_labels": last.n_labels, "expected_gain": gain, "width": last.interval_width}
    if changed_share is not None:
        figures["changed"] = changed_share
    known = (
        f"With {last.n_labels} labels the accuracy is {last.accuracy:.1%} "
        f"(interval {100 * last.interval_width:.1f} points wide); the next {goals.n_next} are "
        f"expected to add {100 * gain:.1f} points"
    )
    if gain >= goals.min_gain:
        return LabelAdvice(True, gain, f"{known}: go on.", figures)
    if changed_share is not None and changed_share > goals.max_changed:
        why = f"but the last ones still changed {changed_share:.1%} of the labels: go on."
        return LabelAdvice(True, gain, f"{known}, {why}", figures)
    if last.interval_width > goals.max_width:
        why = "but would tell the accuracy more exactly: go on if you need to know it."
        return LabelAdvice(True, gain, f"{known}, {why}", figures)
    return LabelAdvice(False, gain, f"{known}: more labels are not expected to pay.", figures)


def expected_gain(points: Sequence[LearningPoint], *, n_next: int) -> float:
    """Return how much accuracy the next `n_next` labels are expected to add, at least 0.0.

    The error is taken as a + b n^-c, the usual form of learning curves (Hestness et al. 2017, arXiv
    1712.00409), with a, b >= 0: for each c on a grid from 0.05 to 2 the best a and b are found by
    non-negative least squares, the best c wins. It never falls into a local minimum, needs no start
    value, and an accuracy that does not rise gives b = 0 and so no gain. Points count by the
    inverse of their interval's width. Where the curve cannot tell (fewer than 3 points, no labels),
    the mean slope is continued. Cost: 40 fits of two numbers.
    """
    curve = [point for point in points if point.n_labels > 0]
    if len(curve) < _MIN_POINTS:
        return _slope(points) * n_next
    n = np.array([point.n_labels for point in curve], dtype=np.float64)
    errors = np.array([1 - point.accuracy for point in curve])
    weights = 1 / np.array([max(point.interval_width, 0.01) for point in curve])
    best_residual, best = np.inf, 0.0
    for decay in _DECAYS:
        # b stands for the fall from the first point on, which keeps the columns of one size
        columns = np.stack([np.ones_like(n), (n / n[0]) ** -decay], axis=1)
        (_, fall), residual = nnls(columns * weights[:, None], errors * weights)
        if residual < best_residual - 1e-12:
            now, then = ((x / n[0]) ** -decay for x in (n[-1], n[-1] + n_next))
            best_residual, best = residual, float(fall * (now - then))
    return best


def _slope(points: Sequence[LearningPoint]) -> float:
    """Return the mean gain per label from the first point to the last, at least 0.0."""
    ordered = sorted(points, key=lambda point: point.n_labels)
    if len(ordered) < 2 or ordered[0].n_labels == ordered[-1].n_labels:
        return 0.0
    rise = ordered[-1].accuracy - ordered[0].accuracy
    return max(rise / (ordered[-1].n_labels - ordered[0].n_labels), 0.0)
