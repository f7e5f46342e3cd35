"""Measure query strategies by the learning curve of a learner, against random order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.annotator_posteriors import similarity_posteriors
from benchmarks.datasets import read_definition, read_rows
from benchmarks.ordering_learners import LEARNERS
from benchmarks.ordering_metrics import figures, random_figures
from benchmarks.ordering_pools import LabeledSet, Pool, draw_pool
from benchmarks.ordering_protocol import BUDGETS, collect, learning_curve, random_curves
from benchmarks.ordering_strategies import WITHOUT_ANNOTATORS, Builders, task_description
from benchmarks.report import Report

_FIELD = "text"

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class OrderingRun:
    """Parameters of one run."""

    data: Path
    strategies: tuple[str, ...]
    n_seeds: int = 20
    pool_size: int = 1500
    n_random: int = 50
    n_rows: int | None = None
    posteriors: Path | None = None
    embeddings: Path | None = None
    cache: Path = Path(".freeal/benchmarks")
    llm: str = ""
    on_train: bool = False
    learner: str = "probe"
    n_test: int = 2000
    has_definitions: bool = True

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them, file names without folders."""
        return {
            "data": self.data.name,
            "strategies": list(self.strategies),
            "seeds": self.n_seeds,
            "pool_size": self.pool_size,
            "random_draws": self.n_random,
            "posteriors": self.posteriors.name if self.posteriors else "similarity",
            "llm": bool(self.llm),
            "learner": self.learner,
            "most_test_rows": self.n_test,
            "definitions": self.has_definitions,
            "measured_on": "held-out training rows" if self.on_train else "test rows",
        }


def run(report: Report, config: OrderingRun, *, console: Console) -> None:
    """Measure every strategy on the same pools.

    Raises:
        ValueError: The learner is none of `LEARNERS`.
    """
    if config.learner not in LEARNERS:
        raise ValueError(f"no learner {config.learner!r}; there are {', '.join(LEARNERS)}")
    learn = LEARNERS[config.learner]
    data = load_set(config)
    pools = [draw_pool(data, seed, config.pool_size) for seed in range(config.n_seeds)]
    console.print(f"{data.name}: random")
    random = [random_curves(data, pool, config.n_random, learn=learn) for pool in pools]
    build = Builders(config.llm, config.cache, task_description(data))
    report.results["random"] = random_figures(random)
    for name in config.strategies:
        started = time.perf_counter()
        curves = [
            learning_curve(
                data, pool, build(name), without_annotators=name in WITHOUT_ANNOTATORS, learn=learn
            )
            for pool in pools
        ]
        report.results[name] = figures(curves, random)
        seconds = (time.perf_counter() - started) / (len(pools) * len(BUDGETS))
        report.results[name]["seconds_per_order_and_probe"] = round(seconds, 3)
        shown = report.results[name]
        console.print(f"{data.name}: {name} {shown['aulc_minus_random']:+.2f} {shown['interval']}")
    report.notes.update(_notes(data, pools))


def load_set(config: OrderingRun) -> LabeledSet:
    """Read a data set, its embeddings and the annotators' posteriors of its training rows.

    With a file of LLM posteriors, pools are drawn from its rows without abstention, otherwise from
    `n_rows` evenly spread rows. `on_train` scores on a third of the training rows, held out from
    all pools: settings are tuned there. Without `has_definitions` similarity reads the names of the
    labels alone, not what they mean.
    """
    n_rows = {
        "train": config.n_rows if config.posteriors is None else None,
        "test": config.n_test,
    }
    rows, vectors = {}, {}
    for split, max_rows in n_rows.items():
        every = read_rows(config.data, split=split)
        kept = _evenly(len(every), max_rows or len(every))
        rows[split] = [every[at] for at in kept.tolist()]
        vectors[split] = _vectors(config, split, rows[split], kept)
    name = config.data.name.split(".")[0]
    definition = read_definition(name)
    values = list(definition.get("labels", {})) or sorted({row["label"] for row in rows["train"]})
    stripped = [row[_FIELD].strip() or "-" for row in rows["train"]]
    encoder = _StoredEncoder(stripped, vectors["train"], _encoder(config.cache))
    known = definition if config.has_definitions else definition | {"labels": {}}
    posteriors = {"similarity": similarity_posteriors(encoder, stripped, values, known)}
    train: NDArray[np.int64] = np.arange(len(rows["train"]))
    if config.posteriors is not None:
        posteriors["llm"] = _read_posteriors(config.posteriors, len(train), len(values))
        train = np.flatnonzero(np.isfinite(posteriors["llm"]).all(axis=1))
    codes = {split: np.array([values.index(row["label"]) for row in rows[split]]) for split in rows}
    texts = [row[_FIELD] for row in rows["train"]]
    found = LabeledSet(
        name=name,
        label_names=tuple(str(definition.get("names", {}).get(value, value)) for value in values),
        train=vectors["train"][train],
        y_train=codes["train"][train],
        test=vectors["test"],
        y_test=codes["test"],
        posteriors={name: rows[train] for name, rows in posteriors.items()},
        texts=[texts[at] for at in train],
        test_texts=[row[_FIELD] for row in rows["test"]],
    )
    return _held_out(found, config.n_test) if config.on_train else found


def _held_out(data: LabeledSet, n_test: int) -> LabeledSet:
    order = np.random.default_rng(0).permutation(len(data.train))
    out, kept = np.sort(order[: len(order) // 3])[:n_test], np.sort(order[len(order) // 3 :])
    return replace(
        data,
        train=data.train[kept],
        y_train=data.y_train[kept],
        test=data.train[out],
        y_test=data.y_train[out],
        posteriors={name: rows[kept] for name, rows in data.posteriors.items()},
        texts=[data.texts[at] for at in kept],
        test_texts=[data.texts[at] for at in out],
    )


def _vectors(
    config: OrderingRun, split: str, rows: Sequence[dict[str, Any]], kept: NDArray[np.int64]
) -> Vectors:
    """Return the embeddings of a split's kept rows; a file of embeddings has all rows."""
    if config.embeddings is not None:
        with np.load(config.embeddings, allow_pickle=False) as file:
            found: Vectors = file[split].astype(np.float32)[kept]
            return found
    embedded: Vectors = _encoder(config.cache).embed([row[_FIELD] for row in rows])
    return embedded


def _encoder(cache: Path) -> Any:
    from backend.self_training.embedding_cache import CachedEncoder
    from backend.self_training.encoder import SentenceEncoder

    return CachedEncoder(SentenceEncoder(), cache)


class _StoredEncoder:
    """An encoder with the data's stored vectors, and another one for label names."""

    def __init__(self, texts: Sequence[str], vectors: Vectors, other: Any) -> None:
        self._row_of = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors
        self._other = other
        self.name = "known"

    def embed(self, texts: Sequence[str]) -> Vectors:
        if texts and all(text in self._row_of for text in texts):
            return self._vectors[[self._row_of[text] for text in texts]]
        found: Vectors = self._other.embed(texts)
        return found


def _read_posteriors(path: Path, n_rows: int, n_classes: int) -> NDArray[np.float64]:
    """Read an LLM's raw posteriors (n, K), NaN where there is none or it abstained.

    The file has `i` (rows of the training split) and `probabilities` in the order of the
    definition's labels.
    """
    answers = np.full((n_rows, n_classes), np.nan)
    with np.load(path, allow_pickle=False) as file:
        answers[file["i"]] = file["probabilities"]
    return answers


def _evenly(n: int, max_rows: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, max_rows)).astype(np.int64))


def _notes(data: LabeledSet, pools: Sequence[Pool]) -> dict[str, Any]:
    shares = np.bincount(data.y_train, minlength=len(data.label_names)) / len(data.y_train)
    outputs = collect(data, pools[0], {})
    aggregated = outputs.posteriors
    return {
        "set": data.name,
        "budgets": list(BUDGETS),
        "n_classes": len(data.label_names),
        "largest_class": round(float(shares.max()), 3),
        "n_train": len(data.train),
        "n_test": len(data.test),
        "pool_size": len(pools[0].rows),
        "annotators": sorted(data.posteriors),
        "agreement": None if outputs.agreement is None else round(outputs.agreement, 3),
        "posterior_accuracy": None
        if aggregated is None
        else round(float((aggregated.argmax(axis=1) == data.y_train[pools[0].rows]).mean()), 3),
    }
