"""Trust in annotators of multiple choice, learned per project from their votes and people's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.label_model.latent_class import Floats

UNLISTED_PROBABILITY = 0.01
"""Of a label about which an annotator was not asked: unlikely, never impossible, and no vote."""
LABELS_PER_TEXT = 1.3
"""How many labels a text is expected to have before people have said so."""
_MAX_LABEL_SHARE = 0.5
_SMALLEST_PROBABILITY = 1e-4
_SHARPNESS = 0.8
"""Of the evidence: votes about one text's labels, and of two annotators, share their errors."""
_TIE = 1e-6
"""Log-odds: cells that all look alike are none of them over one half."""
_N_ROUNDS = 50
_MAX_TEXTS = 4000
_HUMAN_WEIGHT = 10.0
_MIN_HUMAN = 20
_N_PRIOR_TEXTS = 5.0
_N_PRIOR_OF_LABEL = 10.0
_N_PRIOR_OF_MEAN = 5.0


@dataclass(frozen=True, slots=True)
class MultilabelAnnotator:
    """How an annotator's log-odds are read, and how much they tell.

    `means` holds each label's mean log-odds (L,), which is the prompt's or the definition's own
    leaning; what is over it, in `spread`s, is `at_wrong` on average where the label does not hold.
    `weight`: log-likelihood ratio per spread, 0 for an annotator that tells nothing, never less.
    `middle`: where the ratio is even.
    """

    means: tuple[float, ...]
    spread: float
    weight: float = 0.0
    middle: float = 0.0

    @classmethod
    def fit(cls, probabilities: Floats) -> MultilabelAnnotator:
        """Return the scales of an annotator's probabilities (n, L)."""
        odds = _odds(probabilities)
        heard = ~np.isnan(odds)
        overall = float(odds[heard].mean()) if heard.any() else 0.0
        total = np.nansum(odds, axis=0) + _N_PRIOR_OF_MEAN * overall
        means = total / (heard.sum(axis=0) + _N_PRIOR_OF_MEAN)
        left = (odds - means)[heard]
        spread = float(np.sqrt((left**2).mean())) if len(left) else 0.0
        return cls(tuple(means.tolist()), max(spread, 1e-6))

    def scores(self, probabilities: Floats) -> Floats:
        """Return log-odds without each label's own leaning, in spreads; NaN: not heard."""
        scores: Floats = (_odds(probabilities) - np.array(self.means)) / self.spread
        return scores

    def evidence(self, probabilities: Floats) -> Floats:
        """Return the log-likelihood ratio for each label, 0 where the annotator was not heard."""
        return np.nan_to_num(self.weight * (self.scores(probabilities) - self.middle))


@dataclass(frozen=True, slots=True)
class MultilabelModel:
    """What was learned; plain numbers, kept as JSON.

    `base_rates` (L,) is how often each label is expected to hold, `offset` what is taken from all
    log-odds so that as many labels as that come out over one half. `n_human` texts by people.
    """

    base_rates: tuple[float, ...]
    offset: float
    annotators: Mapping[str, MultilabelAnnotator]
    n_human: int = 0

    def posterior(self, votes: Mapping[str, Floats]) -> Floats:
        """Return each label's probability (n, L); annotators that are not known do not count."""
        known = {name: annotator for name, annotator in self.annotators.items() if name in votes}
        shape = next(iter(votes.values())).shape
        odds = _pooled(np.array(self.base_rates), known, votes, shape)
        posterior: Floats = expit(odds - self.offset)
        return posterior

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same trust."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MultilabelModel:
        """Read what `to_json` wrote."""
        annotators = {
            name: MultilabelAnnotator(**{**values, "means": tuple(values["means"])})
            for name, values in data["annotators"].items()
        }
        return cls(tuple(data["base_rates"]), data["offset"], annotators, data["n_human"])


def fit_multilabel_model(
    votes: Mapping[str, Floats], human: Mapping[int, frozenset[int]] | None = None
) -> MultilabelModel:
    """Learn how far each annotator's votes on several labels per text are to be trusted.

    `votes`: probabilities per label (n, L) by annotator, NaN where it abstained; `human`: the set
    of right labels by row, heard from 20 texts on. The idea: whether a label holds for a text is
    hidden; given it, annotators err independently, and their centred log-odds are normal with one
    mean where it holds and one where it does not, the same for all labels, so that thousands of
    cells teach four numbers per annotator. These are found by expectation maximisation (Dawid and
    Skene 1979, with normal votes) under a fixed base rate; people's cells are fixed and count
    tenfold. An annotator whose votes have nothing to do with the others' gets a weight near 0.

    The base rate is 1.3 labels a text shared evenly, or people's counts, smoothed. Evidence counts
    eight tenths, because annotators share errors; then all log-odds are shifted until as many
    labels as expected are over one half. Chosen on training rows of nlupp_banking. Raises
    ValueError without votes. Cost: 50 passes over n x L x V cells, of at most 4,000 texts.
    """
    if not votes:
        raise ValueError("no voter; expected at least one posterior")
    known = dict(human or {})
    known = known if len(known) >= _MIN_HUMAN else {}
    n_texts, n_labels = next(iter(votes.values())).shape
    rows = _sample(votes, known)
    sampled = {name: probabilities[rows] for name, probabilities in votes.items()}
    is_human, truth = _truth(rows, known, n_labels)
    rates = _base_rates(truth[is_human], n_labels)
    annotators = {name: MultilabelAnnotator.fit(p) for name, p in sampled.items()}
    annotators = _with_weights(annotators, sampled, rates, is_human, truth)
    odds = _pooled(rates, annotators, sampled, (len(rows), n_labels))
    offset = float(np.quantile(odds, 1 - rates.mean())) + _TIE if odds.size else 0.0
    return MultilabelModel(tuple(rates.tolist()), offset, annotators, len(known))


def _with_weights(
    annotators: Mapping[str, MultilabelAnnotator],
    votes: Mapping[str, Floats],
    rates: Floats,
    is_human: NDArray[np.bool_],
    truth: Floats,
) -> dict[str, MultilabelAnnotator]:
    """Find what each voter's scores mean, by expectation maximisation."""
    scores = {name: annotator.scores(votes[name]) for name, annotator in annotators.items()}
    mean = np.mean([np.nan_to_num(each) for each in scores.values()], axis=0)
    holds = expit(2 * (mean - np.quantile(mean, 1 - rates.mean())))
    importance = np.where(is_human, _HUMAN_WEIGHT, 1.0)[:, None]
    found = dict(annotators)
    for _ in range(_N_ROUNDS):
        holds = np.where(is_human[:, None], truth, holds)
        odds = np.broadcast_to(logit(rates), holds.shape)
        for name, score in scores.items():
            found[name] = _weighed(found[name], score, holds, importance)
            odds = odds + np.nan_to_num(found[name].weight * (score - found[name].middle))
        holds = expit(odds)
    return found


def _weighed(
    annotator: MultilabelAnnotator, scores: Floats, holds: Floats, importance: Floats
) -> MultilabelAnnotator:
    """Return the voter with the means and the common variance of its scores in both cases."""
    heard = ~np.isnan(scores)
    filled = np.nan_to_num(scores)
    right, wrong = importance * heard * holds, importance * heard * (1 - holds)
    at_right = float((right * filled).sum() / max(right.sum(), 1e-9))
    at_wrong = float((wrong * filled).sum() / max(wrong.sum(), 1e-9))
    squares = right * (filled - at_right) ** 2 + wrong * (filled - at_wrong) ** 2
    variance = float(squares.sum() / max(right.sum() + wrong.sum(), 1e-9))
    weight = max(0.0, at_right - at_wrong) / max(variance, 1e-3)
    return MultilabelAnnotator(annotator.means, annotator.spread, weight, (at_right + at_wrong) / 2)


def _pooled(
    rates: Floats,
    annotators: Mapping[str, MultilabelAnnotator],
    votes: Mapping[str, Floats],
    shape: tuple[int, ...],
) -> Floats:
    evidence = sum(
        (annotator.evidence(votes[name]) for name, annotator in annotators.items()), np.zeros(shape)
    )
    pooled: Floats = logit(rates) + _SHARPNESS * evidence
    return pooled


def _base_rates(truth: Floats, n_labels: int) -> Floats:
    """Return how often each label is expected; `truth` (n, L) of people's texts, 0 and 1."""
    n = len(truth)
    expected = (truth.sum() + _N_PRIOR_TEXTS * LABELS_PER_TEXT) / (n + _N_PRIOR_TEXTS)
    share = min(_MAX_LABEL_SHARE, expected / n_labels)
    rates = (truth.sum(axis=0) + _N_PRIOR_OF_LABEL * share) / (n + _N_PRIOR_OF_LABEL)
    clipped: Floats = np.clip(rates, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return clipped


def _sample(votes: Mapping[str, Floats], human: Mapping[int, frozenset[int]]) -> NDArray[np.intp]:
    """Return people's rows and an even spread of the others that somebody voted on."""
    heard = np.any([np.isfinite(p).any(axis=1) for p in votes.values()], axis=0)
    is_human = np.isin(np.arange(len(heard)), list(human))
    others = np.flatnonzero(heard & ~is_human)
    others = others[:: max(1, -(-len(others) // _MAX_TEXTS))]
    return np.sort(np.concatenate([np.flatnonzero(is_human), others]))


def _truth(
    rows: NDArray[np.intp], human: Mapping[int, frozenset[int]], n_labels: int
) -> tuple[NDArray[np.bool_], Floats]:
    truth = np.zeros((len(rows), n_labels))
    for at, row in enumerate(rows.tolist()):
        truth[at, sorted(human.get(row, ()))] = 1.0
    return np.isin(rows, list(human)), truth


def _odds(probabilities: Floats) -> Floats:
    """Return log-odds; NaN where the annotator abstained or was not asked about the label."""
    clipped = np.clip(probabilities, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    odds: Floats = np.where(probabilities == UNLISTED_PROBABILITY, np.nan, logit(clipped))
    return odds
