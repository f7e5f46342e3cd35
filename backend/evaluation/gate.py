"""Decide whether a new model version replaces the one that is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from backend.domain.labels import MIN_HUMAN_LABELS

_MIN_FOR_POINT_ESTIMATE = 200
_CLEARLY_WORSE = 0.02  # as a difference of accuracies
_SIGNIFICANCE = 0.05
_N_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PairedOutcomes:
    """Which answers of two versions on the same examples are right, shape (n,) each.

    Right is an answer that equals the human label; without human labels, one that equals the label
    of a student cross-fitted without this example. Answers of a version that was trained on the
    example's human label must be cross-fitted or left out.
    """

    champion: NDArray[np.bool_]
    challenger: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.champion.shape != self.challenger.shape or self.champion.ndim != 1:
            raise ValueError(
                f"both versions must answer the same examples, found shapes "
                f"{self.champion.shape} and {self.challenger.shape}"
            )

    @property
    def figures(self) -> dict[str, float]:
        """Return size `n`, both accuracies, and the challenger's minus the champion's."""
        champion, challenger = float(self.champion.mean()), float(self.challenger.mean())
        sides = {"champion": champion, "challenger": challenger}
        return {"n": len(self.champion), **sides, "difference": challenger - champion}


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the challenger is promoted, why in a sentence, and the figures behind it."""

    is_promoted: bool
    reason: str
    figures: Mapping[str, float]

    @property
    def is_by_people(self) -> bool:
        """Return whether human labels decided."""
        return "n_won" in self.figures

    @property
    def labels_may_replace(self) -> bool:
        """Return whether human labels allow the challenger's labels to replace the champion's.

        Never without human labels. With them, unless the champion wins by more than a standard
        error: answers are few, and the queue does not ask at random.
        """
        if not self.is_promoted or not self.is_by_people:
            return False
        won, lost = self.figures["n_won"], self.figures["n_lost"]
        return bool(lost - won <= (won + lost) ** 0.5)


def decide_promotion(
    on_humans: PairedOutcomes | None,
    on_agreement: PairedOutcomes | None,
    *,
    rng: np.random.Generator,
) -> GateDecision:
    """Promote the challenger unless it is worse than the champion.

    Human labels decide where there are at least 20, else agreement with the cross-fitted student,
    else the challenger is promoted: the first version has no champion to beat.

    Args:
        on_humans: outcomes on human labels.
        on_agreement: outcomes on the cross-fitted student's labels.
        rng: draws the bootstrap's resamples.
    """
    if on_humans is not None and len(on_humans.champion) >= MIN_HUMAN_LABELS:
        return compare_on_human_labels(on_humans)
    if on_agreement is not None and len(on_agreement.champion):
        return compare_on_agreement(on_agreement, rng=rng)
    return GateDecision(True, "promoted: there is nothing yet to compare versions by", {})


def compare_on_human_labels(pair: PairedOutcomes) -> GateDecision:
    """Compare two versions on human labels with McNemar's exact test.

    Only examples that one version gets right and the other wrong count; were both equally good,
    each would win half of them. One-sided: refused when so many losses have a probability under
    0.05, and, from 200 labels on, when the challenger is 2 points worse anyway. McNemar 1947,
    Psychometrika 12; the exact form is the sign test. Cost: linear.
    """
    n = len(pair.champion)
    n_lost = int((pair.champion & ~pair.challenger).sum())
    n_won = int((pair.challenger & ~pair.champion).sum())
    p_value = float(bdtr(n_won, n_won + n_lost, 0.5)) if n_won + n_lost else 1.0
    figures = pair.figures | {"n_won": n_won, "n_lost": n_lost, "p_value": p_value}
    accuracies = (
        f"on {n} human labels it is right {_share(pair.challenger)}, the present version "
        f"{_share(pair.champion)}"
    )
    if p_value < _SIGNIFICANCE:
        return GateDecision(
            False,
            f"refused: {accuracies}; it loses {n_lost} and wins {n_won}, which chance would do "
            f"with a probability of {p_value:.3f}",
            figures,
        )
    if n >= _MIN_FOR_POINT_ESTIMATE and figures["difference"] <= -_CLEARLY_WORSE:
        return GateDecision(False, f"refused: {accuracies}", figures)
    return GateDecision(True, f"promoted: {accuracies}; it is not significantly worse", figures)


def compare_on_agreement(pair: PairedOutcomes, *, rng: np.random.Generator) -> GateDecision:
    """Compare two versions on agreement with cross-fitted labels, with a paired bootstrap.

    Refused when 95 % of 2,000 resamples have the challenger behind and it agrees at least one point
    less, and, from 200 examples on, when it agrees 2 points less. Agreement is no accuracy: a
    version can agree less because it is better. So this only keeps out a version that fell apart.
    Cost: linear and 2,000 draws.
    """
    n = len(pair.champion)
    lost, won = pair.champion & ~pair.challenger, pair.challenger & ~pair.champion
    shares = np.array([lost.mean(), won.mean(), (pair.champion == pair.challenger).mean()])
    drawn = rng.multinomial(n, shares / shares.sum(), size=_N_RESAMPLES)
    differences = (drawn[:, 1] - drawn[:, 0]) / n
    highest = float(np.quantile(differences, 1 - _SIGNIFICANCE))
    figures = pair.figures | {"highest_difference": highest}
    agreement = (
        f"it agrees with the cross-fitted student {_share(pair.challenger)} on {n} "
        f"examples, the present version {_share(pair.champion)} (too few human labels to ask)"
    )
    gain = figures["difference"]
    is_clearly_worse = n >= _MIN_FOR_POINT_ESTIMATE and gain <= -_CLEARLY_WORSE
    if is_clearly_worse or (highest < 0 and gain <= -_CLEARLY_WORSE / 2):
        return GateDecision(False, f"refused: {agreement}", figures)
    return GateDecision(True, f"promoted: {agreement}", figures)


def _share(is_right: NDArray[np.bool_]) -> str:
    return f"{is_right.mean():.1%} of the time"
