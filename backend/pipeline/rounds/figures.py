"""Measure a round's labels of a question on people's labels of the random holdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import (
    LabelSource,
    estimate_accuracies,
    estimate_kappas,
)
from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.questions import Question
from backend.evaluation.metrics import micro_f1, tighter_share
from backend.label_model.label_tables import LabelTable, combined_table
from backend.label_model.labels_matrix import AGGREGATED
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.quality import label_quality

_LLM = (AnnotatorKind.LLM, AnnotatorKind.LLM_DEMONSTRATIONS)


def round_figures(
    pool: Pool,
    question: Question,
    labels: Sequence[WeakLabel],
    student: LabelTable,
    held_out: LabelTable,
) -> dict[str, Any]:
    """Return the figures of a round's labels, JSON-ready.

    Args:
        pool: with the labels of all annotators.
        question: the question.
        labels: the aggregated labels.
        student: the student's labels.
        held_out: the aggregated labels, made without each text's human label.
    """
    matrix = pool.matrices[question.name]
    similarity = combined_table(question, matrix, AnnotatorKind.SIMILARITY)
    sources = {"similarity": similarity} if similarity.has_label.any() else {}
    sources |= {"small-model": student, "llm": combined_table(question, matrix, *_LLM)}
    sources |= {AGGREGATED: held_out}
    counts = Counter(label.source for label in labels)
    return {**measure(pool, question, sources), "sources": dict(counts)}


def measure(pool: Pool, question: Question, sources: Mapping[str, LabelTable]) -> dict[str, Any]:
    """Return accuracies and more; without held-out human labels only counts.

    Args:
        pool: with people's labels.
        question: the question.
        sources: labels by name, made without the holdout's answers; the last are the round's own,
            whose confidences stand for the texts without a human label.
    """
    people = pool.holdout_table(question)
    rows = np.flatnonzero(people.has_label)
    figures: dict[str, Any] = {
        "n_texts": len(pool.examples),
        "n_human": int(pool.human_table(question).has_label.sum()) + len(rows),
        "n_audited": len(rows),
    }
    if not len(rows):
        return figures
    of_kind = _of_one_label if question.kind.is_exclusive else _of_parts
    return figures | {
        **of_kind(sources, people, rows),
        "quality": label_quality(pool, question, sources, rows),
    }


def _of_one_label(
    sources: Mapping[str, LabelTable], people: LabelTable, rows: NDArray[np.intp]
) -> dict[str, Any]:
    """Return accuracies and kappas of single labels."""
    held_out = {int(row): int(people.content[row].argmax()) for row in rows}
    named = [
        LabelSource(name, np.nan_to_num(table.content, nan=0.0)) for name, table in sources.items()
    ]
    accuracies = estimate_accuracies(named, held_out, reference=named[-1])
    kappas = estimate_kappas(named, held_out)
    return {
        "accuracies": {name: asdict(found) for name, found in accuracies.items()},
        "kappas": {name: asdict(found) for name, found in kappas.items()},
    }


def _of_parts(
    sources: Mapping[str, LabelTable], people: LabelTable, rows: NDArray[np.intp]
) -> dict[str, Any]:
    """Return the share of answers that are right as a whole, and the F1 of their parts."""
    accuracies, f1 = {}, {}
    truth = people.parts
    for name, table in sources.items():
        is_right, certain = table.has_label & ~table.differs(people), table.confidences
        found = tighter_share(is_right[rows], certain[rows], np.delete(certain, rows))
        if found is not None:
            accuracies[name] = asdict(found)
        parts = table.parts
        f1[name] = micro_f1([parts[row] for row in rows], [truth[row] for row in rows])
    return {"accuracies": accuracies, "f1": f1}
