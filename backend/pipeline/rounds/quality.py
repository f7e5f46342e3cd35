"""Say how a round's labels of a question compare with people's, and annotators with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import Question
from backend.evaluation.comparison import confusion, counts_by_label, reliability, span_errors
from backend.evaluation.metrics import estimate_kappa, share_interval
from backend.label_model.label_tables import LabelTable
from backend.pipeline.pool import Pool

_MAX_PAIRS = 300
_MAX_TEXTS = 2_000  # enough for the agreement of two annotators to a point


def label_quality(
    pool: Pool, question: Question, sources: Mapping[str, LabelTable], rows: NDArray[np.intp]
) -> dict[str, Any]:
    """Return what the Quality tab shows, JSON-ready.

    Args:
        pool: with people's labels.
        question: the question.
        sources: labels by name; the last are the round's own, held out.
        rows: the texts of the random holdout with people's labels.
    """
    people, own = pool.holdout_table(question), list(sources.values())[-1]
    rows = rows[own.has_label[rows]]
    all_found, all_wanted = own.parts, people.parts
    found, wanted = [all_found[row] for row in rows], [all_wanted[row] for row in rows]
    is_right = np.array([a == b for a, b in zip(found, wanted, strict=True)], dtype=np.bool_)
    names = [label.value for label in question.labels]

    def name_of(part: Any) -> str:
        return names[part] if isinstance(part, int) else str(part[2])

    figures: dict[str, Any] = {
        "n": len(rows),
        "reliability": reliability(own.confidences[rows], is_right),
        "by_label": [
            {"label": label, "n_right": n_right, "n_found": n_found, "n_people": n_people}
            | {"f1": 2 * n_right / (n_found + n_people)}
            for label, (n_right, n_found, n_people) in counts_by_label(
                found, wanted, name_of
            ).items()
        ],
        "annotators": _agreements(question, sources),
        "people": [asdict(person) for person in pool.people.get(question.name, ())],
    }
    if question.kind.has_spans:
        figures["span_errors"] = span_errors(found, wanted)
    if question.kind.is_exclusive:
        pairs = confusion(found, wanted)[:_MAX_PAIRS]
        figures["confusion"] = [[names[theirs], names[ours], n] for theirs, ours, n in pairs]
    return figures


def _agreements(question: Question, sources: Mapping[str, LabelTable]) -> list[dict[str, Any]]:
    """Return for each pair of sources how often they say the same, beyond chance too."""
    found = []
    for (first, ours), (second, theirs) in combinations(sources.items(), 2):
        both = np.flatnonzero(ours.has_label & theirs.has_label)
        both = both[:: max(1, -(-len(both) // _MAX_TEXTS))]
        if not len(both):
            continue
        ids = ours.ids[both]
        ours_there, theirs_there = ours.align(ids), theirs.align(ids)
        n, n_same = len(both), len(both) - int(ours_there.differs(theirs_there).sum())
        low, high = share_interval(n_same, n)
        same = {"value": n_same / n, "low": low, "high": high}
        pair: dict[str, Any] = {"between": [first, second], "n": n, "same": same, "kappa": None}
        if question.kind.is_exclusive:
            kappa = estimate_kappa(
                ours_there.content.argmax(axis=1), theirs_there.content.argmax(axis=1)
            )
            pair["kappa"] = None if kappa is None else asdict(kappa)
        found.append(pair)
    return found
