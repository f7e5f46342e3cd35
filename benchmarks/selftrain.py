"""Measure what each recipe of the student learns from noisy labels, over seeds.

Gold labels of the pool score the label quality, and train two recipes that show what the encoder
could do: `gold` is a plain fine-tune without noise; `ceiling` is the default recipe on gold labels,
whose cross-fitted predictions then assess the given ones. Test labels only score.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import f1_score

from backend.domain.questions import QuestionKind
from backend.domain.student import StudentOutput, TrainingSet
from backend.factories import pretrained_source
from backend.self_training.encoder import SentenceEncoder
from backend.self_training.label_quality import assess_labels
from backend.self_training.self_trainer import SelfTrainer
from backend.settings import Settings
from benchmarks.noisy_labels import NoisySet, load, wrong_label_predictability
from benchmarks.noisy_spans import holds_spans
from benchmarks.report import Report
from benchmarks.selftrain_runs import (
    SelfTrainRun,
    error_detection,
    peak_memory,
    recipe_named,
    summary,
    times_plain,
)
from benchmarks.selftrain_spans import run_spans

_N_TRAINER_TEXTS = 256


def run(report: Report, config: SelfTrainRun, *, console: Console) -> None:
    """Measure every recipe, and the Hugging Face Trainer's seconds beside them.

    Rows with tokens and tags are a data set of spans.

    Raises:
        ValueError: A recipe does not exist for spans.
    """
    model, name = pretrained_source(config.model, Settings.from_env().home)
    config = replace(config, model=model)
    if holds_spans(config.data):
        run_spans(report, config, console=console)
        return
    encoder = SentenceEncoder(model, name=name)
    noisy = load(
        config.data,
        labels=config.labels,
        noise=config.noise,
        limit=config.limit,
        encoder=encoder,
        seed=0,
        noise_kind=config.noise_kind,
    )
    noisy = _with_fewer_tests(noisy, config.n_test)
    given = noisy.given.argmax(axis=1)
    is_correct = (given == noisy.gold)[noisy.has_label]
    report.notes |= {
        "n_train": len(noisy.pool),
        "n_test": len(noisy.test),
        "n_labels": len(noisy.labels),
        "n_abstained": int((~noisy.has_label).sum()),
        "given_label_accuracy": round(float(is_correct.mean()), 4),
        "wrong_foretold": wrong_label_predictability(noisy, encoder),
        "load_average": round(os.getloadavg()[0], 1),
    }
    console.print(report.notes)
    for name in config.recipes:
        runs = [
            _train_and_score(config, noisy, name, seed, encoder) for seed in range(config.n_seeds)
        ]
        report.results[name] = summary(runs)
        report.notes[f"{name}_test_accuracies"] = [each["test_accuracy"] for each in runs]
        report.notes[f"{name}_purity"] = runs[0]["purity"]
        report.notes[f"{name}_stages"] = runs[0]["stages"]
        console.print(name, report.results[name], runs[0]["stages"])
    seconds = trainer_seconds(config, noisy)
    report.notes["trainer_processor_seconds"] = round(seconds, 1)
    for figures in report.results.values():
        figures["times_trainer"] = round(figures["processor_seconds"] / seconds, 2)
    times_plain(report.results)
    for name in config.recipes if config.sizes else ():
        curve = _learning_curve(config, noisy, name, encoder)
        curve[str(len(noisy.pool))] = report.notes[f"{name}_test_accuracies"]
        report.notes[f"{name}_curve"] = curve
        console.print(name, curve)


def _learning_curve(
    config: SelfTrainRun, noisy: NoisySet, name: str, encoder: SentenceEncoder
) -> dict[str, list[float]]:
    """Return the seeds' test accuracies by number of training texts; smaller sets are nested.

    Each text has the label that it has in the whole pool.
    """
    order = np.random.default_rng(0).permutation(len(noisy.pool))
    return {
        str(size): [
            _train_and_score(config, noisy.part(np.sort(order[:size])), name, seed, encoder)[
                "test_accuracy"
            ]
            for seed in range(config.n_seeds)
        ]
        for size in config.sizes
        if size < len(noisy.pool)
    }


def _with_fewer_tests(noisy: NoisySet, n_test: int | None) -> NoisySet:
    """Return the set with at most `n_test` drawn test texts."""
    if n_test is None or n_test >= len(noisy.test):
        return noisy
    chosen = np.sort(np.random.default_rng(0).permutation(len(noisy.test))[:n_test])
    return replace(noisy, test=noisy.test.subset(chosen), test_gold=noisy.test_gold[chosen])


def training_set(noisy: NoisySet, *, n_human: int, is_gold: bool, seed: int) -> TrainingSet:
    """Return the given labels, or gold ones, with `n_human` drawn gold labels as human ones."""
    n_texts, n_labels = noisy.given.shape
    is_human = np.zeros(n_texts, dtype=bool)
    is_human[np.random.default_rng(seed).permutation(n_texts)[:n_human]] = True
    gold = np.eye(n_labels)[noisy.gold]
    targets = gold if is_gold else np.where(is_human[:, None], gold, noisy.given)
    has_label = np.ones(n_texts, dtype=bool) if is_gold else noisy.has_label | is_human
    return TrainingSet(noisy.pool, noisy.labels, targets, has_label, is_human, views=noisy.views)


def _train_and_score(
    config: SelfTrainRun, noisy: NoisySet, name: str, seed: int, encoder: SentenceEncoder
) -> dict[str, Any]:
    recipe = recipe_named(name, config)
    base = name.partition("@")[0]
    is_gold = base in ("gold", "ceiling")
    data = training_set(noisy, n_human=config.n_human, is_gold=is_gold, seed=seed)
    start, start_of_work = time.perf_counter(), time.process_time()
    with peak_memory() as peak:
        trainer = SelfTrainer(config.model, recipe=recipe, encoder=encoder)
        model, output = trainer.fit(data, seed=seed)
    seconds = time.perf_counter() - start
    processor_seconds = time.process_time() - start_of_work
    predicted = model.predict(noisy.test).probabilities.argmax(axis=1)
    if base == "ceiling":
        data = training_set(noisy, n_human=config.n_human, is_gold=False, seed=seed)
        quality = assess_labels(data, recipe, output.cross_fitted)
        output = replace(output, posterior=quality.posterior, label_quality_score=quality.score)
    return {
        "test_accuracy": round(float((predicted == noisy.test_gold).mean()), 4),
        "test_f1": float(f1_score(noisy.test_gold, predicted, average="macro")),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "peak_memory_mb": peak[0] / 2**20,
        "stages": {stage: round(took, 1) for stage, took in output.report.seconds.items()}
        | {figure: round(value, 4) for figure, value in output.report.figures.items()},
        **noise_figures(output, data, noisy.gold),
    }


def noise_figures(
    output: StudentOutput, data: TrainingSet, gold: NDArray[np.int64]
) -> dict[str, Any]:
    """Return the detection of label errors and the accuracy of the refined labels."""
    refined = output.posterior.argmax(axis=1)
    weak = np.flatnonzero(data.has_label & ~data.is_human)
    given = data.hard_labels[weak]
    is_wrong = given != gold[weak]
    return {
        "fused_label_accuracy": float((refined == gold).mean()),
        **error_detection(output.label_quality_score[weak], given, is_wrong),
    }


def trainer_seconds(config: SelfTrainRun, noisy: NoisySet) -> float:
    """Return the estimated processor seconds of Hugging Face's Trainer for the same epochs.

    One epoch over 256 texts (all, if there are fewer), as the Trainer comes, scaled to the pool.
    """
    import tempfile

    from transformers import Trainer, TrainingArguments

    from backend.self_training.classifier import ClassifierSpec, TextClassifier

    n_texts = min(_N_TRAINER_TEXTS, len(noisy.pool))
    spec = ClassifierSpec(
        noisy.labels, QuestionKind.SINGLE_CHOICE, base=config.model, max_tokens=config.max_tokens
    )
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
    return took / n_texts * len(noisy.pool) * config.n_epochs
