"""Load data sets with noisy labels: an annotator's, or gold labels with synthetic noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from backend.domain.ports import Encoder
from backend.domain.student import PoolTexts, TrainingSet
from backend.label_model.calibration import BatchCalibrator
from backend.label_model.linear_probe import fit_probe
from backend.self_training.embedding_probe import cross_fit, embed_pool
from benchmarks.annotator_posteriors import similarity_posteriors
from benchmarks.datasets import read_definition, read_rows

NoiseKind = Literal["drawn", "hardest"]
"""Texts with wrong labels: drawn by a weak model's uncertainty, or its most uncertain ones."""

_WEAK_SHARE = 0.05
_MIN_WEAK = 10
_ASYMMETRY = 0.5
_TEST_SHARE = 0.5
_N_PROBE_FOLDS = 5
_SMALLEST = 1e-9
_CACHE = "llm:"
_SIMILARITY = "similarity"
_ROW = "row in the training split"


@dataclass(frozen=True, slots=True)
class NoisySet:
    """A pool with gold and given labels, and test texts with gold labels; class indices.

    `given` (n, K) are the posteriors to learn from where `has_label`, `views` back-translations.
    """

    name: str
    labels: tuple[str, ...]
    pool: PoolTexts
    gold: NDArray[np.int64]
    given: NDArray[np.float64]
    has_label: NDArray[np.bool_]
    views: tuple[str | None, ...] | None
    test: PoolTexts
    test_gold: NDArray[np.int64]

    def part(self, rows: NDArray[np.int64]) -> NoisySet:
        """Return the set with these rows of the pool only."""
        return replace(
            self,
            pool=self.pool.subset(rows),
            gold=self.gold[rows],
            given=self.given[rows],
            has_label=self.has_label[rows],
            views=None if self.views is None else tuple(self.views[row] for row in rows),
        )


def load(
    path: Path,
    *,
    labels: str | None,
    noise: float,
    limit: int | None,
    encoder: Encoder,
    seed: int,
    noise_kind: str = "drawn",
) -> NoisySet:
    """Read a data set with noisy labels; one without a training or test split is halved.

    Args:
        path: JSONL file.
        labels: Key of the rows ("llm_label", "llm.chatgpt"); or "llm:FILE" with posteriors, .npz
            (`i` counting training rows, `probabilities`, `labels`) or JSONL of the rows' own `i`
            and `probabilities`; or "similarity" for that annotator; None: synthetic noise.
        noise: Rate of synthetic noise, in [0, 1].
        limit: Number of drawn training texts; None: all.
        encoder: Embeds texts, for similarity and synthetic noise.
        seed: Draws split, texts and noise.
        noise_kind: A `NoiseKind`.

    Raises:
        ValueError: `noise_kind` is unknown.
    """
    if noise_kind not in get_args(NoiseKind):
        raise ValueError(f"no noise {noise_kind!r}; there is {', '.join(get_args(NoiseKind))}")
    rows = [row for row in read_rows(path) if isinstance(row.get("label"), str)]
    train, test = _splits(rows, np.random.default_rng(seed))
    names = _names(path, rows)
    if labels and labels.startswith(_CACHE):
        train, given = _stored_posteriors(train, Path(labels.removeprefix(_CACHE)), names)
    elif labels and labels != _SIMILARITY:
        given = _labels_under(train, labels, names)
    else:
        given = np.full((len(train), len(names)), np.nan)
    if limit is not None and limit < len(train):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(train))[:limit])
        train, given = [train[row] for row in chosen], given[chosen]
    gold = np.array([names.index(row["label"]) for row in train])
    pool = _texts(train)
    if labels == _SIMILARITY:
        definition = read_definition(path.name.split(".", 1)[0])
        given = similarity_posteriors(encoder, pool.texts, names, definition)
    elif not labels:
        rng = np.random.default_rng(seed)
        scores = _weak_scores(pool, gold, len(names), encoder, rng)
        given = add_noise(scores, gold, noise, rng, kind=noise_kind)
    has_label = np.asarray(np.isfinite(given).all(axis=1))
    views = tuple(row.get("back_translation") for row in train)
    return NoisySet(
        path.name.split(".", 1)[0],
        names,
        pool,
        gold,
        np.where(has_label[:, None], given, 0.0),
        has_label,
        views if any(views) else None,
        _texts(test),
        np.array([names.index(row["label"]) for row in test]),
    )


def _splits(
    rows: Sequence[dict[str, Any]], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train = [row for row in rows if row.get("split", "train") == "train"]
    train = [{**row, _ROW: position} for position, row in enumerate(train)]
    test = [row for row in rows if row.get("split") == "test"]
    if not train or not test:
        whole = train or test
        whole = [{**row, _ROW: position} for position, row in enumerate(whole)]
        order = rng.permutation(len(whole))
        n_test = int(len(whole) * _TEST_SHARE)
        test = [whole[row] for row in order[:n_test]]
        train = [whole[row] for row in order[n_test:]]
    seen = {_texts_of(row) for row in test}
    return [row for row in train if _texts_of(row) not in seen], test


def _names(path: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    meta = path.with_name(path.name.split(".", 1)[0] + ".meta.json")
    found = {str(row["label"]) for row in rows}
    if meta.exists():
        named = json.loads(meta.read_text(encoding="utf-8")).get("label_names", [])
        if found <= set(named):
            return tuple(named)
    return tuple(sorted(found))


def _texts_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return _first_text(row), str(row.get("text_b", ""))


def _first_text(row: Mapping[str, Any]) -> str:
    return str(row["text"] if "text" in row else row["text_a"])


def _texts(rows: Sequence[Mapping[str, Any]]) -> PoolTexts:
    has_pairs = bool(rows) and "text_b" in rows[0]
    return PoolTexts(
        tuple(range(len(rows))),
        tuple(_first_text(row) for row in rows),
        tuple(str(row["text_b"]) for row in rows) if has_pairs else None,
    )


def _labels_under(
    rows: Sequence[Mapping[str, Any]], key: str, names: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return one-hot labels under a key, dots going deeper; NaN where it is none of the names."""
    given = np.full((len(rows), len(names)), np.nan)
    for number, row in enumerate(rows):
        value: Any = row
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value in names:
            given[number] = np.eye(len(names))[names.index(value)]
    return given


def _stored_posteriors(
    rows: list[dict[str, Any]], path: Path, names: tuple[str, ...]
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Return the rows that have stored posteriors, and these, calibrated over the pool."""
    if path.suffix == ".npz":
        stored = np.load(path)
        order = [names.index(str(label)) for label in stored["labels"]]
        by_row = dict(zip(stored["i"].tolist(), stored["probabilities"], strict=True))
        known = {int(row): by_row[row] for row in by_row}
        chosen = [number for number, row in enumerate(rows) if row[_ROW] in known]
        raw = np.array([known[rows[number][_ROW]] for number in chosen], dtype=np.float64)
        raw = raw[:, np.argsort(order)]
    else:
        answers = {row["i"]: row.get("probabilities") for row in read_rows(path)}
        chosen = [number for number, row in enumerate(rows) if row["i"] in answers]
        abstention = [np.nan] * len(names)
        raw = np.array(
            [answers[rows[number]["i"]] or abstention for number in chosen], dtype=np.float64
        )
    is_known = np.isfinite(raw).all(axis=1)
    calibrated = raw.copy()
    calibrated[is_known] = BatchCalibrator.fit(raw[is_known]).apply(raw[is_known])
    return [rows[number] for number in chosen], calibrated


def _weak_scores(
    pool: PoolTexts,
    gold: NDArray[np.int64],
    n_labels: int,
    encoder: Encoder,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return predictions (n, K) of a linear probe fitted to 5 % of the gold labels."""
    vectors = embed_pool(encoder, pool)
    n_seen = max(_MIN_WEAK * n_labels, round(len(gold) * _WEAK_SHARE))
    seen = rng.permutation(len(gold))[:n_seen]
    weak = fit_probe(vectors[seen], np.eye(n_labels)[gold[seen]], np.ones(len(seen)))
    return weak.posterior(vectors)


def add_noise(
    scores: NDArray[np.float64],
    gold: NDArray[np.int64],
    rate: float,
    rng: np.random.Generator,
    *,
    kind: str,
) -> NDArray[np.float64]:
    """Return one-hot labels (n, K) with instance-dependent noise from a weak model's errors.

    A wrong label is the weak model's likeliest wrong one. "drawn": wrong texts are drawn by the
    probability that it gives to wrong labels (instance-dependent noise, Xia et al. 2020, arXiv
    2006.07836); `wrong_label_predictability` measures how regular the errors are. "hardest": its
    most uncertain texts, so that errors are neighbors and as regular as the gold labels. Classes
    differ: the first has half the average noise, the last one and a half times.

    Args:
        scores: The weak model's predictions (n, K).
        gold: Class indices (n,).
        rate: Share of wrong labels.
        rng: Draws.
        kind: A `NoiseKind`.
    """
    n_labels = scores.shape[1]
    rows = np.arange(len(gold))
    others = scores.copy()
    others[rows, gold] = 0.0
    given = gold.copy()
    shape = np.linspace(1 - _ASYMMETRY, 1 + _ASYMMETRY, n_labels)
    for label in range(n_labels):
        mine = np.flatnonzero(gold == label)
        n_wrong = round(len(mine) * rate * shape[label])
        if n_wrong == 0:
            continue
        if kind == "drawn":
            chances = others[mine].sum(axis=1) + _SMALLEST
            wrong = rng.choice(mine, size=n_wrong, replace=False, p=chances / chances.sum())
        else:
            lead = scores[mine, label] - others[mine].max(axis=1)
            lead += rng.normal(0, scores[rows, gold].std() + _SMALLEST, len(mine)) / 2
            wrong = mine[np.argsort(lead, kind="stable")[:n_wrong]]
        given[wrong] = others[wrong].argmax(axis=1)
    return np.eye(n_labels)[given]


def wrong_label_predictability(noisy: NoisySet, encoder: Encoder) -> float | None:
    """Return the share of wrong labels that a cross-fitted linear probe predicts.

    A softmax regression on the frozen encoder's embeddings, five folds; None if no label is wrong.
    Near chance, errors are random; near 1, as regular as the gold labels.
    """
    given = noisy.given.argmax(axis=1)
    is_wrong = noisy.has_label & (given != noisy.gold)
    if not is_wrong.any():
        return None
    is_human = np.zeros(len(given), dtype=bool)
    data = TrainingSet(noisy.pool, noisy.labels, noisy.given, noisy.has_label, is_human)
    predicted = cross_fit(
        data,
        embed_pool(encoder, noisy.pool),
        noisy.has_label.astype(float),
        n_folds=_N_PROBE_FOLDS,
        rng=np.random.default_rng(0),
    )
    return float((predicted.argmax(axis=1) == given)[is_wrong].mean())
