"""Whether a new model version may replace the one that is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_MIN_HUMAN = 20  # fewer labels decide nothing, whatever they say
_MIN_FOR_POINT_ESTIMATE = 200
_CLEARLY_WORSE = 0.02  # as a difference of accuracies
_SIGNIFICANCE = 0.05
_N_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions on the same examples: which answers of each are right, shape (n,) each.

    An answer is right that equals the human label; without human labels, that equals the label of
    a small model cross-fitted without this example. A version trained on an example's human label
    cannot be judged by it: such examples need cross-fitted answers or have to be left out.
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
    def difference(self) -> float:
        """Return the challenger's share of right answers minus the champion's; 0.0 for none."""
        if len(self.champion) == 0:
            return 0.0
        return float(self.challenger.mean()) - float(self.champion.mean())


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the challenger is promoted, why in a sentence, and the figures behind it."""

    is_promoted: bool
    reason: str
    figures: Mapping[str, float]

    @property
    def labels_may_replace(self) -> bool:
        """Return whether people's labels allow the challenger's labels to replace the champion's.

        Never without people: what learned from nobody makes labels worse on some projects. With
        them, unless the champion wins by more than a standard error: people answer clear texts
        early on, about which versions hardly differ.
        """
        won, lost = (self.figures.get(name) for name in ("n_won", "n_lost"))
        if not self.is_promoted or won is None or lost is None:
            return False
        return bool(lost - won <= (won + lost) ** 0.5)


_NOTHING_TO_COMPARE = GateDecision(
    True, "promoted: there is nothing yet to compare versions by", {}
)


def decide(
    on_humans: Pair | None, on_agreement: Pair | None, *, rng: np.random.Generator
) -> GateDecision:
    """Promote the challenger unless it is worse than the champion.

    Human labels decide where there are at least 20, else agreement with the cross-fitted small
    model, else nothing holds the challenger back: the first version has no champion to beat.
    """
    if on_humans is not None and len(on_humans.champion) >= _MIN_HUMAN:
        return judge_by_humans(on_humans)
    if on_agreement is not None and len(on_agreement.champion):
        return judge_by_agreement(on_agreement, rng=rng)
    return _NOTHING_TO_COMPARE


def judge_by_humans(pair: Pair) -> GateDecision:
    """Compare by people's labels, with McNemar's exact test.

    Only examples that one version gets right and the other wrong count; were both equally good,
    each side would have half of them. One-sided: refused when the champion's side is so large with
    a probability under 0.05, and, from 200 labels on, when the challenger is 2 points worse anyway.
    McNemar 1947, Psychometrika 12; the exact form is the sign test. Cost: linear.
    """
    n = len(pair.champion)
    if n == 0:
        return _NOTHING_TO_COMPARE
    n_lost = int((pair.champion & ~pair.challenger).sum())
    n_won = int((pair.challenger & ~pair.champion).sum())
    p_value = float(stats.binom.cdf(n_won, n_won + n_lost, 0.5)) if n_won + n_lost else 1.0
    figures = _figures(pair) | {"n_won": n_won, "n_lost": n_lost, "p_value": p_value}
    found = (
        f"on {n} human labels it is right {_accuracy(pair.challenger)}, the present version "
        f"{_accuracy(pair.champion)}"
    )
    if p_value < _SIGNIFICANCE:
        return GateDecision(
            False,
            f"refused: {found}; it loses {n_lost} and wins {n_won}, which chance would do with a "
            f"probability of {p_value:.3f}",
            figures,
        )
    if n >= _MIN_FOR_POINT_ESTIMATE and pair.difference <= -_CLEARLY_WORSE:
        return GateDecision(False, f"refused: {found}", figures)
    return GateDecision(True, f"promoted: {found}; it is not significantly worse", figures)


def judge_by_agreement(pair: Pair, *, rng: np.random.Generator) -> GateDecision:
    """Compare by agreement with cross-fitted labels, with a paired bootstrap.

    Refused when 95 % of 2,000 resamples of the examples have the challenger behind and it agrees at
    least one point less, and, from 200 examples on, when it agrees 2 points less. Agreement is no
    accuracy: the judge is a model, and a version can agree less because it is better. So this only
    keeps out a version that fell apart.
    Cost: linear and 2,000 draws.
    """
    n = len(pair.champion)
    if n == 0:
        return _NOTHING_TO_COMPARE
    shares = np.array(
        [
            (pair.champion & ~pair.challenger).mean(),
            (pair.challenger & ~pair.champion).mean(),
            (pair.champion == pair.challenger).mean(),
        ]
    )
    drawn = rng.multinomial(n, shares / shares.sum(), size=_N_RESAMPLES)
    differences = (drawn[:, 1] - drawn[:, 0]) / n
    highest = float(np.quantile(differences, 1 - _SIGNIFICANCE))
    figures = _figures(pair) | {"highest_difference": highest}
    found = (
        f"it agrees with the cross-fitted small model {_accuracy(pair.challenger)} on {n} "
        f"examples, the present version {_accuracy(pair.champion)}"
    )
    is_far_behind = n >= _MIN_FOR_POINT_ESTIMATE and pair.difference <= -_CLEARLY_WORSE
    if is_far_behind or (highest < 0 and pair.difference <= -_CLEARLY_WORSE / 2):
        return GateDecision(False, f"refused: {found} (too few human labels to ask)", figures)
    return GateDecision(True, f"promoted: {found} (too few human labels to ask)", figures)


def _figures(pair: Pair) -> dict[str, float]:
    return {
        "n": len(pair.champion),
        "champion": float(pair.champion.mean()),
        "challenger": float(pair.challenger.mean()),
        "difference": pair.difference,
    }


def _accuracy(is_right: NDArray[np.bool_]) -> str:
    return f"{is_right.mean():.1%} of the time"
