"""Simulate the promise of accepted labels, and count how many real labels a holdout certifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import bdtr

from backend.evaluation.selective_prediction import CheckedLabels, accept_rule
from backend.label_model.linear_probe import fit_probe
from benchmarks.datasets import read_definition, read_rows
from benchmarks.report import Report

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rule = Callable[[CheckedLabels, Floats], float | None]

MAX_ERROR = DELTA = 0.05
SIZES = (50, 100, 200, 400)
_LOOK_EVERY = 20
_N_TEXTS, _N_ANSWERS = 2_000, 200
_START_MARGIN, _MIN_DEV = 1.5, 5
_FIELD = "text"


@dataclass(frozen=True, slots=True)
class AcceptRun:
    """What is run: projects to simulate, sets and their sizes, draws of the holdout."""

    data: Sequence[Path]
    cache: Path
    n_projects: int = 1_000
    n_draws: int = 100
    n_pool: int = 2_000
    n_train: int = 500


def ours(checked: CheckedLabels, confidences: Floats) -> float | None:
    """Return the threshold that the backend accepts from."""
    return accept_rule(checked, confidences, max_error=MAX_ERROR, delta=DELTA).threshold


def potato(checked: CheckedLabels, confidences: Floats) -> float | None:
    """Return the threshold of Potato 2.12's selective-risk contract, at its first look.

    As its documentation tells: half of the sample is a dev split. Thresholds are scanned there from
    strict to lenient, for the first with 5 answers and more, a smoothed error of at most half of
    the target, and as many expected cert answers as 1.5 times those that could pass without any
    error. From it on the cert split tests thresholds in turn with the exact binomial test, at the
    level delta * 6 / pi^2 of a first look, until one fails.
    """
    level = DELTA * 6 / np.pi**2
    n_least = int(np.ceil(np.log(level) / np.log1p(-MAX_ERROR)))
    is_dev = np.arange(len(checked)) % 2 == 0
    dev = checked.confidences[is_dev], checked.is_right[is_dev]
    cert = checked.confidences[~is_dev], checked.is_right[~is_dev]
    grid = np.unique(dev[0])[::-1]
    ratio = len(cert[0]) / max(len(dev[0]), 1)
    counts = [_counts(*dev, threshold) for threshold in grid]
    start = next(
        (
            at
            for at, (k, n) in enumerate(counts)
            if n >= _MIN_DEV
            and (k + 0.5) / (n + 1) <= MAX_ERROR / 2
            and n * ratio >= _START_MARGIN * n_least
        ),
        len(grid),
    )
    found = None
    for threshold in grid[start:]:
        k, n = _counts(*cert, threshold)
        if n == 0 or bdtr(k, n, MAX_ERROR) > level:
            break
        found = float(threshold)
    return found


RULES: dict[str, Rule] = {"ours": ours, "potato": potato}


def run(report: Report, config: AcceptRun, *, console: Console) -> None:
    """Fill the report: the simulation of each rule, then the sets."""
    for name, make in PROJECTS.items():
        report.results[f"simulated {name}"] = simulate(make, config.n_projects)
        console.print(name, report.results[f"simulated {name}"])
    for path in config.data:
        labels = pool_labels(path, config)
        name = path.name.split(".")[0]
        report.results[name] = certified(*labels, n_draws=config.n_draws)
        report.notes[name] = {
            "n_pool": len(labels[0]),
            "accuracy": round(float(labels[1].mean()), 4),
        }
        console.print(name, report.notes[name], report.results[name])


def simulate(
    make: Callable[[np.random.Generator], tuple[Floats, Bools]], n_projects: int
) -> dict[str, float]:
    """Return the share of projects in which more than 5 % of the accepted labels are wrong.

    Of one look after 200 answers, for both rules; and of ours when the owner looks after every 20
    answers and accepts as soon as anything is certified.
    """
    rng = np.random.default_rng(0)
    looks = range(_LOOK_EVERY, _N_ANSWERS + 1, _LOOK_EVERY)
    broken = dict.fromkeys(("ours", "potato", "ours, looking often"), 0)
    n_used = 0
    for _ in range(n_projects):
        confidences, is_right = make(rng)
        order = rng.permutation(len(confidences))
        for name, rule in RULES.items():
            error = _accepted(rule, confidences, is_right, order, _N_ANSWERS)[1]
            broken[name] += error > MAX_ERROR
            n_used += name == "ours" and error >= 0
        for n in looks:
            error = _accepted(ours, confidences, is_right, order, n)[1]
            if error >= 0:
                broken["ours, looking often"] += error > MAX_ERROR
                break
    shares = {name: round(n / n_projects, 4) for name, n in broken.items()}
    return {**shares, "anything accepted": round(n_used / n_projects, 4)}


def certified(confidences: Floats, is_right: Bools, *, n_draws: int) -> dict[str, dict[str, float]]:
    """Return the mean number of labels certified after each size of holdout, and broken shares."""
    rng, found = np.random.default_rng(0), {}
    orders = [rng.permutation(len(confidences)) for _ in range(n_draws)]
    for name, rule in RULES.items():
        rows: dict[str, float] = {}
        for size in SIZES:
            outcomes = [_accepted(rule, confidences, is_right, order, size) for order in orders]
            rows[str(size)] = round(float(np.mean([n for n, _ in outcomes])), 1)
            rows[f"{size} broken"] = round(float(np.mean([e > MAX_ERROR for _, e in outcomes])), 4)
        found[name] = rows
    return found


def pool_labels(path: Path, config: AcceptRun) -> tuple[Floats, Bools]:
    """Return confidences and rightness of a pool's labels by a probe, trained on other texts.

    The probe is softmax regression on the embedded encoder's vectors.
    """
    from backend.self_training.embedding_cache import CachedEncoder
    from backend.self_training.encoder import SentenceEncoder

    rows = read_rows(path, split="train")
    rng = np.random.default_rng(0)
    kept = rng.permutation(len(rows))[: config.n_train + config.n_pool]
    texts = [rows[at][_FIELD].strip() or "-" for at in kept]
    name = path.name.split(".")[0]
    values = list(read_definition(name).get("labels", {})) or sorted({r["label"] for r in rows})
    gold = np.array([values.index(rows[at]["label"]) for at in kept])
    vectors = CachedEncoder(SentenceEncoder(), config.cache).embed(texts).astype(np.float64)
    train = slice(config.n_train)
    targets = np.eye(len(values))[gold[train]]
    probe = fit_probe(vectors[train], targets, np.ones(config.n_train))
    posteriors = probe.posterior(vectors[config.n_train :])
    return posteriors.max(axis=1), posteriors.argmax(axis=1) == gold[config.n_train :]


def _accepted(
    rule: Rule, confidences: Floats, is_right: Bools, order: NDArray[np.intp], n_answers: int
) -> tuple[int, float]:
    """Return how many labels a rule accepts and their error rate, -1 where it accepts none."""
    sample, rest = order[:n_answers], order[n_answers:]
    threshold = rule(CheckedLabels(confidences[sample], is_right[sample]), confidences[rest])
    kept = confidences[rest] >= (np.inf if threshold is None else threshold)
    return int(kept.sum()), float((~is_right[rest][kept]).mean()) if kept.any() else -1.0


def _counts(confidences: Floats, is_right: Bools, threshold: float) -> tuple[int, int]:
    above = confidences >= threshold
    return int((above & ~is_right).sum()), int(above.sum())


def _calibrated(rng: np.random.Generator) -> tuple[Floats, Bools]:
    confidences = 1 - rng.random(_N_TEXTS) ** 3 / 2
    return confidences, rng.random(_N_TEXTS) < confidences


def _overconfident(rng: np.random.Generator) -> tuple[Floats, Bools]:
    return 1 - rng.random(_N_TEXTS) / 50, rng.random(_N_TEXTS) < 0.945


def _tied(rng: np.random.Generator) -> tuple[Floats, Bools]:
    return rng.choice([0.9, 0.95, 0.99], _N_TEXTS), rng.random(_N_TEXTS) < 0.944


def _one_class(rng: np.random.Generator) -> tuple[Floats, Bools]:
    return np.full(_N_TEXTS, 0.97), rng.random(_N_TEXTS) < 11 / 12


def _all_wrong(rng: np.random.Generator) -> tuple[Floats, Bools]:
    return 1 - rng.random(_N_TEXTS) / 10, np.zeros(_N_TEXTS, dtype=np.bool_)


def _small_pool(rng: np.random.Generator) -> tuple[Floats, Bools]:
    return 1 - rng.random(300) / 50, rng.random(300) < 0.945


PROJECTS = {
    "calibrated": _calibrated,
    "overconfident": _overconfident,
    "tied": _tied,
    "one class": _one_class,
    "all wrong": _all_wrong,
    "small pool": _small_pool,
}
