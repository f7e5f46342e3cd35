"""Score tables of labels against gold answers, for questions of every kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.questions import Question
from backend.evaluation.metrics import micro_f1
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


def _short(name: str, kind: AnnotatorKind) -> str:
    if kind is AnnotatorKind.LLM_DEMONSTRATIONS:
        return "llm+shots"
    return "llm" if kind is AnnotatorKind.LLM else name.split(":", 1)[0]
