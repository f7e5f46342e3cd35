"""Estimate shares and kappa with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from backend.evaluation.metrics import cohens_kappa

_MIN_PER_OUTCOME = 5  # right and wrong answers that the normal approximation needs of each


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with its interval, from `n` judged examples.

    `method` says how: from these examples alone, or with a model's guesses about all others.
    """

    value: float
    low: float
    high: float
    n: int
    method: Literal["clopper-pearson", "prediction-powered"]

    @property
    def width(self) -> float:
        """Return how wide the interval is."""
        return self.high - self.low


def share_interval(n_hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval of a share; (0, 1) without any draw.

    It is exact: it covers the truth with at least the given probability for every n and share,
    also near 0 and 1, where Wilson's (up to a tenth narrower) falls short of it.
    """
    tail = (1 - level) / 2
    return 1 - share_bound(n - n_hits, n, delta=tail), share_bound(n_hits, n, delta=tail)


def share_bound(n_hits: int, n: int, *, delta: float) -> float:
    """Return the one-sided Clopper-Pearson bound: the share is above it with at most `delta`."""
    if n_hits >= n:
        return 1.0
    return float(special.betaincinv(n_hits + 1, n - n_hits, 1 - delta))


def estimate_share(is_hit: NDArray[np.bool_], *, level: float = 0.95) -> Estimate | None:
    """Estimate a share from a uniformly random sample; None without one."""
    n, n_hits = len(is_hit), int(is_hit.sum())
    if n == 0:
        return None
    low, high = share_interval(n_hits, n, level=level)
    return Estimate(n_hits / n, low, high, n, "clopper-pearson")


def powered_share(
    is_hit: NDArray[np.bool_],
    guesses: NDArray[np.floating],
    other_guesses: NDArray[np.floating],
    *,
    level: float = 0.95,
) -> Estimate | None:
    """Estimate a share from a random sample and from guesses about everything else.

    `is_hit` (n,) is what was seen, `guesses` (n,) and `other_guesses` (N,) are a model's
    probabilities of a hit for the sample and for the rest, made without looking at `is_hit`. The
    mean guess over the rest is corrected by its mean error on the sample, so that wrong guesses
    cost width and not truth; how far to trust the guesses (lambda, in [0, 1]) is chosen to make the
    variance least: PPI++, Angelopoulos et al. 2023, arXiv 2311.01453, section 6 for the mean.

    None where the normal approximation cannot be trusted: fewer than 5 hits or 5 misses in the
    sample, fewer than 30 judged, or nothing else to guess about. **Deviations**: Student's t
    instead of the normal quantile, with a degree of freedom less for lambda, which is fitted to
    the same sample. The interval is cut at 0 and 1. Cost: linear in n and N.
    """
    n, n_rest = len(is_hit), len(other_guesses)
    n_hits = int(is_hit.sum())
    if n < 30 or n_rest == 0 or min(n_hits, n - n_hits) < _MIN_PER_OUTCOME:
        return None
    hits = is_hit.astype(np.float64)
    spread = float(np.concatenate([guesses, other_guesses]).var())
    label_model = 0.0
    if spread > 1e-12:
        label_model = float(np.cov(hits, guesses)[0, 1]) / ((1 + n / n_rest) * spread)
    label_model = min(max(label_model, 0.0), 1.0)
    errors = hits - label_model * guesses
    value = label_model * float(other_guesses.mean()) + float(errors.mean())
    variance = label_model**2 * spread / n_rest + float(errors.var(ddof=1)) / n
    reach = float(stats.t.ppf((1 + level) / 2, n - 2)) * variance**0.5
    value = min(max(value, 0.0), 1.0)
    return Estimate(
        value, max(value - reach, 0.0), min(value + reach, 1.0), n, "prediction-powered"
    )


def tighter_share(
    is_hit: NDArray[np.bool_],
    guesses: NDArray[np.floating],
    other_guesses: NDArray[np.floating],
    *,
    level: float = 0.95,
) -> Estimate | None:
    """Return the prediction-powered estimate where it is valid and tighter, else the plain one."""
    plain = estimate_share(is_hit, level=level)
    powered = powered_share(is_hit, guesses, other_guesses, level=level)
    if plain is None or powered is None or powered.width >= plain.width:
        return plain
    return powered


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa, chance-corrected agreement, with its interval, from `n` examples."""

    value: float
    low: float
    high: float
    n: int


def estimate_kappa(
    first: NDArray[np.integer], second: NDArray[np.integer], *, level: float = 0.95
) -> Kappa | None:
    """Estimate Cohen's kappa of two lists of class indices; None where it is undefined.

    The interval is that of Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72), from kappa's
    large-sample variance. Where all agree or none does, that has no width: the exact interval of
    the agreement is used instead, with the agreement by chance held fixed.
    """
    kappa = cohens_kappa(first, second)
    if kappa is None:
        return None
    n = len(first)
    n_classes = 1 + int(max(first.max(), second.max()))
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (first, second), 1 / n)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    chance = float(rows @ columns)
    n_agreed = int((first == second).sum())
    if 0 < n_agreed < n:
        weights = columns[:, None] + rows[None, :]
        squares = (1 - kappa) ** 2 * weights**2
        np.fill_diagonal(squares, (1 - (rows + columns) * (1 - kappa)) ** 2)
        variance = float((table * squares).sum()) - (kappa - chance * (1 - kappa)) ** 2
        z = float(special.ndtri((1 + level) / 2))
        reach = z * (max(variance, 0.0) / n) ** 0.5 / (1 - chance)
        low, high = kappa - reach, kappa + reach
    else:
        bounds = share_interval(n_agreed, n, level=level)
        low, high = ((bound - chance) / (1 - chance) for bound in bounds)
    return Kappa(kappa, max(low, -1.0), min(high, 1.0), n)
