"""Compare labels with people's: by confidence, label by label, and spans by kind of error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.metrics import share_interval

_MAX_BINS, _MIN_PER_BIN = 10, 10
_SpanPart = tuple[int, int, str]
Answers = Sequence[frozenset[Any]]
"""The parts of n answers: positions of labels, or spans as (start, end, label)."""


def reliability(
    confidences: NDArray[np.floating], is_right: NDArray[np.bool_]
) -> list[dict[str, float]]:
    """Return how often labels are right by their confidence: the rows of a reliability diagram.

    Args:
        confidences: the probability of each label (n,).
        is_right: whether it equals people's (n,).

    Bins hold equally many labels, 10 or more each, at most ten of them; each has its size, mean
    confidence, and share of right labels with the 95 % interval. Guo et al. 2017, arXiv 1706.04599,
    section 2, has bins of equal width, of which most are empty where labels are confident.
    """
    n_bins = min(_MAX_BINS, max(1, len(confidences) // _MIN_PER_BIN))
    bins = np.array_split(np.argsort(confidences, kind="stable"), n_bins)
    rows = []
    for members in (each for each in bins if len(each)):
        n, n_right = len(members), int(is_right[members].sum())
        low, high = share_interval(n_right, n)
        confidence = float(confidences[members].mean())
        share = n_right / n
        rows.append({"n": n, "confidence": confidence, "value": share, "low": low, "high": high})
    return rows


def confusion(found: Answers, wanted: Answers) -> list[tuple[Any, Any, int]]:
    """Return how often people's label (first) got which label (second), the most frequent first.

    Answers of one part each; those without one are left out.
    """
    pairs = zip(found, wanted, strict=True)
    counts = Counter((*theirs, *ours) for ours, theirs in pairs if len(ours) == len(theirs) == 1)
    return [(*pair, n) for pair, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]


def counts_by_label(
    found: Answers, wanted: Answers, label_of: Callable[[Any], str]
) -> dict[str, tuple[int, int, int]]:
    """Return for each label how many parts are right, were found, and were wanted by people."""
    right, ours, theirs = (
        Counter(label_of(part) for answer in answers for part in answer)
        for answers in (
            [one & other for one, other in zip(found, wanted, strict=True)],
            found,
            wanted,
        )
    )
    return {label: (right[label], ours[label], theirs[label]) for label in sorted({*ours, *theirs})}


def span_errors(found: Answers, wanted: Answers) -> dict[str, int]:
    """Return how many spans are right, and how many wrong in which way.

    A found span that people did not mark has the wrong border if it overlaps one of theirs with
    its label, the wrong type if it overlaps another, and is invented else. One of theirs that
    nothing overlaps is missing.
    """
    kinds = Counter(
        kind
        for ours, theirs in zip(found, wanted, strict=True)
        for kind in _span_kinds(ours, theirs)
    )
    names = ("right", "wrong border", "wrong type", "invented", "missing")
    return {name: kinds[name] for name in names}


def _span_kinds(found: frozenset[_SpanPart], wanted: frozenset[_SpanPart]) -> Iterator[str]:
    for span in found:
        rivals = [each for each in wanted if _overlap(span, each)]
        if span in wanted:
            yield "right"
        elif not rivals:
            yield "invented"
        else:
            has_label = any(each[2] == span[2] for each in rivals)
            yield "wrong border" if has_label else "wrong type"
    for span in wanted:
        if not any(_overlap(span, each) for each in found):
            yield "missing"


def _overlap(one: _SpanPart, other: _SpanPart) -> bool:
    return one[0] < other[1] and other[0] < one[1]
