"""Learn how to weight annotators on a multi-label question, and how many labels a text has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.label_model.latent_class import Floats, sample_rows

UNLISTED_PROBABILITY = 0.01
"""Of a label that an annotator was not asked about: low, never 0, and ignored by the model."""
_MIN_PROBABILITY = 1e-4
_MAX_RATE = 0.9
_SURE = 0.9
"""An annotator's probability of a label that holds, before anything else is known of it."""
_LEVEL = 0.2
_MIN_SEPARATION = 1.0
_MIN_VARIANCE = 0.25
_INVERSE_TEMPERATURE = 0.8
"""Of the posterior: probabilities of one text's labels, and of two annotators, share errors."""
_MIN_SHOWN = 0.2
"""A label under this posterior is not shown, however many are expected."""
_TIE = 1e-6  # log-odds: of cells that all look alike none is over one half
_N_STEPS = 50
_N_PRIOR_CELLS = 20.0
_N_PRIOR_OF_LABEL = 10.0
_N_PRIOR_OF_LEVEL = 5.0
_OWN_RATE_WEIGHT = 0.1
_HUMAN_WEIGHT = 10.0
_N_STRATA = 5
_STRATUM_WEIGHTS = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class MultilabelAnnotator:
    """Parameters of one annotator's log-odds.

    `levels` (L,) are the log-odds that a text without the label has of each: the prompt's or the
    definition's own preference, taken from the lowest fifth of the texts, since even a frequent
    label does not hold for all. Above that level log-odds are normal around `absent` where a label
    does not hold and around `present` where it does, with one `variance`.
    """

    levels: tuple[float, ...]
    present: float
    absent: float = 0.0
    variance: float = 1.0

    @classmethod
    def fit(cls, probabilities: Floats) -> MultilabelAnnotator:
        """Measure an annotator's levels; the other parameters are what its claims imply.

        An annotator that says 5 % of nearly every label and text is expected to say 90 % where one
        holds.
        """
        odds = _log_odds(probabilities)
        is_known = ~np.isnan(odds)
        overall = float(np.quantile(odds[is_known], _LEVEL)) if is_known.any() else 0.0
        levels = np.array(
            [
                np.quantile(column[known], _LEVEL) if known.any() else overall
                for column, known in zip(odds.T, is_known.T, strict=True)
            ]
        )
        n_known = is_known.sum(axis=0)
        levels = n_known * levels + _N_PRIOR_OF_LEVEL * overall
        levels = levels / (n_known + _N_PRIOR_OF_LEVEL)
        left = (odds - levels)[is_known]
        absent = float(np.median(left)) if len(left) else 0.0
        variance = float(((left - absent) ** 2).mean()) if len(left) else 1.0
        present = float(logit(_SURE)) - float(np.median(levels))
        present = max(present, absent + _MIN_SEPARATION)
        return cls(tuple(levels.tolist()), present, absent, max(variance, _MIN_VARIANCE))

    def scores(self, probabilities: Floats) -> Floats:
        """Return log-odds above their level (n, L), NaN where the annotator abstained."""
        return np.asarray(_log_odds(probabilities) - np.array(self.levels))

    def evidence(self, scores: Floats) -> Floats:
        """Return the log-likelihood ratio of each label (n, L), 0 where scores are NaN."""
        weight = (self.present - self.absent) / self.variance
        middle = (self.present + self.absent) / 2
        return np.nan_to_num(weight * (scores - middle))

    def updated(
        self, scores: Floats, holds: Floats, importance: Floats, expected: float
    ) -> MultilabelAnnotator:
        """Return the annotator with means and variance fitted to its scores.

        Args:
            scores: log-odds above their level (n, L).
            holds: the probability that each label holds (n, L).
            importance: the weight of each text (n, 1).
            expected: what its claims imply for `present`, which counts as 20 labels.
        """
        is_known, filled = ~np.isnan(scores), np.nan_to_num(scores)
        yes, no = importance * is_known * holds, importance * is_known * (1 - holds)
        present = float((yes * filled).sum()) + _N_PRIOR_CELLS * expected
        present /= float(yes.sum()) + _N_PRIOR_CELLS
        absent = float((no * filled).sum() / max(no.sum(), 1e-9))
        present = max(present, absent)
        squares = yes * (filled - present) ** 2 + no * (filled - absent) ** 2
        variance = float(squares.sum() / max(yes.sum() + no.sum(), 1e-9))
        return replace(self, present=present, absent=absent, variance=max(variance, _MIN_VARIANCE))


@dataclass(frozen=True, slots=True)
class MultilabelModel:
    """A fitted model of plain numbers.

    `base_rates` (L,) is how often each label is estimated to hold; `offset`, at most 0, is
    subtracted from all log-odds so that as many labels as that are over one half; `n_human` counts
    human-labeled texts.
    """

    base_rates: tuple[float, ...]
    offset: float
    annotators: Mapping[str, MultilabelAnnotator]
    n_human: int = 0

    def posterior(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return each label's probability (n, L); annotators unknown to the model are ignored."""
        odds = self.log_odds(probabilities) - self.offset
        return np.asarray(expit(_INVERSE_TEMPERATURE * odds))

    def log_odds(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return each label's log-odds (n, L) before the offset."""
        shape = next(iter(probabilities.values())).shape
        odds = np.broadcast_to(logit(np.array(self.base_rates)), shape)
        for name, annotator in self.annotators.items():
            if name in probabilities:
                odds = odds + annotator.evidence(annotator.scores(probabilities[name]))
        return np.asarray(odds)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MultilabelModel:
        """Read what `to_json` wrote."""
        annotators = {
            name: MultilabelAnnotator(**{**values, "levels": tuple(values["levels"])})
            for name, values in data["annotators"].items()
        }
        return cls(tuple(data["base_rates"]), data["offset"], annotators, data["n_human"])


def aggregate_multilabel(
    probabilities: Mapping[str, Floats], model: MultilabelModel | None = None
) -> Floats:
    """Aggregate annotators' probabilities per label into one per label, (n, L).

    Args:
        probabilities: (n, L) by annotator, NaN entries being abstentions.
        model: the fitted model; without one, or where it knows none of the annotators (another LLM
            is served now), the mean log-odds count, and 0.5 where all abstained.

    Raises:
        ValueError: there is no annotator.
    """
    _require_annotators(probabilities)
    if model is not None and model.annotators.keys() & probabilities.keys():
        return model.posterior(probabilities)
    stacked = np.stack(list(probabilities.values()))
    odds = logit(np.clip(stacked, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
    n_known = (~np.isnan(odds)).sum(axis=0)
    return np.asarray(expit(np.nan_to_num(odds).sum(axis=0) / np.maximum(n_known, 1)))


def fit_multilabel_model(
    probabilities: Mapping[str, Floats], human: Mapping[int, frozenset[int]] | None = None
) -> MultilabelModel:
    """Fit the weights of annotators that give several labels per text, and how many there are.

    Args:
        probabilities: per label (n, L) by annotator, NaN where it abstained.
        human: the set of right labels by row; the rows need not be drawn at random.

    The idea: whether a label holds for a text is hidden; given it, annotators err independently,
    and their log-odds above each label's typical level are normal with one mean where it holds and
    one where it does not, the same for all labels, so that thousands of cells determine three
    numbers per annotator. These and how often each label holds are found by expectation
    maximization (Dawid and Skene 1979, with normal scores); people's cells are fixed. How many
    labels there are is learned from the shape of what annotators say: where all of it is one heap
    around 5 %, no label holds, and what lies far above it does. What an annotator's own
    probabilities claim is the prior of the rates, with a tenth of the texts' weight.

    People's answers count tenfold for an annotator's means, once for the rates, which are means
    over the whole pool: that people were shown texts with rare labels first does not raise them.
    For the means their texts are weighted so that they spread over the annotators' scores as the
    pool does. Last, log-odds are raised until as many labels as estimated are over one half, but
    none with a posterior under 0.2. Cost: 50 passes over n x L x A cells, n at most 4,000.

    Raises:
        ValueError: there is no annotator.
    """
    _require_annotators(probabilities)
    human = human or {}
    answered = [np.isfinite(p).any(axis=1) for p in probabilities.values()]
    rows = sample_rows(np.any(answered, axis=0), human)
    sampled = {name: p[rows] for name, p in probabilities.items()}
    is_human = np.isin(rows, list(human))
    truth = np.zeros((len(rows), next(iter(sampled.values())).shape[1]))
    for at in np.flatnonzero(is_human):
        truth[at, sorted(human[int(rows[at])])] = 1.0
    model = MultilabelModel(
        tuple(np.full(truth.shape[1], _own_rate(sampled)).tolist()),
        0.0,
        {name: MultilabelAnnotator.fit(p) for name, p in sampled.items()},
        len(human),
    )
    model = _maximize(model, sampled, is_human, truth)
    odds = model.log_odds(sampled)
    rate = float(np.mean(model.base_rates))
    offset = float(np.quantile(odds, 1 - rate)) + _TIE if odds.size else 0.0
    return replace(model, offset=min(max(offset, float(logit(_MIN_SHOWN))), 0.0))


def _maximize(
    model: MultilabelModel,
    probabilities: Mapping[str, Floats],
    is_human: NDArray[np.bool_],
    truth: Floats,
) -> MultilabelModel:
    """Fit rates and annotators by expectation maximization."""
    own_rate = model.base_rates[0]
    expected = {name: annotator.present for name, annotator in model.annotators.items()}
    scores = {name: one.scores(probabilities[name]) for name, one in model.annotators.items()}
    importance = _importance(scores, is_human)
    n_texts = len(truth)
    for _ in range(_N_STEPS if truth.size else 0):
        holds = np.where(is_human[:, None], truth, expit(model.log_odds(probabilities)))
        n_own = _OWN_RATE_WEIGHT * n_texts
        overall = (float(holds.mean(axis=1).sum()) + n_own * own_rate) / (n_texts + n_own)
        n_prior = _N_PRIOR_OF_LABEL + n_own
        rates = (holds.sum(axis=0) + n_prior * overall) / (n_texts + n_prior)
        annotators = {
            name: one.updated(scores[name], holds, importance, expected[name])
            for name, one in model.annotators.items()
        }
        rates = np.clip(rates, _MIN_PROBABILITY, _MAX_RATE)
        model = replace(model, base_rates=tuple(rates.tolist()), annotators=annotators)
    return model


def _own_rate(probabilities: Mapping[str, Floats]) -> float:
    """Return the least of the shares of labels that the annotators claim to hold.

    One that says yes to most texts without a label claims what it says beyond that.
    """
    claims = []
    for each in probabilities.values():
        odds = _log_odds(each)
        asked = odds[~np.isnan(odds)]
        if len(asked):
            claims.append(float(expit(asked - max(0.0, 2 * float(np.median(asked)))).mean()))
    return min(max(min(claims, default=_MIN_PROBABILITY), _MIN_PROBABILITY), 0.5)


def _importance(scores: Mapping[str, Floats], is_human: NDArray[np.bool_]) -> Floats:
    """Return the weight of each text (n, 1) for the annotators' means.

    Texts that people answered are weighted so that they spread over fifths of the pool, by their
    highest mean score, as the pool does.
    """
    weights = np.ones(len(is_human))
    if is_human.any():
        mean = np.mean([np.nan_to_num(each) for each in scores.values()], axis=0)
        highest = mean.max(axis=1)
        edges = np.quantile(highest, np.linspace(0, 1, _N_STRATA + 1)[1:-1])
        stratum = np.searchsorted(edges, highest)
        in_pool = np.bincount(stratum, minlength=_N_STRATA) / len(stratum)
        in_human = np.bincount(stratum[is_human], minlength=_N_STRATA) / is_human.sum()
        ratio = np.clip(in_pool / np.maximum(in_human, 1e-9), *_STRATUM_WEIGHTS)
        weights[is_human] = _HUMAN_WEIGHT * ratio[stratum[is_human]]
    return weights[:, None]


def _log_odds(probabilities: Floats) -> Floats:
    """Return log-odds; NaN where the annotator abstained or was not asked about the label."""
    clipped = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.where(probabilities == UNLISTED_PROBABILITY, np.nan, logit(clipped))


def _require_annotators(probabilities: Mapping[str, Floats]) -> None:
    if not probabilities:
        raise ValueError("no annotator has probabilities; expected at least one")
