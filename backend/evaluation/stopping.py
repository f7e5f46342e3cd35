"""Decide when rounds have converged, and when more human labels stop correcting labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MIN_GAIN = 0.005  # by the next answers
_MAX_PAUSE_S, _MIN_GAPS = 600.0, 5
_MAX_CHANGED = 0.02
_MAX_WIDTH = 0.10  # of the accuracy's interval, for a user who wants to rely on it


@dataclass(frozen=True, slots=True)
class RoundAdvice:
    """Whether another round is not expected to change anything; the sentence has the numbers."""

    is_converged: bool
    sentence: str
    figures: Mapping[str, float]


def advise_on_rounds(
    changed_shares: Sequence[float],
    *,
    max_changed: float = _MAX_CHANGED,
    patience: int = 2,
    max_rounds: int = 6,
) -> RoundAdvice:
    """Decide whether the loop of refinement and training has converged.

    Args:
        changed_shares: per round from the second on, the share of aggregated labels that differ
            from the round before, in [0, 1].
        max_changed: the largest such share of a round that changed nothing that matters.
        patience: how many such rounds in a row mean convergence (one can be chance).
        max_rounds: converged in any case after so many.
    """
    n_rounds = len(changed_shares) + 1
    recent = list(changed_shares[-patience:])
    figures = {"n_rounds": float(n_rounds), "max_changed": max_changed}
    if recent:
        figures["changed"] = recent[-1]
    shown = " and ".join(f"{share:.1%}" for share in recent)
    if len(recent) == patience and max(recent) <= max_changed:
        sentence = (
            f"The last {patience} rounds changed {shown} of the labels, at most {max_changed:.0%} "
            "each: another round is not expected to pay."
        )
        return RoundAdvice(True, sentence, figures)
    if n_rounds >= max_rounds:
        return RoundAdvice(True, f"The limit of {max_rounds} rounds is reached.", figures)
    sentence = (
        f"The latest changes were {shown} of the labels; until {patience} in a row are at most "
        f"{max_changed:.0%}, another round may pay."
    )
    if not recent:
        sentence = "One round cannot show whether labels still change."
    return RoundAdvice(False, sentence, figures)


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """What the next answers are expected to bring.

    Args:
        n: how many answers.
        gain: share of the pool's labels that they are expected to correct, in [0, 1].
        hours: people's time for them at the measured pace; None where no pace is measured.
    """

    n: int
    gain: float
    hours: float | None = None

    def __str__(self) -> str:
        """Return the gain in points, and the time."""
        took = "" if self.hours is None else f" in {_time(self.hours)} at the measured pace"
        return f"the next {self.n} answers are expected to add {100 * self.gain:.1f} points{took}"


def _time(hours: float) -> str:
    """Return a time in words: under an hour in minutes, of at least one."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    n_minutes = max(1, round(60 * hours))
    return f"{n_minutes} minute{'s' if n_minutes > 1 else ''}"


@dataclass(frozen=True, slots=True)
class LabelAdvice:
    """Whether more human labels are expected to pay; None: too early to say."""

    is_paying: bool | None
    sentence: str
    figures: Mapping[str, float]


def advise_on_labels(
    expected: ExpectedAnswers | None, *, width: float | None, changed_share: float | None
) -> LabelAdvice:
    """Decide whether more human labels are expected to pay.

    They do while the next 50 are expected to correct half a point of the pool's labels, while over
    2 % of the aggregated labels change, or while the accuracy's interval is over 10 points wide.

    Args:
        expected: what the queue's next answers correct; None before it has an order of labels.
        width: of the accuracy's interval, in [0, 1]; None without an estimate.
        changed_share: of the aggregated labels in the last round; None if unknown.
    """
    if expected is None:
        sentence = "Too early to say whether more labels pay: the queue has no order of labels yet."
        return LabelAdvice(None, sentence, {})
    figures = {"expected_gain": expected.gain}
    figures |= {} if expected.hours is None else {"hours": expected.hours}
    figures |= {} if width is None else {"width": width}
    figures |= {} if changed_share is None else {"changed": changed_share}
    known, is_paying = str(expected).capitalize(), True
    if expected.gain >= _MIN_GAIN:
        advice = ": go on."
    elif changed_share is not None and changed_share > _MAX_CHANGED:
        advice = f", but the last ones still changed {changed_share:.1%} of the labels: go on."
    elif width is None or width > _MAX_WIDTH:
        shown = "unknown" if width is None else f"known to {100 * width:.1f} points"
        advice = f", but the accuracy is {shown}: go on if you need to know it."
    else:
        is_paying, advice = False, ": more labels are not expected to pay."
    return LabelAdvice(is_paying, f"{known}{advice}", figures)


def seconds_per_answer(moments: Mapping[object, Sequence[float]]) -> float | None:
    """Return the median seconds between two answers of one person; None under 5 of them.

    Args:
        moments: by person, when answers came, in seconds; pauses over 10 minutes do not count.
    """
    gaps = np.concatenate([np.diff(np.sort(one)) for one in moments.values()] or [np.zeros(0)])
    gaps = gaps[(gaps > 0) & (gaps <= _MAX_PAUSE_S)]
    return float(np.median(gaps)) if len(gaps) >= _MIN_GAPS else None
