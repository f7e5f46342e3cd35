"""Estimate shares and the agreement of annotators, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtrit

_LEVEL = 0.95  # the probability that an interval covers the truth
_MIN_PER_OUTCOME = 5  # right and wrong answers that the normal approximation needs of each
_MIN_SAMPLE = 30
_MIN_TEXTS_FOR_KAPPA = 100


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa, chance-corrected agreement, with its interval, from `n` examples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with its interval, from a sample of `n`, perhaps with predictions."""

    value: float
    low: float
    high: float
    n: int
    method: Literal["clopper-pearson", "prediction-powered"]

    @property
    def width(self) -> float:
        """Return the width of the interval."""
        return self.high - self.low


def micro_f1(found: Sequence[frozenset[Any]], truth: Sequence[frozenset[Any]]) -> float:
    """Return the F1 of the parts of n answers, counted over all; 1 where there are none at all."""
    n_right = sum(len(ours & theirs) for ours, theirs in zip(found, truth, strict=True))
    n_all = sum(map(len, found)) + sum(map(len, truth))
    return 2 * n_right / n_all if n_all else 1.0


def share_interval(n_hits: int, n: int) -> tuple[float, float]:
    """Return the two-sided 95 % Clopper-Pearson interval of a share; (0, 1) without any draw.

    It is exact: it covers the truth with at least the given probability for every n and share,
    also near 0 and 1, where Wilson's (up to a tenth narrower) falls short of it.
    """
    tail = (1 - _LEVEL) / 2
    return 1 - share_bound(n - n_hits, n, delta=tail), share_bound(n_hits, n, delta=tail)


def share_bound(n_hits: int, n: int, *, delta: float) -> float:
    """Return the one-sided Clopper-Pearson bound: the share is above it with at most `delta`."""
    if n_hits >= n:
        return 1.0
    return float(betaincinv(n_hits + 1, n - n_hits, 1 - delta))


def powered_share(
    is_hit: NDArray[np.bool_], predicted: NDArray[np.floating], predicted_rest: NDArray[np.floating]
) -> Estimate | None:
    """Estimate a share from a random sample and a model's predictions about everything else.

    Args:
        is_hit: the sampled outcomes (n,).
        predicted: a model's probabilities of a hit for the sample (n,), made without `is_hit`.
        predicted_rest: the same for all that is not in the sample (N,).

    The mean prediction over the rest is corrected by its mean error on the sample, so that wrong
    predictions cost width and not truth; their weight (lambda, in [0, 1]) minimizes the variance:
    PPI++, Angelopoulos et al. 2023, arXiv 2311.01453, section 6 for the mean.

    None where the normal approximation does not hold: fewer than 5 hits or 5 misses in the sample,
    fewer than 30 examples, or nothing else to predict. **Deviations**: Student's t instead of the
    normal quantile, with a degree of freedom less for lambda, which is fitted to the same sample.
    The interval is cut at 0 and 1. Cost: linear in n and N.
    """
    n, n_rest = len(is_hit), len(predicted_rest)
    n_hits = int(is_hit.sum())
    if n < _MIN_SAMPLE or n_rest == 0 or min(n_hits, n - n_hits) < _MIN_PER_OUTCOME:
        return None
    hits = is_hit.astype(np.float64)
    spread = float(np.concatenate([predicted, predicted_rest]).var())
    weight = 0.0
    if spread > 1e-12:
        weight = float(np.cov(hits, predicted)[0, 1]) / ((1 + n / n_rest) * spread)
    weight = min(max(weight, 0.0), 1.0)
    errors = hits - weight * predicted
    value = weight * float(predicted_rest.mean()) + float(errors.mean())
    variance = weight**2 * spread / n_rest + float(errors.var(ddof=1)) / n
    reach = float(stdtrit(n - 2, (1 + _LEVEL) / 2)) * variance**0.5
    value = min(max(value, 0.0), 1.0)
    return Estimate(
        value, max(value - reach, 0.0), min(value + reach, 1.0), n, "prediction-powered"
    )


def tighter_share(
    is_hit: NDArray[np.bool_], predicted: NDArray[np.floating], predicted_rest: NDArray[np.floating]
) -> Estimate | None:
    """Return the tighter of the exact estimate and, where valid, `powered_share`; None for n = 0.

    Args as for `powered_share`.
    """
    n, n_hits = len(is_hit), int(is_hit.sum())
    if n == 0:
        return None
    exact = Estimate(n_hits / n, *share_interval(n_hits, n), n, "clopper-pearson")
    powered = powered_share(is_hit, predicted, predicted_rest)
    return exact if powered is None or powered.width >= exact.width else powered


def mean_pairwise_kappa(posteriors: Mapping[str, NDArray[np.float64]]) -> float | None:
    """Return Cohen's kappa of annotators' likeliest classes, averaged over pairs; at most 1.

    `posteriors` holds each annotator's calibrated posteriors (n, K), NaN rows being abstentions.
    0 is what the shares of classes alone would bring about. None where no two annotators answered
    the same 100 texts.
    """
    kappas = []
    for first, second in combinations(posteriors.values(), 2):
        both = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        if both.sum() >= _MIN_TEXTS_FOR_KAPPA:
            kappa = estimate_kappa(first[both].argmax(axis=1), second[both].argmax(axis=1))
            kappas.append(kappa.value if kappa else 0.0)
    return float(np.mean(kappas)) if kappas else None


def estimate_kappa(first: NDArray[np.integer], second: NDArray[np.integer]) -> Kappa | None:
    """Estimate Cohen's kappa of two lists of class indices.

    None where it is undefined: without examples, and where both consist of one and the same class.
    The interval is that of Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72), from kappa's
    large-sample variance. Where all agree or none does, that has no width: the exact interval of
    the agreement is used instead, with the agreement by chance held fixed.
    """
    n = len(first)
    if n == 0:
        return None
    table = np.zeros((1 + int(max(first.max(), second.max())),) * 2)
    np.add.at(table, (first, second), 1)
    rows, columns = table.sum(axis=1) / n, table.sum(axis=0) / n
    chance = float(rows @ columns)
    if chance >= 1:
        return None
    n_agreed = int((first == second).sum())
    kappa = (n_agreed / n - chance) / (1 - chance)
    if 0 < n_agreed < n:
        weights = columns[:, None] + rows[None, :]
        squares = (1 - kappa) ** 2 * weights**2
        np.fill_diagonal(squares, (1 - (rows + columns) * (1 - kappa)) ** 2)
        variance = float((table / n * squares).sum()) - (kappa - chance * (1 - kappa)) ** 2
        z = float(ndtri((1 + _LEVEL) / 2))
        reach = z * (max(variance, 0.0) / n) ** 0.5 / (1 - chance)
        low, high = kappa - reach, kappa + reach
    else:
        low, high = ((bound - chance) / (1 - chance) for bound in share_interval(n_agreed, n))
    return Kappa(kappa, max(low, -1.0), min(high, 1.0), n)
