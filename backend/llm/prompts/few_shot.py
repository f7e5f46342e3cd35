"""Make demonstrations of a project's own texts, whose labels are as good as known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from backend.domain.labels import Answer, Demonstration, Example
from backend.domain.questions import Question
from backend.label_model.latent_class import Floats, is_answered

N_SHOTS = (8, 4)
"""Numbers of demonstrations that are tried, the first also in a small project."""
MAX_LABELS = 12
"""A demonstration of each of more labels would be longer than what is asked."""
_CONFIDENT_SHARE = 0.25
_MIN_CONFIDENT = 3


def make_demonstrations(
    question: Question,
    examples: Sequence[Example],
    log_posteriors: Sequence[Floats],
    human: NDArray[np.intp],
    *,
    n_shots: int,
    seed: int,
) -> tuple[Demonstration, ...]:
    """Return at least one demonstration of each label that has a reliable text, in random order.

    People's labels come first. Then a label's demonstrations are drawn from the quarter of its
    texts about which all annotators together are surest: the very surest are all alike.

    Args:
        log_posteriors: calibrated log-posteriors (n, K) of each annotator, NaN rows without one.
        human: people's classes (n,), -1 where there is none.
        n_shots: of all labels together; a label has at least one.
    """
    n_labels = len(question.labels)
    known = [np.where(is_answered(rows)[:, None], rows, 0.0) for rows in log_posteriors]
    posterior = softmax(np.sum(known, axis=0), axis=1)
    labels = np.where(human >= 0, human, posterior.argmax(axis=1))
    confidence = np.where(human >= 0, 2.0, posterior.max(axis=1))
    rng = np.random.default_rng(seed)
    n_each = max(1, n_shots // n_labels)
    chosen: list[int] = []
    for label in range(n_labels):
        rows = np.flatnonzero(labels == label)
        ranked = rows[np.argsort(-confidence[rows], kind="stable")]
        by_people = ranked[human[ranked] >= 0][:n_each]
        n_sure = max(_MIN_CONFIDENT, round(_CONFIDENT_SHARE * len(ranked)))
        others = ranked[human[ranked] < 0][:n_sure]
        drawn = rng.permutation(others)[: n_each - len(by_people)]
        chosen += [*by_people.tolist(), *drawn.tolist()]
    return tuple(
        _demonstration(question, examples[row], int(labels[row]), is_human=bool(human[row] >= 0))
        for row in rng.permutation(chosen).tolist()
    )


def _demonstration(
    question: Question, example: Example, label: int, *, is_human: bool
) -> Demonstration:
    names = [field.name for field in question.fields]
    return Demonstration(
        {name: example.texts[name] for name in names if name in example.texts},
        Answer(labels=(question.labels[label].value,)),
        "human" if is_human else "weak",
        example.id,
    )


def demonstration_to_json(demonstration: Demonstration) -> dict[str, Any]:
    """Return a demonstration of a label as plain values."""
    return {
        "texts": dict(demonstration.texts),
        "labels": list(demonstration.answer.labels),
        "source": demonstration.source,
        "example_id": demonstration.example_id,
    }


def demonstration_from_json(data: Mapping[str, Any]) -> Demonstration:
    """Read what `demonstration_to_json` wrote."""
    answer = Answer(labels=tuple(data["labels"]))
    return Demonstration(data["texts"], answer, data["source"], data["example_id"])
