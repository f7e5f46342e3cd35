"""What people's labels say of a round: held-out verdicts, the audit slice, the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import (
    LabelSource,
    estimate_accuracies,
    estimate_kappas,
    holdout_seed,
    in_holdout,
)
from backend.domain.labels import WeakLabel
from backend.domain.questions import Question
from backend.evaluation.selective_prediction import accept_rule
from backend.pipeline.aggregate import Pool
from backend.pipeline.ensemble import AnnotatorEnsemble, Human
from backend.pipeline.labels_matrix import posteriors_by_annotator

_N_FOLDS = 5
FUSED_SOURCE = "fused"


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Posteriors (n, K) by id; those of texts with a human label were made without it."""

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A round's figures, JSON, and the verdicts that they were made from."""

    figures: Mapping[str, Any]
    fused: HeldOut


def held_out(
    ensemble: AnnotatorEnsemble,
    pool: Pool,
    question: Question,
    votes: Sequence[WeakLabel],
    posteriors: NDArray[np.float64],
) -> HeldOut:
    """Return the verdicts with people's texts judged as if those labels had not come.

    The labels are put into 5 parts; trust is learned again without each part, which is then fused
    without its labels. The small model's votes are cross-fitted already. What stays is that other
    texts' training targets knew all labels through the jury's few weights. Cost: 5 times `learn`.
    """
    ids = np.array([example.id for example in pool.examples], dtype=np.int64)
    rows = posteriors.copy()
    human = pool.human[question.name]
    answered = sorted(set(human) & {int(i) for i in ids})
    row_of = {int(i): row for row, i in enumerate(ids)}
    for fold in range(min(_N_FOLDS, len(answered))):
        out = answered[fold::_N_FOLDS]
        others = {i: label for i, label in human.items() if i not in set(out)}
        rest: Human = {**pool.human, question.name: others}
        learned = ensemble.learn(
            pool.project, pool.guidelines, pool.examples, votes, rest, is_kept=False
        )
        examples = [pool.examples[row_of[i]] for i in out]
        labels_out = ensemble.fuse(
            pool.project, pool.guidelines, examples, votes, None, found=learned
        )
        about = [label_out for label_out in labels_out if label_out.question == question.name]
        for i, label_out in zip(out, about, strict=True):
            rows[row_of[i]] = label_out.probabilities or np.nan
    return HeldOut(ids, rows)


def measure(
    pool: Pool,
    question: Question,
    votes: Sequence[WeakLabel],
    fused: HeldOut,
    others: Mapping[str, NDArray[np.float64]],
) -> Measured:
    """Return the figures of a round; without audited labels only counts.

    `others` holds posteriors of further sources by name, as the first and the newest LLM answers.
    """
    human = pool.human[question.name]
    seed = holdout_seed(pool.project.id)
    row_of = {int(i): row for row, i in enumerate(fused.ids)}
    judged = {
        row_of[i]: label for i, label in human.items() if i in row_of and in_holdout(i, seed=seed)
    }
    by_name = posteriors_by_annotator(question, pool.examples, votes)
    sources = {name: p for name, p in by_name.items() if name.startswith("similarity")}
    sources = {"similarity": next(iter(sources.values()))} if sources else {}
    named = {**sources, **others, FUSED_SOURCE: fused.probabilities}
    all_sources = [LabelSource(name, np.nan_to_num(p, nan=0.0)) for name, p in named.items()]
    judge = all_sources[-1]
    figures: dict[str, Any] = {
        "n_texts": len(fused.ids),
        "n_human": len(human),
        "n_audited": len(judged),
    }
    if judged:
        accuracies = estimate_accuracies(all_sources, judged, reference=judge)
        figures["accuracies"] = {n: asdict(found) for n, found in accuracies.items()}
        kappas = estimate_kappas(all_sources, judged)
        figures["kappas"] = {n: asdict(found) for n, found in kappas.items()}
        figures["accept"] = _acceptance(judge, judged)
    return Measured(figures, fused)


def _acceptance(judge: LabelSource, judged: Mapping[int, int]) -> dict[str, Any]:
    rows = np.array(sorted(judged), dtype=np.int64)
    truth = np.array([judged[int(row)] for row in rows], dtype=np.int64)
    return asdict(
        accept_rule(judge.confidences[rows], judge.labels[rows] == truth, judge.confidences)
    )
