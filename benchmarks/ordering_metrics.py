"""Summarize learning curves: areas, gains over random with intervals, class coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ordering_protocol import BUDGETS, Curve

_N_RESAMPLES = 4000
_COVERAGE_AT = 32


def area(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normalized area under curves (..., budgets) over the logarithm of the budget."""
    at = np.log2(BUDGETS)
    result: NDArray[np.float64] = np.trapezoid(values, at, axis=-1) / (at[-1] - at[0])
    return result


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over pool seeds."""
    rng = np.random.default_rng(0)
    n = len(differences)
    means = differences[rng.integers(n, size=(_N_RESAMPLES, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figures(curves: Sequence[Curve], random: Sequence[Sequence[Curve]]) -> dict[str, Any]:
    """Return one strategy's figures: one curve per pool, and random's draws per pool, in points."""
    accuracy = np.array([curve.accuracy for curve in curves])
    f1 = np.array([curve.macro_f1 for curve in curves])
    random_areas = area(np.array([[draw.accuracy for draw in draws] for draws in random]))
    random_f1 = area(np.array([[draw.macro_f1 for draw in draws] for draws in random]))
    differences = area(accuracy) - random_areas.mean(axis=1)
    coverage = np.array([curve.class_coverage for curve in curves])
    low, high = interval(differences)
    return {
        "aulc": _points(area(accuracy).mean()),
        "aulc_minus_random": _points(differences.mean()),
        "interval": [_points(low), _points(high)],
        "p_worse_than_random": round(
            float((area(accuracy) < np.median(random_areas, axis=1)).mean()), 3
        ),
        "macro_f1": _points(area(f1).mean()),
        "macro_f1_minus_random": _points((area(f1) - random_f1.mean(axis=1)).mean()),
        "class_coverage": round(float(coverage[:, BUDGETS.index(_COVERAGE_AT)].mean()), 4),
        "tokens": round(float(np.mean([curve.n_tokens for curve in curves]))),
        "curve": [_points(value) for value in accuracy.mean(axis=0)],
        "seed_differences": [_points(value) for value in differences],
        **_extras(curves),
    }


def random_figures(random: Sequence[Sequence[Curve]]) -> dict[str, Any]:
    """Return the figures of random order: means, and quantiles over draws."""
    accuracy = np.array([[draw.accuracy for draw in draws] for draws in random])
    f1 = np.array([[draw.macro_f1 for draw in draws] for draws in random])
    coverage = np.array([[draw.class_coverage for draw in draws] for draws in random])
    areas = area(accuracy)
    return {
        "aulc": _points(areas.mean()),
        "aulc_minus_random": 0.0,
        "interval": [0.0, 0.0],
        "p_worse_than_random": 0.5,
        "macro_f1": _points(area(f1).mean()),
        "class_coverage": round(float(coverage[..., BUDGETS.index(_COVERAGE_AT)].mean()), 4),
        "tokens": 0,
        "curve": [_points(value) for value in accuracy.mean(axis=(0, 1))],
        "quantiles_05_50_95": [_points(value) for value in np.quantile(areas, [0.05, 0.5, 0.95])],
    }


def _points(share: float) -> float:
    return round(100 * float(share), 2)


def _extras(curves: Sequence[Curve]) -> dict[str, float]:
    means = {}
    for name in curves[0].extra:
        values = [curve.extra[name] for curve in curves]
        known = [value for value in values if value is not None]
        if known:
            means[name] = round(float(np.mean(known)), 3)
    return means
