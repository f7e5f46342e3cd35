"""What a case has lost, doubled or paid twice, from what was found after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Said = Mapping[int, tuple[int, Any]]
"""An annotation's number to its task and its result, without the skipped ones."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there after a case.

    `said` is the last word of people; `predictions` are (task, model version) of every row in
    Label Studio. `n_paid_twice` prompts went to the LLM while their answer was in the database.
    `outcome` is what a user sees of the round, None where it cannot be compared.
    """

    said: Said
    in_label_studio: Said
    in_backend: Said
    predictions: Sequence[tuple[int, str]]
    n_paid_twice: int
    is_completed: bool
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counts of one case. `is_equal` to the undisturbed run; None: not to be compared."""

    is_completed: bool
    n_lost: int
    n_duplicated: int
    n_paid_twice: int
    is_equal: bool | None
    differs_in: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Return whether nothing is lost, doubled or paid twice, and the round is complete."""
        return self.is_completed and self.is_equal is not False and not self.n_bad

    @property
    def n_bad(self) -> int:
        """Return how many things went wrong."""
        return self.n_lost + self.n_duplicated + self.n_paid_twice


def judge(found: Found, undisturbed: Mapping[str, Any] | None) -> Verdict:
    """Count what was found; compare it with the undisturbed outcome where there are both."""
    differs: tuple[str, ...] = ()
    is_equal = None
    if undisturbed is not None and found.outcome is not None:
        differs = differences(found.outcome, undisturbed)
        is_equal = not differs
    return Verdict(
        is_completed=found.is_completed,
        n_lost=n_changed(found.said, found.in_label_studio)
        + n_changed(found.said, found.in_backend),
        n_duplicated=n_doubles(found.predictions),
        n_paid_twice=found.n_paid_twice,
        is_equal=is_equal,
        differs_in=differs,
    )


def n_changed(said: Said, found: Said) -> int:
    """Return how many annotations are missing, altered, or there although they were deleted."""
    return sum(said.get(number) != found.get(number) for number in said.keys() | found.keys())


def n_doubles(predictions: Sequence[tuple[int, str]]) -> int:
    """Return how many predictions there are beyond one per task and version."""
    return sum(n - 1 for n in Counter(predictions).values())


def differences(outcome: Mapping[str, Any], undisturbed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the parts that are not equal, to the last digit."""
    names = outcome.keys() | undisturbed.keys()
    return tuple(sorted(name for name in names if outcome.get(name) != undisturbed.get(name)))
