"""What an unbiased sample of human labels says: accuracy of each source, agreement with people."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.metrics import Estimate, Kappa, estimate_kappa, tighter_share

AUDIT_SHARE = 0.10


def holdout_seed(project_id: str) -> int:
    """Return the seed of a project's audit slice, the same for good."""
    return int(float(project_id))


def holdout_rank(example_id: int, *, seed: int) -> float:
    """Return the example's place in [0, 1) in a random order that anybody can compute again.

    It is a hash of id and seed: independent of texts, labels, models and of other examples, and the
    same after tasks are added or deleted.
    """
    digest = hashlib.sha256(f"audit:{seed}:{example_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def in_holdout(example_id: int, *, seed: int, share: float = AUDIT_SHARE) -> bool:
    """Whether the example belongs to the audit slice, a uniformly random share of all examples."""
    return holdout_rank(example_id, seed=seed) < share


def with_holdout(order: Sequence[int], *, seed: int, share: float = AUDIT_SHARE) -> list[int]:
    """Return a query strategy's order with the audit slice spread evenly through it.

    Audited examples are taken out of the strategy's hands and come in the order of their ranks, one
    in every `1 / share`. Whoever stops labelling anywhere has then labelled the first audited
    examples of a random order: a uniformly random sample, which those that the strategy asks for
    early are not. A longer list of one kind ends the order.
    """
    ranks = {example_id: holdout_rank(example_id, seed=seed) for example_id in order}
    audited = deque(sorted((e for e in order if ranks[e] < share), key=lambda e: (ranks[e], e)))
    chosen = deque(e for e in order if ranks[e] >= share)
    mixed: list[int] = []
    while audited and chosen:
        is_audits_turn = int((len(mixed) + 1) * share) > int(len(mixed) * share)
        mixed.append((audited if is_audits_turn else chosen).popleft())
    return [*mixed, *audited, *chosen]


@dataclass(frozen=True, slots=True)
class Source:
    """One source's answers about the pool, in the pool's order.

    `probabilities` has shape (n, K); a row of zeros is "no answer", which counts as wrong. Rows of
    all examples with human labels, audited or not, must be made without the examples' own labels
    (before they came, or cross-fitted): else the source repeats what it was told and looks better
    than it is, and the audited rows are no random sample of the rows any more.
    """

    name: str
    probabilities: NDArray[np.floating]

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Return which examples have an answer."""
        answered: NDArray[np.bool_] = self.probabilities.sum(axis=1) > 0
        return answered

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the likeliest class of each example, -1 for no answer."""
        return np.where(self.is_answered, self.probabilities.argmax(axis=1), -1)

    @property
    def confidences(self) -> NDArray[np.float64]:
        """Return the probability of the likeliest class, 0.0 for no answer."""
        highest: NDArray[np.float64] = self.probabilities.max(axis=1, initial=0.0)
        return highest.astype(np.float64)


@dataclass(frozen=True, slots=True)
class HoldoutReport:
    """What the audit slice says. `accuracies` has the sources that could be judged, by name."""

    n_audited: int
    accuracies: Mapping[str, Estimate]
    kappas: Mapping[str, Kappa]


def audit(
    sources: Sequence[Source],
    judged: Mapping[int, int],
    *,
    judge_of_rest: Source | None = None,
    level: float = 0.95,
) -> HoldoutReport:
    """Return each source's accuracy over the pool, judged by audited human labels alone.

    `judged` maps positions in the pool to people's classes, for the audited examples only: a
    uniformly random sample. Where `judge_of_rest` (the fused labels, as a rule) is given, a
    source's answer is guessed to be right with the probability that the judge gives to it, else
    with its own confidence; see `powered_share` for how guesses narrow an interval.
    """
    rows = np.array(sorted(judged), dtype=np.int64)
    truth = np.array([judged[int(row)] for row in rows], dtype=np.int64)
    accuracies: dict[str, Estimate] = {}
    kappas: dict[str, Kappa] = {}
    for source in sources:
        guesses = _guesses(source, judge_of_rest)
        is_rest = np.ones(len(guesses), dtype=bool)
        is_rest[rows] = False
        answers = source.labels[rows]
        found = tighter_share(answers == truth, guesses[rows], guesses[is_rest], level=level)
        if found is not None:
            accuracies[source.name] = found
        is_answered = answers >= 0
        kappa = estimate_kappa(answers[is_answered], truth[is_answered], level=level)
        if kappa is not None:
            kappas[source.name] = kappa
    return HoldoutReport(len(rows), accuracies, kappas)


def _guesses(source: Source, scorer: Source | None) -> NDArray[np.float64]:
    if scorer is None:
        return source.confidences
    own = np.take_along_axis(scorer.probabilities, np.maximum(source.labels, 0)[:, None], axis=1)
    guesses = np.where(scorer.is_answered, own[:, 0], source.confidences)
    return np.where(source.is_answered, guesses, 0.0)
