"""Score tables of labels against gold answers, for questions of every kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import LabelSource, estimate_accuracies
from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.questions import Question
from backend.evaluation.metrics import micro_f1
from backend.label_model.changes import WRONG_PART
from backend.label_model.label_tables import (
    LabelTable,
    Parts,
    Posteriors,
    SpanTable,
    answer_of,
    span_parts,
)
from backend.label_model.labels_matrix import LabelsMatrix
from benchmarks.datasets import Gold

_N_RESAMPLES = 50


def gold_parts(gold: Gold) -> Parts:
    """Return a gold answer as the parts that a table's rows are made of."""
    if isinstance(gold, int):
        return frozenset({gold})
    return gold if isinstance(gold, frozenset) else span_parts(gold)


def gold_label(question: Question, task_id: int, gold: Parts) -> WeakLabel:
    """Return a gold answer as a certain label of a person."""
    if question.kind.has_spans:
        spans = answer_of(question, gold).spans
        return WeakLabel(task_id, question.name, "person", "", spans=spans)
    holds = [1.0 if at in gold else 0.0 for at in range(len(question.labels))]
    return WeakLabel(task_id, question.name, "person", "", tuple(holds))


def annotator_tables(question: Question, matrix: LabelsMatrix) -> dict[str, LabelTable]:
    """Return each annotator's labels by its short name, such as llm, llm+shots or similarity."""
    ids, is_exclusive = matrix.example_ids, question.kind.is_exclusive
    tables: dict[str, LabelTable] = {
        _short(name, matrix.kinds[name]): Posteriors(ids, own, is_exclusive)
        for name, own in matrix.posteriors.items()
    }
    return tables | {
        _short(name, matrix.kinds[name]): SpanTable(ids, own) for name, own in matrix.spans.items()
    }


def score_table(table: LabelTable, gold: Mapping[int, Parts]) -> float | None:
    """Return the accuracy of single labels, or the micro F1 of several labels or spans.

    Rows without a label are left out of an accuracy; of an F1 they miss what is there. 4 decimals;
    None where no row has a label.
    """
    known = np.flatnonzero(table.has_label)
    if not len(known):
        return None
    parts, wanted = table.parts, [gold[i] for i in table.ids.tolist()]
    if isinstance(table, Posteriors) and table.is_exclusive:
        return round(float(np.mean([parts[row] == wanted[row] for row in known])), 4)
    return round(micro_f1(parts, wanted), 4)


def net_gain(before: LabelTable, after: LabelTable, gold: Mapping[int, Parts]) -> float:
    """Return how many more decisions are right after a change, in rows that both label.

    A single label is one decision; of several labels, and of spans, each that either has is one,
    and counts as in `changed_decisions`.
    """
    is_exclusive = isinstance(before, Posteriors) and before.is_exclusive
    rows = zip(before.ids.tolist(), before.parts, after.parts, before.differs(after), strict=True)
    gained = 0.0
    for example_id, old, new, differs in rows:
        wanted = gold[example_id]
        if differs and is_exclusive:
            gained += int(new == wanted) - int(old == wanted)
        elif differs:
            gained += len((new - old) & wanted) - len((old - new) & wanted)
            gained -= WRONG_PART * (len(new - old - wanted) - len(old - new - wanted))
    return gained


def interval_coverage(
    source: LabelSource, gold: NDArray[np.int64], n_labeled: int, rng: np.random.Generator
) -> float:
    """Return how often the interval from n drawn labels has the true accuracy, of 50 draws."""
    accuracy = float((source.labels == gold).mean())
    n_covering = 0
    for _ in range(_N_RESAMPLES):
        rows = rng.choice(len(gold), size=n_labeled, replace=False)
        labels = {int(row): int(gold[row]) for row in rows}
        estimate = estimate_accuracies([source], labels, reference=source)[source.name]
        n_covering += estimate.low <= accuracy <= estimate.high
    return n_covering / _N_RESAMPLES


def _short(name: str, kind: AnnotatorKind) -> str:
    if kind is AnnotatorKind.LLM_DEMONSTRATIONS:
        return "llm+shots"
    return "llm" if kind is AnnotatorKind.LLM else name.split(":", 1)[0]
