"""Learn how to weight annotators on a multi-label question, and how many labels a text has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.label_model.calibration import selection_weights
from backend.label_model.latent_class import Floats, sample_rows

UNLISTED_PROBABILITY = 0.01
"""Of a label that an annotator was not asked about: low, never 0, and ignored by the model."""
_MIN_PROBABILITY = 1e-4
_MAX_RATE = 0.9
_LEVEL = 0.2
_NO = -2.5
"""The highest log-odds that the median label of the median text may claim: most do not hold."""
_MIN_VARIANCE = 0.25
_INVERSE_TEMPERATURE = 0.8
"""Of the evidence: probabilities of one text's labels, and of two annotators, share errors."""
_MIN_CLAIM = 0.05
_MIN_SHOWN = 0.2
"""A label under this posterior is not shown, however many are expected."""
_N_STEPS = 50
_N_PRIOR_OF_LABEL = 10.0
_N_PRIOR_OF_LEVEL = 5.0
_CLAIM_WEIGHT = 0.3
"""Of an annotator's own claims for its parameters, beside 1 of the latent labels."""
_OWN_RATE_WEIGHT = 0.1
_MAX_OF_CLAIMED = 3.0
"""So many times the labels that annotators claim are estimated at most."""
_HUMAN_WEIGHT = 10.0
_STRATUM_WEIGHTS = (0.2, 5.0)
_STUDENT_WEIGHT = 0.5
"""Of a student's evidence: it learned the others' labels, and what it confirms is half its own."""


@dataclass(frozen=True, slots=True)
class MultilabelAnnotator:
    """Parameters of one annotator's log-odds.

    `levels` (L,) are the log-odds that a text without the label has of each: the prompt's or the
    definition's own preference, taken from the lowest fifth of the texts, since even a frequent
    label does not hold for all. Above that level log-odds are normal around `absent` where a label
    does not hold and around `present` where it does, with one `variance`. Its evidence counts by
    `weight`.
    """

    levels: tuple[float, ...]
    present: float = 0.0
    absent: float = 0.0
    variance: float = 1.0
    weight: float = 1.0

    @classmethod
    def fit(cls, probabilities: Floats) -> MultilabelAnnotator:
        """Measure an annotator's levels, and the other parameters as its own claims imply them."""
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
        annotator = cls(tuple(levels.tolist()))
        return annotator.updated(odds - levels, _claims(probabilities), np.ones((len(odds), 1)))

    def scores(self, probabilities: Floats) -> Floats:
        """Return log-odds above their level (n, L), NaN where the annotator abstained."""
        return np.asarray(_log_odds(probabilities) - np.array(self.levels))

    def evidence(self, scores: Floats) -> Floats:
        """Return the log-likelihood ratio of each label (n, L), 0 where scores are NaN."""
        slope = self.weight * (self.present - self.absent) / self.variance
        middle = (self.present + self.absent) / 2
        return np.nan_to_num(slope * (scores - middle))

    def updated(self, scores: Floats, holds: Floats, weights: Floats) -> MultilabelAnnotator:
        """Return the annotator with means and variance fitted to its scores.

        Args:
            scores: log-odds above their level (n, L).
            holds: the probability that each label holds (n, L).
            weights: of each text (n, 1).
        """
        is_known, filled = ~np.isnan(scores), np.nan_to_num(scores)
        yes, no = weights * is_known * holds, weights * is_known * (1 - holds)
        absent = float((no * filled).sum() / max(no.sum(), 1e-9))
        present = max(float((yes * filled).sum() / max(yes.sum(), 1e-9)), absent)
        squares = yes * (filled - present) ** 2 + no * (filled - absent) ** 2
        variance = float(squares.sum() / max(yes.sum() + no.sum(), 1e-9))
        return replace(self, present=present, absent=absent, variance=max(variance, _MIN_VARIANCE))


@dataclass(frozen=True, slots=True)
class MultilabelModel:
    """A fitted model of plain numbers.

    `base_rates` (L,) is how often each label is estimated to hold; `offset`, at most 0, is
    subtracted from all log-odds so that the labels with the best expected F1 are over one half;
    `n_human` counts human-labeled texts.
    """

    base_rates: tuple[float, ...]
    offset: float
    annotators: Mapping[str, MultilabelAnnotator]
    n_human: int = 0

    def posterior(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return each label's probability (n, L); annotators unknown to the model are ignored."""
        evidence = _INVERSE_TEMPERATURE * self.evidence(probabilities)
        return np.asarray(expit(logit(np.array(self.base_rates)) + evidence - self.offset))

    def evidence(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return the annotators' common log-likelihood ratio of each label (n, L)."""
        evidence = np.zeros(next(iter(probabilities.values())).shape)
        for name, annotator in self.annotators.items():
            if name in probabilities:
                evidence += annotator.evidence(annotator.scores(probabilities[name]))
        return evidence

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
    probabilities: Mapping[str, Floats],
    human: Mapping[int, frozenset[int]] | None = None,
    students: Collection[str] = (),
) -> MultilabelModel:
    """Fit the weights of annotators that give several labels per text, and how many there are.

    Args:
        probabilities: per label (n, L) by annotator, NaN where it abstained.
        human: the set of right labels by row; the rows need not be drawn at random.
        students: names of annotators that learned what the others say.

    The idea: whether a label holds for a text is hidden; given it, annotators err independently,
    and their log-odds above each label's typical level are normal with one mean where it holds and
    one where it does not, the same for all labels, so that thousands of cells determine three
    numbers per annotator. These and how often each label holds are found by expectation
    maximization (Dawid and Skene 1979, with normal scores); people's cells are fixed.

    Where annotators are weak, what they say is one heap, and its shape alone fits any number of
    labels, none most easily. So each annotator's own probabilities stand beside the latent labels,
    at three tenths of their weight, when its parameters are fitted; and the share of labels that
    they claim with at least 0.2 each has a tenth of the texts' weight for the rates, and bounds
    them at its threefold. An annotator is read as if the median label claimed 8 % at most: one that
    says 60 % of nearly all labels claims what it says beyond that. Shares count where nothing had
    to be lowered, and of these the least.

    A student repeats the labels that it learned, errors included. So it tells nothing of how often
    labels hold, which the others alone are asked about, and half of its evidence counts in the end.

    People's answers count tenfold for an annotator's means, once for the rates, which are means
    over the whole pool: that people were shown texts with rare labels first does not raise them.
    For the means their texts are weighted so that they spread over the annotators' scores as the
    pool does. Last, log-odds are raised until those labels are over one half for which the expected
    F1 is highest (Lewis 1995), but none with a posterior under 0.2. Cost: 50 passes over n x L x A
    cells, n at most 4,000. Chosen on made pools and on training rows of nlupp_banking.

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
    others = {name: p for name, p in sampled.items() if name not in students} or sampled
    rates = tuple(np.full(truth.shape[1], _own_rate(others)).tolist())
    annotators = {name: MultilabelAnnotator.fit(p) for name, p in sampled.items()}
    alone = {name: annotators[name] for name in others}
    model = _maximize(MultilabelModel(rates, 0.0, alone, len(human)), others, is_human, truth)
    if len(others) < len(sampled):
        model = replace(model, annotators=annotators)
        model = _maximize(model, sampled, is_human, truth, keeps_rates=True)
        weighted = {
            name: one if name in others else replace(one, weight=_STUDENT_WEIGHT)
            for name, one in model.annotators.items()
        }
        model = replace(model, annotators=weighted)
    return replace(model, offset=_offset(model.posterior(sampled)))


def label_scores(probabilities: Floats) -> Floats:
    """Return by how much an annotator's log-odds of each label exceed their usual level (n, L).

    So the highest score of a text is of the label that stands out most, whatever the prompt or the
    definition prefers. Labels that were not asked about have a score under all others; NaN rows are
    abstentions.
    """
    scores = MultilabelAnnotator.fit(probabilities).scores(probabilities)
    is_known = ~np.isnan(scores)
    lowest = float(scores[is_known].min()) if is_known.any() else 0.0
    return np.where(~is_known & is_known.any(axis=1, keepdims=True), lowest - 1, scores)


def _maximize(
    model: MultilabelModel,
    probabilities: Mapping[str, Floats],
    is_human: NDArray[np.bool_],
    truth: Floats,
    *,
    keeps_rates: bool = False,
) -> MultilabelModel:
    """Fit rates, unless they are kept, and annotators by expectation maximization."""
    own_rate = model.base_rates[0]
    highest = max(_MAX_OF_CLAIMED * own_rate, float(truth[is_human].mean()) if any(is_human) else 0)
    fixed = is_human[:, None]
    claims = {name: np.where(fixed, truth, _claims(p)) for name, p in probabilities.items()}
    scores = {name: one.scores(probabilities[name]) for name, one in model.annotators.items()}
    importance = _importance(scores, is_human)
    weights = importance + _CLAIM_WEIGHT
    n_own = _OWN_RATE_WEIGHT * len(truth)
    n_prior = _N_PRIOR_OF_LABEL + n_own
    for _ in range(_N_STEPS if truth.size else 0):
        odds = logit(np.array(model.base_rates)) + model.evidence(probabilities)
        holds = np.where(fixed, truth, expit(odds))
        if not keeps_rates:
            overall = (float(holds.mean(axis=1).sum()) + n_own * own_rate) / (len(truth) + n_own)
            rates = (holds.sum(axis=0) + n_prior * overall) / (len(truth) + n_prior)
            rates = np.clip(rates * min(1.0, highest / rates.mean()), _MIN_PROBABILITY, _MAX_RATE)
            model = replace(model, base_rates=tuple(rates.tolist()))
        annotators = {}
        for name, one in model.annotators.items():
            mixed = (importance * holds + _CLAIM_WEIGHT * claims[name]) / weights
            annotators[name] = one.updated(scores[name], mixed, weights)
        model = replace(model, annotators=annotators)
    return model


def _offset(posterior: Floats) -> float:
    """Return the log-odds between the labels with the best expected F1 and the others."""
    ranked = np.append(np.sort(posterior, axis=None)[::-1], 0.0)
    n_shown = np.arange(1, len(ranked))
    expected = 2 * np.cumsum(ranked[:-1]) / (n_shown + max(float(ranked.sum()), _MIN_PROBABILITY))
    last = int(np.argmax(expected)) if len(expected) else 0
    cut = float(ranked[last : last + 2].mean())
    return float(logit(min(max(cut, _MIN_SHOWN), 0.5)))


def _own_rate(probabilities: Mapping[str, Floats]) -> float:
    """Return the share of labels that the annotators claim to hold.

    It is the least share of those that claim few labels by themselves. Where all claim more than
    can be, what stands out of that says little of how many there are, and the mean counts.
    """
    plausible: list[float] = []
    lowered: list[float] = []
    for each in probabilities.values():
        asked = ~np.isnan(_log_odds(each))
        claims = _claims(each)[asked]
        if len(claims):
            rates = lowered if _excess(each) else plausible
            rates.append(float((claims * (claims >= _MIN_SHOWN)).mean()))
    found = min(plausible) if plausible else float(np.mean(lowered or [_MIN_PROBABILITY]))
    return min(max(found, _MIN_PROBABILITY), 0.5)


def _claims(probabilities: Floats) -> Floats:
    """Return an annotator's probabilities, lowered so that the median label does not hold.

    0 where it abstained, and where so low a probability claims nothing of a single label.
    """
    claims = np.nan_to_num(expit(_log_odds(probabilities) - _excess(probabilities)))
    return np.where(claims >= _MIN_CLAIM, claims, 0.0)


def _excess(probabilities: Floats) -> float:
    """Return by how much an annotator's median log-odds exceed what the median label may claim."""
    odds = _log_odds(probabilities)
    asked = odds[~np.isnan(odds)]
    return max(0.0, float(np.median(asked)) - _NO) if len(asked) else 0.0


def _importance(scores: Mapping[str, Floats], is_human: NDArray[np.bool_]) -> Floats:
    """Return the weight of each text (n, 1) for the annotators' means.

    Texts that people answered are weighted so that they spread over fifths of the pool, by their
    highest mean score, as the pool does.
    """
    weights = np.ones(len(is_human))
    if is_human.any():
        mean = np.mean([np.nan_to_num(each) for each in scores.values()], axis=0)
        highest = mean.max(axis=1)
        own = selection_weights(highest, np.flatnonzero(is_human), _STRATUM_WEIGHTS)
        weights[is_human] = _HUMAN_WEIGHT * own
    return weights[:, None]


def _log_odds(probabilities: Floats) -> Floats:
    """Return log-odds; NaN where the annotator abstained or was not asked about the label."""
    clipped = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.where(probabilities == UNLISTED_PROBABILITY, np.nan, logit(clipped))


def _require_annotators(probabilities: Mapping[str, Floats]) -> None:
    if not probabilities:
        raise ValueError("no annotator has probabilities; expected at least one")
