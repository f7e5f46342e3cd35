"""Load data sets of spans with synthetic label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.domain.labels import Span
from backend.domain.questions import QuestionKind
from benchmarks.datasets import LabeledTask, load, read_rows

Spans = tuple[Span, ...]
_ALL = 10**9
_DROPPED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class NoisySpans:
    """A pool's texts with gold and given spans, and test texts with gold spans."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    gold: tuple[Spans, ...]
    given: tuple[Spans, ...]
    test_texts: tuple[str, ...]
    test_gold: tuple[Spans, ...]


def holds_spans(path: Path) -> bool:
    """Return whether a file's rows are tokens with tags."""
    rows = read_rows(path)
    return bool(rows) and "tags" in rows[0]


def load_spans(
    path: Path, *, noise: float, limit: int | None, n_test: int | None, seed: int
) -> NoisySpans:
    """Read a JSONL file of tokens and tags, and corrupt a share `noise` of the pool's spans.

    Raises:
        ValueError: The rows have no tags.
    """
    data = load(path, limit=n_test, n_train=limit or _ALL, seed=seed)
    if data.kind is not QuestionKind.SPANS:
        raise ValueError(f"{path.name} has no tags; expected rows with tokens and tags")
    gold = _gold(data.train)
    rng = np.random.default_rng(seed)
    return NoisySpans(
        data.labels,
        _texts(data.train),
        gold,
        corrupt(gold, data.labels, rate=noise, rng=rng),
        _texts(data.evaluated),
        _gold(data.evaluated),
    )


def corrupt(
    gold: Sequence[Spans], labels: Sequence[str], *, rate: float, rng: np.random.Generator
) -> tuple[Spans, ...]:
    """Return the spans with a share `rate` wrong: half dropped, half with another label.

    With a single label all wrong ones are dropped.
    """
    places = [(row, place) for row, spans in enumerate(gold) for place in range(len(spans))]
    chosen = rng.permutation(len(places))[: round(rate * len(places))]
    n_dropped = len(chosen) if len(labels) == 1 else round(_DROPPED_SHARE * len(chosen))
    corrupted: list[list[Span | None]] = [list(spans) for spans in gold]
    for number, at in enumerate(chosen.tolist()):
        row, place = places[at]
        span = gold[row][place]
        others = [label for label in labels if label != span.label]
        is_dropped = number < n_dropped
        corrupted[row][place] = None if is_dropped else replace(span, label=str(rng.choice(others)))
    return tuple(tuple(span for span in spans if span is not None) for spans in corrupted)


def _texts(tasks: Sequence[LabeledTask]) -> tuple[str, ...]:
    return tuple(str(each.task.data["text"]) for each in tasks)


def _gold(tasks: Sequence[LabeledTask]) -> tuple[Spans, ...]:
    return tuple(each.gold if isinstance(each.gold, tuple) else () for each in tasks)
