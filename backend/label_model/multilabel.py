"""Learn how to weight annotators on a multi-label question, and aggregate their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.domain.labels import MIN_HUMAN_LABELS
from backend.label_model.latent_class import Floats, sample_rows

UNLISTED_PROBABILITY = 0.01
"""Of a label that an annotator was not asked about: low, never 0, and ignored by the model."""
LABELS_PER_TEXT = 1.3  # expected of a text before human labels say otherwise
_MAX_LABEL_SHARE = 0.5
_MIN_PROBABILITY = 1e-4
_MIN_MEAN_PROBABILITY = 1e-6
_INVERSE_TEMPERATURE = 0.8
"""Of the evidence: probabilities of one text's labels, and of two annotators, share errors."""
_TIE = 1e-6  # log-odds: of cells that all look alike none is over one half
_N_STEPS = 50
_HUMAN_WEIGHT = 10.0
_N_PRIOR_TEXTS = 5.0
_N_PRIOR_OF_LABEL = 10.0
_N_PRIOR_OF_MEAN = 5.0


@dataclass(frozen=True, slots=True)
class MultilabelAnnotator:
    """Parameters of one annotator's log-odds.

    `means` (L,) are each label's mean log-odds, the prompt's or the definition's own preference,
    and `spread` is the root mean square around them. `weight` is the log-likelihood ratio per
    spread, never below 0; `threshold`, in spreads, is where the ratio is even.
    """

    means: tuple[float, ...]
    spread: float
    weight: float = 0.0
    threshold: float = 0.0

    @classmethod
    def fit(cls, probabilities: Floats) -> MultilabelAnnotator:
        """Measure means and spread of an annotator's probabilities (n, L)."""
        odds = _log_odds(probabilities)
        is_known = ~np.isnan(odds)
        overall = float(odds[is_known].mean()) if is_known.any() else 0.0
        total = np.nansum(odds, axis=0) + _N_PRIOR_OF_MEAN * overall
        means = total / (is_known.sum(axis=0) + _N_PRIOR_OF_MEAN)
        left = (odds - means)[is_known]
        spread = float(np.sqrt((left**2).mean())) if len(left) else 0.0
        return cls(tuple(means.tolist()), max(spread, 1e-6))

    def scores(self, probabilities: Floats) -> Floats:
        """Return standardized log-odds (n, L), NaN where the annotator abstained."""
        return np.asarray((_log_odds(probabilities) - np.array(self.means)) / self.spread)

    def evidence(self, scores: Floats) -> Floats:
        """Return the log-likelihood ratio for each label (n, L), 0 where scores are NaN."""
        return np.nan_to_num(self.weight * (scores - self.threshold))

    def with_weight(self, scores: Floats, holds: Floats, importance: Floats) -> MultilabelAnnotator:
        """Return the annotator with weight and threshold fitted to its scores.

        Args:
            scores: standardized log-odds (n, L).
            holds: the probability that each label holds (n, L).
            importance: the weight of each text (n, 1).
        """
        is_known, filled = ~np.isnan(scores), np.nan_to_num(scores)
        yes, no = importance * is_known * holds, importance * is_known * (1 - holds)
        mean_yes = float((yes * filled).sum() / max(yes.sum(), 1e-9))
        mean_no = float((no * filled).sum() / max(no.sum(), 1e-9))
        squares = yes * (filled - mean_yes) ** 2 + no * (filled - mean_no) ** 2
        variance = float(squares.sum() / max(yes.sum() + no.sum(), 1e-9))
        weight = max(0.0, mean_yes - mean_no) / max(variance, 1e-3)
        return replace(self, weight=weight, threshold=(mean_yes + mean_no) / 2)


@dataclass(frozen=True, slots=True)
class MultilabelModel:
    """A fitted model of plain numbers.

    `base_rates` (L,) is how often each label is expected to hold; `offset` is subtracted from all
    log-odds so that as many labels as that are over one half; `n_human` counts human-labeled texts.
    """

    base_rates: tuple[float, ...]
    offset: float
    annotators: Mapping[str, MultilabelAnnotator]
    n_human: int = 0

    def posterior(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return each label's probability (n, L); annotators unknown to the model are ignored."""
        return np.asarray(expit(self.log_odds(probabilities) - self.offset))

    def log_odds(self, probabilities: Mapping[str, Floats]) -> Floats:
        """Return each label's log-odds (n, L) before the offset."""
        evidence = np.zeros(next(iter(probabilities.values())).shape)
        for name, annotator in self.annotators.items():
            if name in probabilities:
                evidence += annotator.evidence(annotator.scores(probabilities[name]))
        return np.asarray(logit(np.array(self.base_rates)) + _INVERSE_TEMPERATURE * evidence)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MultilabelModel:
        """Read what `to_json` wrote."""
        annotators = {
            name: MultilabelAnnotator(**{**values, "means": tuple(values["means"])})
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
    odds = logit(np.clip(stacked, _MIN_MEAN_PROBABILITY, 1 - _MIN_MEAN_PROBABILITY))
    n_known = (~np.isnan(odds)).sum(axis=0)
    return np.asarray(expit(np.nan_to_num(odds).sum(axis=0) / np.maximum(n_known, 1)))


def fit_multilabel_model(
    probabilities: Mapping[str, Floats], human: Mapping[int, frozenset[int]] | None = None
) -> MultilabelModel:
    """Fit the weights of annotators that give several labels per text.

    Args:
        probabilities: per label (n, L) by annotator, NaN where it abstained.
        human: the set of right labels by row; used from 20 texts on.

    The idea: whether a label holds for a text is hidden; given it, annotators err independently,
    and their centered log-odds are normal with one mean where it holds and one where it does not,
    the same for all labels, so that thousands of cells determine four numbers per annotator. These
    are found by expectation maximization (Dawid and Skene 1979, with normal scores) under a fixed
    base rate; human-labeled cells are fixed and count tenfold. An annotator that is unrelated to
    the others gets a weight near 0.

    The base rate is 1.3 labels a text shared evenly, or human counts, smoothed. Evidence counts
    eight tenths, because annotators share errors; then log-odds are shifted until as many labels as
    expected are over one half. Chosen on training rows of nlupp_banking. Cost: 50 passes over n x L
    x A cells, n at most 4,000.

    Raises:
        ValueError: there is no annotator.
    """
    _require_annotators(probabilities)
    human = human if human and len(human) >= MIN_HUMAN_LABELS else {}
    answered = [np.isfinite(p).any(axis=1) for p in probabilities.values()]
    rows = sample_rows(np.any(answered, axis=0), human)
    sampled = {name: p[rows] for name, p in probabilities.items()}
    is_human = np.isin(rows, list(human))
    n_labels = next(iter(sampled.values())).shape[1]
    truth = np.zeros((len(rows), n_labels))
    for at in np.flatnonzero(is_human):
        truth[at, sorted(human[int(rows[at])])] = 1.0
    per_text = (truth.sum() + _N_PRIOR_TEXTS * LABELS_PER_TEXT) / (len(human) + _N_PRIOR_TEXTS)
    share = min(_MAX_LABEL_SHARE, per_text / n_labels)
    rates = (truth.sum(axis=0) + _N_PRIOR_OF_LABEL * share) / (len(human) + _N_PRIOR_OF_LABEL)
    rates = np.clip(rates, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    annotators = _fit_annotators(sampled, rates, is_human, truth)
    model = MultilabelModel(tuple(rates.tolist()), 0.0, annotators, len(human))
    odds = model.log_odds(sampled)
    offset = float(np.quantile(odds, 1 - rates.mean())) + _TIE if odds.size else 0.0
    return replace(model, offset=offset)


def _fit_annotators(
    probabilities: Mapping[str, Floats], rates: Floats, is_human: NDArray[np.bool_], truth: Floats
) -> dict[str, MultilabelAnnotator]:
    """Fit each annotator's parameters by expectation maximization."""
    annotators = {name: MultilabelAnnotator.fit(p) for name, p in probabilities.items()}
    scores = {name: annotator.scores(probabilities[name]) for name, annotator in annotators.items()}
    mean = np.mean([np.nan_to_num(each) for each in scores.values()], axis=0)
    holds = expit(2 * (mean - np.quantile(mean, 1 - rates.mean())))
    importance = np.where(is_human, _HUMAN_WEIGHT, 1.0)[:, None]
    for _ in range(_N_STEPS):
        holds = np.where(is_human[:, None], truth, holds)
        odds = np.broadcast_to(logit(rates), holds.shape)
        for name, score in scores.items():
            annotators[name] = annotators[name].with_weight(score, holds, importance)
            odds = odds + annotators[name].evidence(score)
        holds = expit(odds)
    return annotators


def _log_odds(probabilities: Floats) -> Floats:
    """Return log-odds; NaN where the annotator abstained or was not asked about the label."""
    clipped = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.where(probabilities == UNLISTED_PROBABILITY, np.nan, logit(clipped))


def _require_annotators(probabilities: Mapping[str, Floats]) -> None:
    if not probabilities:
        raise ValueError("no annotator has probabilities; expected at least one")
