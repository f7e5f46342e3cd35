"""Choose the confidence from which labels are accepted unchecked, at a guaranteed error rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.metrics import share_bound

_N_THRESHOLDS = 20  # each at another share of the pool


@dataclass(frozen=True, slots=True)
class AcceptRule:
    """Accept labels whose confidence is at least `threshold`; None: no label can be accepted.

    `share_accepted` is of the pool. `n_checked` labels of the holdout are above the threshold,
    `n_wrong` of them wrong; `error_bound` is the upper bound of the error rate at this threshold.
    With probability 1 - `delta` over the draw of the holdout, at most the share `max_error` of the
    accepted labels is wrong. `reason` says it in words.
    """

    threshold: float | None
    share_accepted: float
    n_checked: int
    n_wrong: int
    error_bound: float
    max_error: float
    delta: float
    reason: str


def accept_rule(
    confidences: NDArray[np.floating],
    is_right: NDArray[np.bool_],
    pool_confidences: NDArray[np.floating],
    *,
    max_error: float = 0.05,
    delta: float = 0.05,
) -> AcceptRule:
    """Return the lowest threshold above which errors are at most `max_error`, with a guarantee.

    Args:
        confidences: of a uniformly random holdout (m,), made without its human labels.
        is_right: whether the holdout's labels equal the human ones (m,).
        pool_confidences: of the pool that the guarantee is about (N,), made likewise.
        max_error: the error rate to guarantee, in (0, 1).
        delta: the probability with which the guarantee may fail, in (0, 1).

    Thresholds are tested from strict to lenient with the exact binomial bound until one fails:
    fixed-sequence testing needs no correction for the number of tests, so that P(error rate of what
    is accepted > max_error) <= delta. Trust or Escalate, Jung et al. 2024, arXiv 2407.18370 (ICLR
    2025), section 2.

    **Deviations**: the thresholds are quantiles of the pool's confidences, not an even grid, and
    the first one is where enough holdout examples are expected above it to pass the test with one
    error (with none, in a small holdout). Both are chosen without looking at `is_right`, so the
    guarantee holds; an even grid starts where almost nothing can be tested and fails at once.
    Cost: m + N, 20 times.
    """
    if not (0 < max_error < 1 and 0 < delta < 1):
        raise ValueError(f"max_error {max_error} and delta {delta} must lie between 0 and 1")
    rejected = partial(AcceptRule, None, 0.0, len(is_right), 0, 1.0, max_error, delta)
    n_least = math.ceil(math.log(delta) / math.log1p(-max_error))  # none of so many may be wrong
    if len(is_right) < n_least or len(pool_confidences) == 0:
        return rejected(
            f"{len(is_right)} audited labels; at least {n_least} are needed to promise an "
            f"error rate of {max_error:.0%}"
        )
    n_first = n_least
    while n_first < len(is_right) and share_bound(1, n_first, delta=delta) > max_error:
        n_first += 1
    accepted = None
    for threshold in _thresholds(pool_confidences, min(n_first / len(is_right), 1.0)):
        is_above = confidences >= threshold
        n_checked, n_wrong = int(is_above.sum()), int((is_above & ~is_right).sum())
        bound = share_bound(n_wrong, n_checked, delta=delta)
        if bound > max_error:
            break
        share = float((pool_confidences >= threshold).mean())
        reason = (
            f"{n_wrong} of {n_checked} audited labels at or above {threshold:.2f} are wrong; "
            f"{share:.0%} of the pool can be accepted with at most {max_error:.0%} errors "
            f"({1 - delta:.0%} sure)"
        )
        accepted = AcceptRule(threshold, share, n_checked, n_wrong, bound, max_error, delta, reason)
    return accepted or rejected(
        f"{n_wrong} of the {n_checked} surest audited labels are wrong, so "
        f"up to {bound:.1%} of such labels may be; {max_error:.0%} was asked for"
    )


def _thresholds(pool_confidences: NDArray[np.floating], first: float) -> list[float]:
    """Return confidences from strict to lenient, above which even shares of the pool lie."""
    shares = np.linspace(first, 1.0, _N_THRESHOLDS)
    ordered = np.sort(pool_confidences)[::-1]
    places = np.ceil(shares * len(ordered)).astype(int).clip(1, len(ordered)) - 1
    return sorted({float(confidence) for confidence in ordered[places]}, reverse=True)
