"""Define the self-training benchmark's parameters and recipes, and figures of a training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from backend.domain.student import RECIPES, Recipe
from backend.self_training.encoder_files import base_name

_PURITY_SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
_PAGE_BYTES = 4096
_OPTION_TYPES: dict[str, Callable[[str], Any]] = {
    "n_epochs": int,
    "n_folds": int,
    "n_repeats": int,
    "n_neighbors": int,
    "batch_size": int,
    "learning_rate": float,
    "cross_fitted_weight": float,
    "ema_decay": float,
    "consistency_weight": float,
    "human_weight": float,
}
_FORMER_OPTIONS = {
    "unmix": "deconvolve_noise",
    "n_rounds": "n_repeats",
    "join_strength": "cross_fitted_weight",
    "n_neighbours": "n_neighbors",
    "weigh_by_clean": "weight_by_confidence",
    "consistency": "consistency_weight",
    "reads_all_tokens": "mean_pooling",
    "start_from_probe": "init_head_from_probe",
}
"""Option as reports of earlier commits call it -> today's, so that their runs can be repeated."""


@dataclass(frozen=True, slots=True)
class SelfTrainRun:
    """Parameters of one run."""

    data: Path
    recipes: tuple[str, ...]
    labels: str | None = None
    n_seeds: int = 3
    n_human: int = 0
    noise: float = 0.0
    limit: int | None = None
    n_test: int | None = None
    n_epochs: int = 3
    max_tokens: int = 128
    model: str = ""
    sizes: tuple[int, ...] = ()
    noise_kind: str = "drawn"

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them."""
        where = self.labels.split("/")[-1] if self.labels else None
        return {
            "data": self.data.name,
            "labels": where,
            "recipes": ",".join(self.recipes),
            "seeds": self.n_seeds,
            "human": self.n_human,
            "noise": self.noise,
            "noise_kind": self.noise_kind if self.noise else None,
            "limit": self.limit,
            "test": self.n_test,
            "epochs": self.n_epochs,
            "model": base_name(self.model) if self.model else "all-MiniLM-L6-v2",
        }


def recipe_named(name: str, config: SelfTrainRun) -> Recipe:
    """Return a recipe by name; "default@option=value@option=value" changes options of it."""
    base, *changes = name.split("@")
    recipe = {
        **RECIPES,
        "gold": RECIPES["plain"],
        "ceiling": Recipe(deconvolve_noise=False),
    }[base]
    recipe = replace(recipe, n_epochs=config.n_epochs, max_tokens=config.max_tokens)
    for change in changes:
        option, _, value = change.partition("=")
        option = _FORMER_OPTIONS.get(option, option)
        read = _OPTION_TYPES.get(option, _is_yes)
        known: Any = None if value == "none" else read(value)
        recipe = replace(recipe, **{option: known})
    return recipe


def _is_yes(text: str) -> bool:
    return text == "yes"


def error_detection(
    score: NDArray[np.float64], given: NDArray[np.int64], is_wrong: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return how well label quality scores (n,) separate wrong from correct labels (n,)."""
    figures: dict[str, Any] = {
        "purity": {
            str(share): round(purity(score, given, is_wrong, share), 4) for share in _PURITY_SHARES
        }
    }
    figures["clean_purity_20"] = figures["purity"]["0.2"]
    if is_wrong.any() and not is_wrong.all():
        figures["noise_auroc"] = float(roc_auc_score(is_wrong, -score))
        figures["noise_average_precision"] = float(average_precision_score(is_wrong, -score))
    return figures


def purity(
    score: NDArray[np.float64],
    given: NDArray[np.int64],
    is_wrong: NDArray[np.bool_],
    share: float,
) -> float:
    """Return the share of correct labels among each class's highest-scored `share`, pooled."""
    kept = []
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        order = rows[np.argsort(-score[rows], kind="stable")]
        kept.append(order[: max(1, round(len(rows) * share))])
    return float(1 - is_wrong[np.concatenate(kept)].mean())


def summary(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return means over the trainings, the standard deviation of accuracy and peak memory."""

    def mean(key: str) -> float | None:
        values = [each[key] for each in runs if key in each]
        return round(float(np.mean(values)), 4) if values else None

    accuracies = [each["test_accuracy"] for each in runs]
    return {
        "test_accuracy_mean": mean("test_accuracy"),
        "test_accuracy_sd": round(float(np.std(accuracies, ddof=min(1, len(runs) - 1))), 4),
        "test_f1_mean": mean("test_f1"),
        "fused_label_accuracy_mean": mean("fused_label_accuracy"),
        "noise_auroc": mean("noise_auroc"),
        "noise_average_precision": mean("noise_average_precision"),
        "clean_purity_20": mean("clean_purity_20"),
        "seconds": round(float(np.mean([each["seconds"] for each in runs])), 1),
        "processor_seconds": round(float(np.mean([each["processor_seconds"] for each in runs])), 1),
        "peak_memory_mb": round(max(each["peak_memory_mb"] for each in runs)),
    }


def times_plain(results: dict[str, Any]) -> None:
    """Add to each recipe's figures its processor seconds relative to the plain recipe's."""
    plain = results.get("plain", {}).get("processor_seconds")
    for figures in results.values():
        figures["times_plain"] = round(figures["processor_seconds"] / plain, 2) if plain else None


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list whose one element is the process's largest resident size so far, in bytes."""
    peak = [0.0]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak[0] = max(peak[0], pages * _PAGE_BYTES)
            is_over.wait(0.2)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()
