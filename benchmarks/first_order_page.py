"""Write docs/benchmarks/first-order.md: how soon a queue has an order, what large pools take."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.report import goal_table, origin

_LLMS = {"none": "while no LLM answers", "scripted": "while an LLM labels"}
_FIGURES = {
    "first_order_s": "seconds until the queue has an order",
    "served_s": "seconds until Label Studio has it",
    "n_places": "places of that order",
    "n_orders": "orders until the run's end",
    "n_imported": "predictions imported",
    "n_imported_twice": "of these, imported twice for the same labels",
    "peak_gb": "peak memory of the process so far, GB",
}
_POOL_GOALS = {100_000: (12.0, 1.0), 1_000_000: (240.0, 4.0)}
"""Texts: seconds and GB."""


def first_order_page(report: dict[str, Any], source: str) -> str:
    """Return the page of one report."""
    results: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    goals: list[tuple[str, str, Callable[[Any], bool]]] = []
    for llm, title in _LLMS.items():
        for name, meaning in _FIGURES.items():
            if name in report["results"].get(llm, {}):
                results[f"{llm}.{name}"] = report["results"][llm][name]
                meanings[f"{llm}.{name}"] = f"{title}: {meaning}"
        goals.append((f"{llm}.first_order_s", "under 60", lambda s: s is not None and s < 60))
        goals.append((f"{llm}.n_imported_twice", "0", lambda n: n == 0))
    for size, found in report["results"]["pools"].items():
        most_s, most_gb = _POOL_GOALS.get(int(size), (None, None))
        for name, most, meaning in (
            ("order_s", most_s, "seconds to order {:,} texts with vectors and labels"),
            ("peak_gb", most_gb, "peak memory with {:,} texts, their vectors included, GB"),
        ):
            key = f"{size}.{name}"
            results[key], meanings[key] = found[name], meaning.format(int(size))
            if most is not None:
                goals.append((key, f"under {most:g}", partial(operator.gt, most)))
    return "\n".join(
        [
            "# First order: how soon a new project's queue has one",
            "",
            f"{origin(report, source)}.",
            "",
            *goal_table(results, meanings, tuple(goals)),
            "",
            "How it is measured: services, worker steps and encoder are the product's own, over a "
            "Label Studio in memory; the LLM is scripted and answers at once, or nothing answers. "
            "Large pools are made: unit vectors of 384 dimensions around 200 topics, four labels, "
            "nobody has answered; each is ordered in a process of its own.",
            "",
        ]
    )
