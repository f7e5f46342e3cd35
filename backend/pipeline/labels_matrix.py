"""Votes by annotator in, one verdict per example out: the shapes around the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Abstention, AbstentionReason, Example, WeakLabel
from backend.domain.questions import Question
from backend.label_model.single_label import AggregatedLabels

FUSED = "fused"
"""The annotator's name of the jury's own verdicts."""
_NOBODY = Abstention(AbstentionReason.UNREADABLE, "no annotator gave a label")


def posteriors_by_annotator(
    question: Question, examples: Sequence[Example], votes: Sequence[WeakLabel]
) -> dict[str, NDArray[np.float64]]:
    """Return each annotator's posteriors on a question, (n, K), NaN rows where it abstained."""
    row_of = {example.id: row for row, example in enumerate(examples)}
    found: dict[str, NDArray[np.float64]] = {}
    shape = (len(examples), len(question.labels))
    for vote in votes:
        is_vote = vote.question == question.name and len(vote.probabilities) == shape[1] > 0
        if is_vote and vote.annotator != FUSED and vote.example_id in row_of:
            array = found.setdefault(vote.annotator, np.full(shape, np.nan))
            array[row_of[vote.example_id]] = vote.probabilities
    return found


def leading_votes(votes: Sequence[WeakLabel]) -> dict[int, WeakLabel]:
    """Return the vote to fall back on for each example: the first label, else the first word."""
    lead: dict[int, WeakLabel] = {}
    for vote in votes:
        known = lead.get(vote.example_id)
        if known is None or (known.abstention is not None and vote.abstention is None):
            lead[vote.example_id] = vote
    return lead


def heard(posteriors: Mapping[str, NDArray[np.float64]], row: int) -> dict[str, Any]:
    """Return the posteriors of those who spoke about one example, by annotator."""
    return {name: p[row] for name, p in posteriors.items() if np.isfinite(p[row]).all()}


def as_aggregated_label(vote: WeakLabel | None, question: Question, example: Example) -> WeakLabel:
    """Return one annotator's word as the verdict; None: nobody's."""
    if vote is None:
        return WeakLabel(example.id, question.name, FUSED, "nobody", abstention=_NOBODY)
    return replace(
        vote, annotator=FUSED, prompt_version=vote.annotator, n_tokens_in=0, n_tokens_out=0
    )


def aggregate_multilabel(
    question: Question,
    example: Example,
    probabilities: NDArray[np.float64],
    lead: WeakLabel | None,
    heard: Mapping[str, NDArray[np.float64]],
) -> WeakLabel:
    """Return the verdict on several labels; without a voice it is `lead`'s abstention."""
    if not heard:
        return as_aggregated_label(lead, question, example)
    return WeakLabel(
        example.id,
        question.name,
        FUSED,
        "combination" if len(heard) > 1 else next(iter(heard)),
        probabilities=tuple(probabilities.tolist()),
        votes={name: tuple(p.tolist()) for name, p in heard.items()},
        injection_flag=lead.injection_flag if lead else None,
        is_truncated=bool(lead and lead.is_truncated),
    )


def aggregate_single_label(
    question: Question, example: Example, fused: AggregatedLabels, row: int, lead: WeakLabel | None
) -> WeakLabel:
    """Return the verdict in a row of `fused`; without a voice it is `lead`'s abstention."""
    source = fused.sources[row]
    if source is None or (not fused.annotator_posteriors[row] and source != "human"):
        return as_aggregated_label(lead, question, example)
    return WeakLabel(
        example.id,
        question.name,
        FUSED,
        source,
        probabilities=tuple(fused.probabilities[row].tolist()),
        votes=dict(fused.annotator_posteriors[row]),
        label_mass=lead.label_mass if lead else None,
        injection_flag=lead.injection_flag if lead else None,
        is_truncated=bool(lead and lead.is_truncated),
    )
