"""List the decisions about which two versions of a question's labels differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.domain.questions import Question
from backend.evaluation.expected_gain import ChangedDecisions
from backend.label_model.label_tables import LabelTable

WRONG_PART = 0.5
"""What a wrong label or span costs where a right one gains 1: at an F1 of F it is F / (2 - F)."""


def changed_decisions(
    question: Question, served: LabelTable, found: LabelTable, referees: Sequence[LabelTable]
) -> ChangedDecisions:
    """Return what changes in the texts that have a label in both versions.

    A single label is one decision; of a multiple choice each label is one, and of spans each span
    that either version has. These count as the F1 does, at an F1 of two thirds: a part that is
    rightly there gains 1, one that is wrongly there costs half of it. Counted alike, a label of
    which four in ten are right would better be missing from all texts.

    Args:
        question: what the labels answer.
        served: the labels in use.
        found: the new ones, in the same rows.
        referees: labels with probabilities, in the same rows: first of all annotators, then of all
            but one.
    """
    rows = np.flatnonzero(served.has_label & found.has_label)
    before, after = served.parts, found.parts
    texts: list[int] = []
    right: list[list[float]] = []
    wrong: list[list[float]] = []
    for row in rows[[before[row] != after[row] for row in rows]] if len(rows) else rows:
        gone, new = before[row] - after[row], after[row] - before[row]
        if question.kind.is_exclusive:
            pairs = [(next(iter(new)), next(iter(gone)))]
            right += [[referee.certainty(row, part) for referee in referees] for part, _ in pairs]
            wrong += [[referee.certainty(row, part) for referee in referees] for _, part in pairs]
            texts.append(int(row))
            continue
        for part in sorted(gone | new):
            holds = [referee.certainty(row, part) for referee in referees]
            fails = [WRONG_PART * (1 - p) for p in holds]
            right.append(holds if part in new else fails)
            wrong.append(fails if part in new else holds)
            texts.append(int(row))
    shape = (len(texts), len(referees))
    return ChangedDecisions(
        np.array(right, dtype=np.float64).reshape(shape).T,
        np.array(wrong, dtype=np.float64).reshape(shape).T,
        np.array(texts, dtype=np.intp),
        _n_decisions(question, served, found),
        needs_all=not question.kind.is_exclusive and not question.kind.has_spans,
    )


def _n_decisions(question: Question, served: LabelTable, found: LabelTable) -> int:
    has_both = served.has_label & found.has_label
    if question.kind.has_spans:
        pairs = zip(has_both.tolist(), served.parts, found.parts, strict=True)
        return sum(len(one | other) for is_known, one, other in pairs if is_known)
    per_text = 1 if question.kind.is_exclusive else len(question.labels)
    return per_text * int(has_both.sum())
