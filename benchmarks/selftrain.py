"""What the small model makes of noisy labels: each recipe on one data set, over seeds.

The right labels of the pool are read for two things only: to score what was found, and by the
recipe `gold`, which shows what the encoder could do without noise. Test labels only score.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from backend.core.small_model import PLAIN, Recipe, SmallModelOutput, TrainingSet
from backend.slm.encoder import SentenceEncoder
from backend.slm.model import Transformer
from benchmarks.noisy_labels import NoisySet, load
from benchmarks.report import Report

_N_TRAINER_TEXTS = 256
_PURITY_SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
_PAGE_BYTES = 4096
_OPTION_TYPES: dict[str, Callable[[str], Any]] = {
    "n_epochs": int,
    "n_folds": int,
    "n_rounds": int,
    "n_neighbours": int,
    "batch_size": int,
    "learning_rate": float,
    "join_strength": float,
    "ema_decay": float,
    "consistency": float,
    "human_weight": float,
}


@dataclass(frozen=True, slots=True)
class SelfTrainRun:
    """What was asked for."""

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

    def parameters(self) -> dict[str, Any]:
        """Return what belongs into the report."""
        where = self.labels.split("/")[-1] if self.labels else None
        return {
            "data": self.data.name,
            "labels": where,
            "recipes": ",".join(self.recipes),
            "seeds": self.n_seeds,
            "human": self.n_human,
            "noise": self.noise,
            "limit": self.limit,
            "test": self.n_test,
            "epochs": self.n_epochs,
            "model": self.model or "all-MiniLM-L6-v2",
        }


def run(report: Report, asked: SelfTrainRun, *, console: Console) -> None:
    """Measure every recipe, and the plain Hugging Face Trainer beside them."""
    encoder = SentenceEncoder(asked.model)
    noisy = load(
        asked.data,
        labels=asked.labels,
        noise=asked.noise,
        limit=asked.limit,
        encoder=encoder,
        seed=0,
    )
    noisy = _with_fewer_tests(noisy, asked.n_test)
    given = noisy.given.argmax(axis=1)
    is_right = (given == noisy.gold)[noisy.has_label]
    report.notes |= {
        "n_train": len(noisy.pool),
        "n_test": len(noisy.test),
        "n_labels": len(noisy.labels),
        "n_abstained": int((~noisy.has_label).sum()),
        "given_label_accuracy": round(float(is_right.mean()), 4),
        "load_average": round(os.getloadavg()[0], 1),
    }
    console.print(report.notes)
    for name in asked.recipes:
        runs = [_one(asked, noisy, name, seed, encoder) for seed in range(asked.n_seeds)]
        report.results[name] = _summary(runs)
        report.notes[f"{name}_test_accuracies"] = [each["test_accuracy"] for each in runs]
        report.notes[f"{name}_purity"] = runs[0]["purity"]
        report.notes[f"{name}_stages"] = runs[0]["stages"]
        console.print(name, report.results[name], runs[0]["stages"])
    seconds = trainer_seconds(asked, noisy)
    report.notes["trainer_processor_seconds"] = round(seconds, 1)
    plain = report.results.get("plain", {}).get("processor_seconds")
    for figures in report.results.values():
        took = figures["processor_seconds"]
        figures["times_trainer"] = round(took / seconds, 2)
        figures["times_plain"] = round(took / plain, 2) if plain else None


def _with_fewer_tests(noisy: NoisySet, n_test: int | None) -> NoisySet:
    """Return the set with `n_test` drawn test texts, with all of them if there are no more."""
    if n_test is None or n_test >= len(noisy.test):
        return noisy
    chosen = np.sort(np.random.default_rng(0).permutation(len(noisy.test))[:n_test])
    return replace(noisy, test=noisy.test.subset(chosen), test_gold=noisy.test_gold[chosen])


def recipe_named(name: str, asked: SelfTrainRun) -> Recipe:
    """Return a recipe by name; "default@option=value@option=value" changes options of it."""
    base, *changes = name.split("@")
    recipe = {
        "default": Recipe(),
        "plain": PLAIN,
        "gold": PLAIN,
        "paper": replace(PLAIN, name="paper"),
        "probe": Recipe(name="probe"),
    }[base]
    recipe = replace(recipe, n_epochs=asked.n_epochs, max_tokens=asked.max_tokens)
    for change in changes:
        option, _, value = change.partition("=")
        read = _OPTION_TYPES.get(option, _is_yes)
        known: Any = None if value == "none" else read(value)
        recipe = replace(recipe, **{option: known})
    return recipe


def _is_yes(text: str) -> bool:
    return text == "yes"


def training_set(noisy: NoisySet, *, n_human: int, is_gold: bool, seed: int) -> TrainingSet:
    """Return what a recipe sees: the given labels, and right ones of `n_human` drawn texts."""
    n_texts, n_labels = noisy.given.shape
    is_human = np.zeros(n_texts, dtype=bool)
    is_human[np.random.default_rng(seed).permutation(n_texts)[:n_human]] = True
    right = np.eye(n_labels)[noisy.gold]
    targets = right if is_gold else np.where(is_human[:, None], right, noisy.given)
    has_label = np.ones(n_texts, dtype=bool) if is_gold else noisy.has_label | is_human
    return TrainingSet(noisy.pool, noisy.labels, targets, has_label, is_human, views=noisy.views)


def _one(
    asked: SelfTrainRun, noisy: NoisySet, name: str, seed: int, encoder: SentenceEncoder
) -> dict[str, Any]:
    recipe = recipe_named(name, asked)
    is_gold = name.partition("@")[0] == "gold"
    data = training_set(noisy, n_human=asked.n_human, is_gold=is_gold, seed=seed)
    start, start_of_work = time.perf_counter(), time.process_time()
    with peak_memory() as peak:
        small_model = Transformer(asked.model, recipe=recipe, encoder=encoder)
        model, output = small_model.fit(data, seed=seed)
    seconds = time.perf_counter() - start
    processor_seconds = time.process_time() - start_of_work
    answers = model.predict(noisy.test).probabilities.argmax(axis=1)
    return {
        "test_accuracy": round(float((answers == noisy.test_gold).mean()), 4),
        "test_f1": float(f1_score(noisy.test_gold, answers, average="macro")),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_memory_mb": peak[0] / 2**20,
        "stages": {stage: round(took, 1) for stage, took in output.report.seconds.items()}
        | {figure: round(value, 4) for figure, value in output.report.figures.items()},
        **noise_figures(output, data, noisy.gold),
    }


def noise_figures(
    output: SmallModelOutput, data: TrainingSet, gold: NDArray[np.int64]
) -> dict[str, Any]:
    """Return how well wrong labels were found and what became of the training labels."""
    fused = output.posterior.argmax(axis=1)
    judged = np.flatnonzero(data.has_label & ~data.is_human)
    given = data.hard_labels[judged]
    clean = output.clean_probability[judged]
    is_wrong = given != gold[judged]
    figures: dict[str, Any] = {
        "fused_label_accuracy": float((fused == gold).mean()),
        "purity": {
            str(share): round(purity(clean, given, is_wrong, share), 4) for share in _PURITY_SHARES
        },
    }
    figures["clean_purity_20"] = figures["purity"]["0.2"]
    if is_wrong.any() and not is_wrong.all():
        figures["noise_auroc"] = float(roc_auc_score(is_wrong, -clean))
        figures["noise_average_precision"] = float(average_precision_score(is_wrong, -clean))
    return figures


def purity(
    clean: NDArray[np.float64],
    given: NDArray[np.int64],
    is_wrong: NDArray[np.bool_],
    share: float,
) -> float:
    """Return the share of right labels among each class's cleanest `share`, taken together."""
    kept = []
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        order = rows[np.argsort(-clean[rows], kind="stable")]
        kept.append(order[: max(1, round(len(rows) * share))])
    return float(1 - is_wrong[np.concatenate(kept)].mean())


def _summary(runs: list[dict[str, Any]]) -> dict[str, float | None]:
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


def trainer_seconds(asked: SelfTrainRun, noisy: NoisySet) -> float:
    """Return the processor seconds that Hugging Face's Trainer would take for the same epochs.

    One epoch over 256 texts (all, if there are fewer), as the Trainer comes, scaled to the pool.
    """
    import tempfile

    from transformers import Trainer, TrainingArguments

    from backend.slm.classifier import ClassifierSpec, TextClassifier

    n_texts = min(_N_TRAINER_TEXTS, len(noisy.pool))
    spec = ClassifierSpec(noisy.labels, base=asked.model, max_tokens=asked.max_tokens)
    fresh = TextClassifier.create(spec, seed=0)
    tokens = fresh.tokenize(noisy.pool.subset(range(n_texts)))
    rows = [
        {"input_ids": tokens.ids[row], "labels": int(noisy.given[row].argmax())}
        for row in range(n_texts)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=32,
            num_train_epochs=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            fresh.model, arguments, train_dataset=rows, processing_class=fresh.tokenizer
        )
        start = time.process_time()
        trainer.train()
        took = time.process_time() - start
    return took / n_texts * len(noisy.pool) * asked.n_epochs
