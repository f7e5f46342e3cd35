"""Evaluate a round on the random holdout: accuracies, agreement with people, the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
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
from backend.domain.questions import Question
from backend.evaluation.selective_prediction import accept_rule
from backend.pipeline.pool import Pool


def measure(
    pool: Pool, question: Question, sources: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Return the figures of a round, JSON-ready; without held-out human labels only counts.

    Args:
        sources: Posteriors (n, K) by name; the last is the round's own labels, held out, whose
            confidences stand for the texts without a human label.
    """
    human = pool.human[question.name]
    seed = holdout_seed(pool.project.id)
    row_of = {int(i): row for row, i in enumerate(pool.example_ids)}
    held_out = {
        row_of[i]: label for i, label in human.items() if i in row_of and in_holdout(i, seed=seed)
    }
    figures: dict[str, Any] = {
        "n_texts": len(pool.examples),
        "n_human": len(human),
        "n_audited": len(held_out),
    }
    if not held_out:
        return figures
    named = [LabelSource(name, np.nan_to_num(p, nan=0.0)) for name, p in sources.items()]
    own = named[-1]
    accuracies = estimate_accuracies(named, held_out, reference=own)
    kappas = estimate_kappas(named, held_out)
    rows = np.array(sorted(held_out), dtype=np.int64)
    truth = np.array([held_out[int(row)] for row in rows], dtype=np.int64)
    is_right = own.labels[rows] == truth
    return figures | {
        "accuracies": {name: asdict(found) for name, found in accuracies.items()},
        "kappas": {name: asdict(found) for name, found in kappas.items()},
        "accept": asdict(accept_rule(own.confidences[rows], is_right, own.confidences)),
    }
