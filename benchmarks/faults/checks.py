"""Count what a case has lost, duplicated or paid twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HumanLabels = Mapping[int, tuple[int, Any]]
"""Annotation id -> task id and result, without skipped ones."""


@dataclass(frozen=True, slots=True)
class FinalState:
    """The servers' state after a case.

    Args:
        submitted: The human labels as last submitted.
        in_label_studio: Those that Label Studio holds.
        in_backend: Those that the backend holds.
        predictions: (task id, model version) of every prediction in Label Studio.
        n_paid_twice: Prompts sent to the LLM while their answer was in the database.
        is_completed: Whether the round ended by itself and learned its question.
        outcome: The round's results as a user sees them; None where not comparable.
        n_doubled_regions: Regions that a prediction holds more than once.
    """

    submitted: HumanLabels
    in_label_studio: HumanLabels
    in_backend: HumanLabels
    predictions: Sequence[tuple[int, str]]
    n_paid_twice: int
    is_completed: bool
    outcome: Mapping[str, Any] | None = None
    n_doubled_regions: int = 0


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The counts of one case; `is_equal` to the undisturbed run, None where not comparable."""

    is_completed: bool
    n_lost: int
    n_duplicated: int
    n_paid_twice: int
    is_equal: bool | None
    differs_in: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Return whether nothing is lost, duplicated or paid twice, and the round is complete."""
        return self.is_completed and self.is_equal is not False and not self.n_defects

    @property
    def n_defects(self) -> int:
        """Return the number of losses, duplicates and double payments."""
        return self.n_lost + self.n_duplicated + self.n_paid_twice


def check(state: FinalState, undisturbed: Mapping[str, Any] | None) -> CaseResult:
    """Count defects, and compare with the undisturbed outcome where there are both."""
    differs: tuple[str, ...] = ()
    is_equal = None
    if undisturbed is not None and state.outcome is not None:
        differs = differences(state.outcome, undisturbed)
        is_equal = not differs
    return CaseResult(
        is_completed=state.is_completed,
        n_lost=n_changed(state.submitted, state.in_label_studio)
        + n_changed(state.submitted, state.in_backend),
        n_duplicated=n_duplicates(state.predictions) + state.n_doubled_regions,
        n_paid_twice=state.n_paid_twice,
        is_equal=is_equal,
        differs_in=differs,
    )


def n_changed(submitted: HumanLabels, held: HumanLabels) -> int:
    """Return the number of annotations missing, altered, or held although deleted."""
    return sum(submitted.get(id_) != held.get(id_) for id_ in submitted.keys() | held.keys())


def n_duplicates(found: Sequence[Hashable]) -> int:
    """Return how many of the things are beyond the first of their kind."""
    return len(found) - len(Counter(found))


def differences(outcome: Mapping[str, Any], undisturbed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parts of the outcome that differ."""
    names = outcome.keys() | undisturbed.keys()
    return tuple(sorted(name for name in names if outcome.get(name) != undisturbed.get(name)))
