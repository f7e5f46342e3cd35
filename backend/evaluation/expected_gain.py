"""Estimate what a change of labels gains, from annotators alone, with an honest interval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_REFEREES = 4  # all annotators together, and each of at least three left out
_Z = 1.645  # of a two-sided interval of 90 %
_DEPENDENCE_SD = 0.3  # of the lead that a changed decision is estimated to have
_REFEREE_WEIGHT = 0.3
_MIN_LEADS = tuple(round(0.1 * step, 1) for step in range(8))


@dataclass(frozen=True, slots=True, eq=False)
class ChangedDecisions:
    """Decisions about which two versions of the labels differ, as R referees see them.

    Args:
        found: (R, m), probability that the new version is right about each of m decisions, times
            what that gains where decisions do not count alike (`changed_decisions`). The first
            referee is a label model of all annotators, each other one lacks one of them.
        served: (R, m), likewise of the served version.
        texts: (m,), the row of the text that each decision is about, ascending.
        n_decisions: how many decisions both versions made, the m included.
        needs_all: whether the leave-one-out model that supports the change least stands for all of
            them, instead of their mean: no change may rest on one annotator alone.
    """

    found: Floats
    served: Floats
    texts: NDArray[np.intp]
    n_decisions: int
    needs_all: bool = False

    def __post_init__(self) -> None:
        if self.found.shape != self.served.shape or self.found.shape[1:] != self.texts.shape:
            raise ValueError(
                f"both versions need one row per referee and one column per changed decision, "
                f"found shapes {self.found.shape}, {self.served.shape} and {self.texts.shape}"
            )

    @property
    def leads(self) -> Floats:
        """Return how far the new version is ahead, (m,): half all together, half leave-one-out."""
        return np.asarray(self._mixed(self.found) - self._mixed(self.served))

    @property
    def leads_of_texts(self) -> Floats:
        """Return the mean lead of each decision's text, (m,): a text changes as a whole."""
        _, at, counts = np.unique(self.texts, return_inverse=True, return_counts=True)
        return np.asarray((np.bincount(at, weights=self.leads) / counts)[at])

    @property
    def total_by_all(self) -> float:
        """Return the sum of leads that the label model of all annotators expects."""
        return float((self.found[0] - self.served[0]).sum())

    def select(self, rows: NDArray[np.bool_]) -> ChangedDecisions:
        """Return some of the changed decisions, as if the others stayed as they are served."""
        return replace(
            self,
            found=self.found[:, rows],
            served=self.served[:, rows],
            texts=self.texts[rows],
        )

    def sum_variance(self) -> float:
        """Return the variance of the sum of all outcomes: +1 gained, -1 lost, else 0.

        That of decisions which count less is a little lower than this.
        """
        total = float(self.leads.sum())
        outcomes = float((self._mixed(self.found) + self._mixed(self.served)).sum())
        drawn = max(outcomes - total**2 / max(self.n_decisions, 1), 0.0)
        dependence = (_DEPENDENCE_SD * self.found.shape[1]) ** 2
        by_referee = (self.found - self.served).sum(axis=1)
        spread = float(by_referee[1:].std()) if len(by_referee) > 1 else 0.0
        return drawn + dependence + (_REFEREE_WEIGHT * spread) ** 2

    def _mixed(self, probabilities: Floats) -> Floats:
        rest = slice(1 if len(probabilities) > 1 else 0, None)
        others = probabilities[rest]
        if self.needs_all and others.size:
            least = int((self.found[rest] - self.served[rest]).sum(axis=1).argmin())
            others = others[least : least + 1]
        return np.asarray((probabilities[0] + others.mean(axis=0)) / 2)


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """Expected change in the share of right decisions, with its 90 % interval.

    `n_changed` of `n_decisions` change: those with a lead of at least `min_lead`.
    """

    value: float
    low: float
    high: float
    n_changed: int
    n_decisions: int
    min_lead: float = 0.0

    @property
    def is_supported(self) -> bool:
        """Return whether the change gains something even at the lower end of the interval."""
        return self.low > 0

    def __str__(self) -> str:
        """Return the gain in points with its interval."""
        return f"{100 * self.value:+.1f} points [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for metrics."""
        return {name: getattr(self, name) for name in self.__slots__}


def expected_gain(changed: ChangedDecisions, *, min_lead: float = 0.0) -> ExpectedGain:
    """Estimate the gain of all changes of at least some lead; 0 for no change.

    The idea: where labels stay as they are nothing is gained or lost, so only the changed decisions
    count. Each is won with the probability that its new label is right and lost with that of the
    served one. A label model of all annotators says so too surely, because it made the new labels;
    models that lack one annotator each are unsure instead: half of each is about right (measured on
    cached posteriors, docs/algorithms.md).

    The interval is normal. Its variance is the sum of that of a bootstrap over texts with outcomes
    drawn, in closed form; of 0.3 per changed decision, common to all of them, for errors that
    annotators share; and of the spread between the leave-one-out models. Its upper end reaches
    twice as far above the estimate of all annotators: where they err independently, label models,
    which state their confidence with care, expect too little. Cost: O(R m).
    """
    if changed.found.shape[1] == 0 or changed.n_decisions == 0:
        return ExpectedGain(0.0, 0.0, 0.0, 0, changed.n_decisions, min_lead)
    total, reach = float(changed.leads.sum()), _Z * changed.sum_variance() ** 0.5
    n = changed.n_decisions
    ends = total - reach, max(total, changed.total_by_all) + 2 * reach
    low, high = (float(np.clip(end / n, -1, 1)) for end in ends)
    return ExpectedGain(total / n, low, high, changed.found.shape[1], n, min_lead)


def supported_changes(changed: ChangedDecisions) -> tuple[ExpectedGain, NDArray[np.intp]]:
    """Return the gain of the most changes that evidence supports, and the rows of their texts.

    Texts with little lead are left out step by step until the lower end of the interval is above 0.
    Where that never happens, no text changes, and the gain is that of all changes. Nor does one
    with fewer than three annotators: nothing tells their errors apart.
    """
    everything, none = expected_gain(changed), np.zeros(0, dtype=np.intp)
    if len(changed.found) < MIN_REFEREES:
        return everything, none
    leads = changed.leads_of_texts
    for min_lead in _MIN_LEADS:
        chosen = changed.select(leads >= min_lead if min_lead else np.isfinite(leads))
        gain = expected_gain(chosen, min_lead=min_lead)
        if gain.is_supported:
            return gain, np.unique(chosen.texts)
    return everything, none
