"""From which confidence on labels can be taken without a look, at a chosen error rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.intervals import share_bound

_N_STEPS = 20  # thresholds tried, each at another share of the pool


@dataclass(frozen=True, slots=True)
class AcceptRule:
    """Accept labels whose confidence is at least `threshold`; None: no label can be accepted.

    `share_accepted` is of the pool. `n_checked` audited labels are above the threshold, `n_wrong`
    of them wrong; `error_bound` is the upper bound of the error rate at this threshold. With
    probability 1 - `delta` over the draw of the audit slice, at most the share `max_error` of what
    the rule accepts is wrong. `reason` says it in words.
    """

    threshold: float | None
    share_accepted: float
    n_checked: int
    n_wrong: int
    error_bound: float
    max_error: float
    delta: float
    reason: str


@dataclass(frozen=True, slots=True)
class AcceptPoint:
    """One point of the curve: what accepting from this confidence on would mean.

    `error_bound` holds for this point by itself, not for a point chosen after looking at them all.
    """

    threshold: float
    share_accepted: float
    n_checked: int
    n_wrong: int
    error_bound: float


def accept_rule(
    confidences: NDArray[np.floating],
    is_right: NDArray[np.bool_],
    pool_confidences: NDArray[np.floating],
    *,
    max_error: float = 0.05,
    delta: float = 0.05,
) -> AcceptRule:
    """Return the lowest threshold above which errors are at most `max_error`, with a guarantee.

    `confidences` and `is_right` (m,) are of audited examples, a uniformly random sample;
    `pool_confidences` (N,) are of the pool that it was drawn from, each, as theirs, made without
    the example's own human label. The promise is about this pool as a whole.
    Thresholds are tested from strict to lenient with the exact binomial bound, and the first one
    that fails ends it: fixed-sequence testing needs no correction for the number of tests, so that
    P(error rate of what is accepted > max_error) <= delta. Trust or Escalate, Jung et al. 2024,
    arXiv 2407.18370 (ICLR 2025), section 2.

    **Deviations**: the thresholds are quantiles of the pool's confidences, not an even grid, and
    the first one is where enough audited examples are expected above it to pass the test with one
    error (with none, in a small audit). Both are chosen without looking at `is_right`, so the
    guarantee holds; an even grid starts where almost nothing can be tested and fails at once.
    Cost: m + N, 20 times.
    """
    if not (0 < max_error < 1 and 0 < delta < 1):
        raise ValueError(f"max_error {max_error} and delta {delta} must lie between 0 and 1")
    n_least = _n_least(max_error, delta)
    refusal = AcceptRule(None, 0.0, len(is_right), 0, 1.0, max_error, delta, "")
    if len(is_right) < n_least or len(pool_confidences) == 0:
        return replace(
            refusal,
            reason=f"{len(is_right)} audited labels; at least {n_least} are needed to promise an "
            f"error rate of {max_error:.0%}",
        )
    points = (
        _point(threshold, confidences, is_right, pool_confidences, delta)
        for threshold in _thresholds(pool_confidences, len(is_right), max_error, delta)
    )
    tested = _until_failure(points, max_error)
    passed = [point for point in tested if point.error_bound <= max_error]
    if not passed:
        return replace(refusal, reason=_why_none(tested[0], max_error))
    return _accepted(passed[-1], max_error, delta)


def _n_least(max_error: float, delta: float) -> int:
    """Return how many audited labels without an error show an error rate of `max_error`."""
    return math.ceil(math.log(delta) / math.log1p(-max_error))


def _until_failure(points: Iterable[AcceptPoint], max_error: float) -> list[AcceptPoint]:
    """Return the points up to the first that fails, and with it; none after it is looked at."""
    tested = []
    for point in points:
        tested.append(point)
        if point.error_bound > max_error:
            break
    return tested


def _accepted(point: AcceptPoint, max_error: float, delta: float) -> AcceptRule:
    return AcceptRule(
        point.threshold,
        point.share_accepted,
        point.n_checked,
        point.n_wrong,
        point.error_bound,
        max_error,
        delta,
        f"{point.n_wrong} of {point.n_checked} audited labels at or above "
        f"{point.threshold:.2f} are wrong; {point.share_accepted:.0%} of the pool can be "
        f"accepted with at most {max_error:.0%} errors ({1 - delta:.0%} sure)",
    )


def _why_none(failed: AcceptPoint, max_error: float) -> str:
    return (
        f"{failed.n_wrong} of the {failed.n_checked} surest audited labels are wrong, so "
        f"up to {failed.error_bound:.1%} of such labels may be; {max_error:.0%} was asked for"
    )


def _thresholds(
    pool_confidences: NDArray[np.floating], n_audited: int, max_error: float, delta: float
) -> list[float]:
    n_first = _n_least(max_error, delta)
    while n_first < n_audited and share_bound(1, n_first, delta=delta) > max_error:
        n_first += 1
    first = min(n_first / n_audited, 1.0)
    return _quantiles(pool_confidences, np.linspace(first, 1.0, _N_STEPS))


def _quantiles(pool_confidences: NDArray[np.floating], shares: NDArray[np.floating]) -> list[float]:
    """Return the confidences above which the given shares of the pool lie, strict to lenient."""
    ordered = np.sort(pool_confidences)[::-1]
    places = np.ceil(shares * len(ordered)).astype(int).clip(1, len(ordered)) - 1
    return sorted({float(c) for c in ordered[places]}, reverse=True)


def _point(
    threshold: float,
    confidences: NDArray[np.floating],
    is_right: NDArray[np.bool_],
    pool_confidences: NDArray[np.floating],
    delta: float,
) -> AcceptPoint:
    is_above = confidences >= threshold
    n_checked, n_wrong = int(is_above.sum()), int((is_above & ~is_right).sum())
    return AcceptPoint(
        threshold=threshold,
        share_accepted=float((pool_confidences >= threshold).mean()),
        n_checked=n_checked,
        n_wrong=n_wrong,
        error_bound=share_bound(n_wrong, n_checked, delta=delta),
    )
