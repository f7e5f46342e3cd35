"""Choose the confidence from which labels are accepted unchecked, at a guaranteed error rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr

_DELTA = 0.05
_N_THRESHOLDS = 20  # each at another share of the labels
_PRIOR_RIGHT = 0.5
_OVERCONFIDENCE = 1.5  # confidences are expected to promise this much too little error
_N_NEIGHBORS, _PRIOR_WEIGHT = 20, 10.0


@dataclass(frozen=True, slots=True, eq=False)
class CheckedLabels:
    """Labels of a uniformly random sample, made without the answers by which they are checked.

    `confidences` (m,), below 0 for a text without a label; `is_right` (m,): the label equals the
    answer.
    """

    confidences: NDArray[np.floating]
    is_right: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.is_right)


@dataclass(frozen=True, slots=True)
class AcceptRule:
    """Accept labels whose confidence is at least `threshold`; None: no label can be accepted.

    `n_checked` labels of the sample are at or above the threshold, `n_wrong` of them wrong; with
    probability 1 - `delta` over the draw of the sample at most the share `error_bound`, and so at
    most `max_error`, of the `n_accepted` labels is wrong. `reason` says it in words.
    """

    threshold: float | None
    n_accepted: int
    n_checked: int
    n_wrong: int
    error_bound: float
    max_error: float
    delta: float
    reason: str


def accept_rule(
    checked: CheckedLabels,
    confidences: NDArray[np.floating],
    *,
    max_error: float = 0.05,
    delta: float = _DELTA,
    n_unknown: int = 0,
) -> AcceptRule:
    """Return the lowest threshold above which errors are at most `max_error`, with a guarantee.

    Args:
        checked: a uniformly random sample of all texts.
        confidences: of the labels that could be accepted (N,): all texts but the sample.
        max_error: the error rate to guarantee, in (0, 1).
        delta: the probability with which the guarantee may fail, in (0, 1).
        n_unknown: texts that belong to "all", cannot be accepted and have no known confidence; they
            count as right and above every threshold, which is worst: few errors in the sample then
            say least about the others.

    Thresholds are tested from strict to lenient until one fails: fixed-sequence testing needs no
    correction for the number of tests (Trust or Escalate, Jung et al. 2024, arXiv 2407.18370,
    section 2; Angelopoulos et al. 2021, arXiv 2110.01052, section 4.2). Each test asks how many
    wrong labels may be left among the N, after w of a checked ones were wrong. The texts are
    finitely many and drawn without replacement, so the count is hypergeometric; a number of wrong
    labels is excluded where its likelihood is below delta times the likelihood under a
    beta-binomial prior. That ratio is a martingale in the sample's size (Waudby-Smith and Ramdas
    2020, arXiv 2006.04347, section 2), so that one threshold may be tested after each answer.

    **Deviations**: the first threshold is where the confidences themselves expect the test to be
    passed, with half as many errors again as they say. Nothing of this looks at `is_right`. As
    answers come in it may move, which the proof for repeated looks leaves out and the simulation in
    docs/benchmarks/accept.md measures. Cost: m + N, 20 times.
    """
    if not (0 < max_error < 1 and 0 < delta < 1):
        raise ValueError(f"max_error {max_error} and delta {delta} must lie between 0 and 1")
    promise = _Promise(max_error, delta)
    last = _last_tested(checked, confidences, n_unknown, promise)
    if last is None:
        reason = _why_untested(checked, confidences, promise)
        return AcceptRule(None, 0, len(checked), 0, 1.0, max_error, delta, reason)
    n_more = promise.bound(last.n_wrong, last.n_checked, last.n_texts)
    bound = min(1.0, n_more / last.n_labels)
    share = f"{last.n_wrong} of {last.n_checked} holdout labels at or above {last.threshold:.2f}"
    reason = f"{share} are wrong, so up to {bound:.1%} of such labels may be"
    return AcceptRule(
        last.threshold if last.is_passed else None,
        last.n_labels if last.is_passed else 0,
        last.n_checked,
        last.n_wrong,
        bound,
        max_error,
        delta,
        reason if last.is_passed else f"{reason}; {max_error:.0%} was asked for",
    )


def expected_accepted(
    checked: CheckedLabels,
    confidences: NDArray[np.floating],
    n_more: int,
    *,
    rng: np.random.Generator,
    max_error: float = 0.05,
    n_unknown: int = 0,
    n_draws: int = 20,
) -> float:
    """Return how many labels would be accepted on average after `n_more` answers.

    Answers are drawn: they are to texts of `n_unknown`, whose confidences are as those of the rest.
    A label is right as often as the 20 checked ones of the nearest confidence, and ten more that
    are as often right as it says itself. A forecast, no promise. The other arguments are those of
    `accept_rule`.
    """
    n_more = min(n_more, len(confidences))
    is_known = checked.confidences >= 0
    order = np.argsort(checked.confidences[is_known], kind="stable")
    known, hits = checked.confidences[is_known][order], checked.is_right[is_known][order]
    sums, n_near = np.r_[0, np.cumsum(hits)], min(_N_NEIGHBORS, len(known))
    start = np.searchsorted(known, confidences) - n_near // 2
    start = np.clip(start, 0, len(known) - n_near)
    n_right = sums[start + n_near] - sums[start]
    chance = (n_right + _PRIOR_WEIGHT * confidences) / (n_near + _PRIOR_WEIGHT)
    promise, counts = _Promise(max_error, _DELTA), []
    for _ in range(n_draws):
        rows = rng.choice(len(confidences), n_more, replace=False)
        drawn = CheckedLabels(
            np.r_[checked.confidences, confidences[rows]],
            np.r_[checked.is_right, rng.random(n_more) < chance[rows]],
        )
        n_left = max(0, n_unknown - n_more)
        last = _last_tested(drawn, confidences, n_left, promise)
        counts.append(last.n_labels if last and last.is_passed else 0)
    return float(np.mean(counts))


@dataclass(frozen=True, slots=True)
class _Promise:
    max_error: float
    delta: float

    def excludes(self, n_wrong: int, n_checked: int, n_texts: int, n_more: int) -> bool:
        """Return whether `n_more` wrong labels beside the checked ones can be ruled out."""
        n_all = n_wrong + n_more
        if n_all > n_texts - (n_checked - n_wrong):
            return True  # there are not so many texts
        if n_all * n_checked <= n_wrong * n_texts:
            return False  # fewer than the sample itself suggests
        n_right = n_checked - n_wrong
        likelihood = (
            _log_choose(n_all, n_wrong)
            + _log_choose(n_texts - n_all, n_right)
            - _log_choose(n_texts, n_checked)
        )
        a, b = _PRIOR_RIGHT, 1 / self.max_error
        expected = (
            _log_choose(n_checked, n_wrong) + _log_beta(a + n_wrong, b + n_right) - _log_beta(a, b)
        )
        return likelihood <= log(self.delta) + expected

    def bound(self, n_wrong: int, n_checked: int, n_texts: int) -> int:
        """Return how many wrong labels there may be beside the checked ones."""
        low, high = 0, n_texts - n_checked + 1  # so many are never there
        while high - low > 1:
            middle = (low + high) // 2
            if self.excludes(n_wrong, n_checked, n_texts, middle):
                high = middle
            else:
                low = middle
        return low


@dataclass(frozen=True, slots=True)
class _Step:
    """One threshold: what lies above it, how many errors its test allows, and what was found."""

    threshold: float
    n_labels: int
    n_checked: int
    n_wrong: int
    n_texts: int
    n_allowed: int
    chance: float

    @property
    def is_passed(self) -> bool:
        """Return whether no more labels were wrong than the test allows."""
        return self.n_wrong <= self.n_allowed


def _last_tested(
    checked: CheckedLabels,
    confidences: NDArray[np.floating],
    n_unknown: int,
    promise: _Promise,
) -> _Step | None:
    """Return the last threshold that passed, else the first one, which failed; None: no test."""
    steps = list(_steps(checked, confidences, n_unknown, promise))
    first = max(steps, key=lambda step: step.chance, default=None)
    if first is None or first.n_allowed < 0:
        return None
    passed = list(takewhile(lambda step: step.is_passed, steps[steps.index(first) :]))
    return passed[-1] if passed else first


def _steps(
    checked: CheckedLabels,
    confidences: NDArray[np.floating],
    n_unknown: int,
    promise: _Promise,
) -> Iterator[_Step]:
    """Yield thresholds from strict to lenient, above which even shares of the labels lie."""
    ordered = np.sort(confidences)
    shares = np.arange(1, _N_THRESHOLDS + 1) / _N_THRESHOLDS
    places = len(ordered) - np.ceil(shares * len(ordered)).astype(int)
    for threshold in np.unique(ordered[places])[::-1] if len(ordered) else ():
        above = ordered[np.searchsorted(ordered, threshold) :]
        is_above = checked.confidences >= threshold
        n_checked, n_labels = int(is_above.sum()), len(above)
        n_wrong = int((is_above & ~checked.is_right).sum())
        n_texts = n_labels + n_checked + n_unknown
        n_more, n_allowed = int(promise.max_error * n_labels) + 1, -1
        while n_allowed < n_checked and promise.excludes(n_allowed + 1, n_checked, n_texts, n_more):
            n_allowed += 1
        n_expected = _OVERCONFIDENCE * n_checked * float(1 - above.mean()) + 0.1
        chance = float(pdtr(n_allowed, max(n_expected, 1e-9))) if n_allowed >= 0 else -1.0
        yield _Step(float(threshold), n_labels, n_checked, n_wrong, n_texts, n_allowed, chance)


def _why_untested(
    checked: CheckedLabels, confidences: NDArray[np.floating], promise: _Promise
) -> str:
    """Return why no test could be passed, and how many right answers could pass the widest one."""
    n_labels = len(confidences)
    if not n_labels:
        return "there is no label that could be accepted"
    n_more, low, high = int(promise.max_error * n_labels) + 1, 0, 1
    while not promise.excludes(0, high, n_labels + high, n_more):
        low, high = high, 2 * high
    while high - low > 1:  # the more answers are right, the more is excluded
        middle = (low + high) // 2
        is_enough = promise.excludes(0, middle, n_labels + middle, n_more)
        low, high = (low, middle) if is_enough else (middle, high)
    return (
        f"{len(checked)} holdout answers; no error in {high} is the least that can promise an "
        f"error rate of {promise.max_error:.0%}"
    )


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
