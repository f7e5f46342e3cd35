"""Measure what each recipe of the span tagger learns from noisy spans, over seeds.

Accuracy stands for the F1 of exact spans; label errors are counted text by text.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from rich.console import Console

from backend.domain.span_student import SpanTrainingSet
from backend.domain.student import Recipe
from backend.self_training.tagger_training import SpanTrainer
from benchmarks.noisy_spans import NoisySpans, load_spans
from benchmarks.report import Report
from benchmarks.scores import span_f1
from benchmarks.selftrain_runs import (
    SelfTrainRun,
    error_detection,
    peak_memory,
    recipe_named,
    summary,
    times_plain,
)

_RECIPES = ("plain", "default", "gold")


def run_spans(report: Report, config: SelfTrainRun, *, console: Console) -> None:
    """Measure every recipe.

    Raises:
        ValueError: A recipe does not exist for spans.
    """
    noisy = load_spans(
        config.data, noise=config.noise, limit=config.limit, n_test=config.n_test, seed=0
    )
    report.notes |= {
        "n_train": len(noisy.texts),
        "n_test": len(noisy.test_texts),
        "n_labels": len(noisy.labels),
        "n_abstained": 0,
        "is_spans": True,
        "given_label_accuracy": round(span_f1(noisy.given, noisy.gold), 4),
        "load_average": round(os.getloadavg()[0], 1),
    }
    console.print(report.notes)
    for name in config.recipes:
        runs = [_train_and_score(config, noisy, name, seed) for seed in range(config.n_seeds)]
        report.results[name] = summary(runs)
        report.notes[f"{name}_test_accuracies"] = [each["test_accuracy"] for each in runs]
        report.notes[f"{name}_purity"] = runs[0]["purity"]
        console.print(name, report.results[name])
    times_plain(report.results)


def _train_and_score(
    config: SelfTrainRun, noisy: NoisySpans, name: str, seed: int
) -> dict[str, Any]:
    recipe = _recipe(name, config)
    given = noisy.gold if name.partition("@")[0] == "gold" else noisy.given
    ids = tuple(range(len(given)))
    is_human = np.zeros(len(given), dtype=bool)
    data = SpanTrainingSet(ids, noisy.texts, noisy.labels, given, is_human)
    start, start_of_work = time.perf_counter(), time.process_time()
    with peak_memory() as peak:
        tagger, output = SpanTrainer(config.model, recipe=recipe).fit(data, seed=seed)
    seconds = time.perf_counter() - start
    processor_seconds = time.process_time() - start_of_work
    is_wrong = np.array([set(g) != set(w) for g, w in zip(given, noisy.gold, strict=True)])
    f1 = span_f1(tagger.predict(noisy.test_texts), noisy.test_gold)
    return {
        "test_accuracy": round(f1, 4),
        "test_f1": f1,
        "fused_label_accuracy": span_f1(output.predicted, noisy.gold),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_memory_mb": peak[0] / 2**20,
        **error_detection(
            output.label_quality_score, np.zeros(len(given), dtype=np.int64), is_wrong
        ),
    }


def _recipe(name: str, config: SelfTrainRun) -> Recipe:
    base = name.partition("@")[0]
    if base not in _RECIPES:
        raise ValueError(f"spans have no recipe {base!r}; there are {', '.join(_RECIPES)}")
    return recipe_named(name, config)
