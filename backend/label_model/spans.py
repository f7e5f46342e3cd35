"""Learn how to weight annotators of spans, and aggregate their spans one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.domain.labels import MIN_HUMAN_LABELS, Span
from backend.label_model.labels_matrix import SpanRows
from backend.label_model.latent_class import Floats

_PRIOR_OF_MARK, _PRIOR_OF_NONE = (14.0, 6.0), (2.0, 18.0)
"""Pseudo-counts of marks and omissions at a place that holds a span, and at one that does not."""
_PRIOR_SHARE = (5.0, 5.0)
_HUMAN_WEIGHT = 10.0
_INVERSE_TEMPERATURE = 0.8
"""Of the evidence: annotators share errors, above all one LLM asked twice."""
_N_STEPS = 50
_MIN_WEIGHT = 0.1
_MIN_RATE = 1e-3
_MAX_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class SpanAnnotator:
    """How often one annotator marks a named place that holds a span, and one that holds none."""

    sensitivity: float
    false_rate: float

    @property
    def weight(self) -> float:
        """Return how much a mark tells, in log-odds."""
        rates = np.array([self.sensitivity, self.false_rate])
        true, false = logit(np.clip(rates, _MIN_RATE, 1 - _MIN_RATE))
        return max(_MIN_WEIGHT, float(true - false))


@dataclass(frozen=True, slots=True)
class SpanModel:
    """A fitted model of plain numbers.

    `share` of the places that some annotator names hold a span; `per_text` spans are expected in a
    text; places are kept whose probability is at least `threshold`; `n_human` texts with a human
    label were used.
    """

    annotators: Mapping[str, SpanAnnotator]
    share: float
    per_text: float
    threshold: float = 0.5
    n_human: int = 0

    def place_probabilities(
        self,
        marks: Floats,
        names: Sequence[str],
        inverse_temperature: float = _INVERSE_TEMPERATURE,
    ) -> Floats:
        """Return the probability (m,) that each place holds a span.

        `share` is that of places that anybody marks; of all possible ones it is as much lower as
        the rates say.

        Args:
            marks: (m, A), the probability with which each annotator marks it, NaN where it has no
                answer about the text.
            names: the annotators' names.
            inverse_temperature: of the evidence.
        """
        everybody = _rates_of(self.annotators.values())
        true, false = _rates_of(self.annotators[name] for name in names)
        unseen_true, unseen_false = (1 - everybody).prod(axis=1)
        evidence = _log_likelihoods(marks, true) - _log_likelihoods(marks, false)
        evidence += np.log((1 - unseen_false) / (1 - unseen_true))
        return np.asarray(expit(logit(self.share) + inverse_temperature * evidence))

    def missed(self, names: Sequence[str]) -> float:
        """Return how many spans of a text are expected that none of these annotators marks."""
        omitted = float(np.prod([1 - self.annotators[name].sensitivity for name in names]))
        return self.per_text * omitted / max(1 - omitted, _MIN_RATE)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpanModel:
        """Read what `to_json` wrote."""
        annotators = {name: SpanAnnotator(**rates) for name, rates in data["annotators"].items()}
        return cls(**{**data, "annotators": annotators})


def aggregate_spans(votes: Mapping[str, SpanRows], model: SpanModel) -> tuple[SpanRows, Floats]:
    """Return each row's spans with their probabilities, and the probability of the row as a whole.

    A place holds a span with a probability that follows from who marks anything there; which of the
    overlapping spans it is, border and label, is decided by those who do, each with its weight. Of
    overlapping spans only the likeliest is kept, unless one annotator marked both. None where no
    annotator that the model knows has an answer. Cost: the square of a text's spans.

    Args:
        votes: spans of n rows by annotator; a span's probability is how sure the annotator is.
        model: the fitted model.
    """
    known = {name: rows for name, rows in votes.items() if name in model.annotators}
    n_rows = len(next(iter(votes.values()), ()))
    found: list[tuple[Span, ...] | None] = []
    certainties = np.zeros(n_rows)
    for row in range(n_rows):
        given = {name: rows[row] for name, rows in known.items()}
        answers = {name: spans for name, spans in given.items() if spans is not None}
        if not answers:
            found.append(None)
            continue
        spans, certainties[row] = _decide(answers, model)
        found.append(spans)
    return tuple(found), certainties


def fit_span_model(
    votes: Mapping[str, SpanRows], human: Mapping[int, Sequence[Span]] | None = None
) -> SpanModel:
    """Fit the rates of annotators of spans by expectation maximization.

    The idea: whether a place that anybody marks holds a span is hidden; given it, annotators mark
    it or not independently, each with two rates (Dawid and Skene 1979, two classes). A place that
    nobody marks is never seen, so the likelihoods are those of a place with at least one mark, and
    unseen places count as expected from the rates. Overlapping spans are one place, whatever their
    borders and labels. A mark counts by its own probability. Places in texts that people have
    answered are known and count tenfold, those that only people marked too; they are used from 20
    texts on.

    **Deviations**: priors of 20 places on each rate, because two annotators alone determine none;
    no annotator marks more often where there is nothing. Cost: 50 passes over the places.

    Args:
        votes: spans of n rows by annotator, None where it has no answer.
        human: people's spans by row.
    """
    human = human if human and len(human) >= MIN_HUMAN_LABELS else {}
    names = list(votes)
    marks, truth = _places(votes, human)
    is_known = np.isfinite(truth)
    n_given = np.maximum(np.isfinite(marks).sum(axis=1), 1)
    holds = np.where(is_known, truth, np.nansum(marks, axis=1) / n_given)
    model = SpanModel({name: SpanAnnotator(0.7, 0.1) for name in names}, 0.5, 0.0)
    for _ in range(_N_STEPS):
        model = _with_rates(model, marks, holds, is_known)
        holds = np.where(is_known, truth, model.place_probabilities(marks, names, 1.0))
    n_rows = max(1, len(next(iter(votes.values()), ())))
    model = replace(model, per_text=float(holds.sum()) / n_rows, n_human=len(human))
    probabilities = model.place_probabilities(marks, names)
    n_missed = n_rows * model.missed(names)
    return replace(model, threshold=_best_threshold(probabilities, n_missed))


def _best_threshold(probabilities: Floats, n_missed: float) -> float:
    """Return the probability from which places are kept: where the expected F1 is highest.

    That is at most one half: a place that holds a span rather than not is kept anyway (Lipton et
    al. 2014, arXiv 1402.1892).
    """
    ranked = np.sort(probabilities)[::-1]
    if not len(ranked):
        return _MAX_THRESHOLD
    f1 = 2 * ranked.cumsum() / (np.arange(1, len(ranked) + 1) + ranked.sum() + n_missed)
    return float(min(_MAX_THRESHOLD, ranked[int(f1.argmax())]))


def _with_rates(
    model: SpanModel, marks: Floats, holds: Floats, is_known: NDArray[np.bool_]
) -> SpanModel:
    """Return the model with rates that fit the places, of which `holds` (m,) hold a span.

    In texts that people have answered (`is_known`) no place that holds a span is unseen.
    """
    importance = np.where(is_known, _HUMAN_WEIGHT, 1.0)
    names = list(model.annotators)
    sensitivities = [model.annotators[name].sensitivity for name in names]
    false_rates = [model.annotators[name].false_rate for name in names]
    unseen = [_unseen(np.isfinite(marks), np.array(r)) for r in (sensitivities, false_rates)]
    n_true = importance * holds * np.where(is_known, 1.0, 1 / (1 - unseen[0]))
    n_false = importance * (1 - holds) / (1 - unseen[1])
    true = _rates(marks, importance * holds, n_true, _PRIOR_OF_MARK)
    false = _rates(marks, importance * (1 - holds), n_false, _PRIOR_OF_NONE)
    annotators = {
        name: SpanAnnotator(float(yes), float(min(yes, no)))
        for name, yes, no in zip(names, true, false, strict=True)
    }
    seen, right = float(importance.sum()), float(importance @ holds)
    share = (_PRIOR_SHARE[0] + right) / (sum(_PRIOR_SHARE) + seen)
    return replace(model, annotators=annotators, share=share)


def _rates(marks: Floats, weights: Floats, n_places: Floats, prior: tuple[float, float]) -> Floats:
    """Return how often each annotator (A,) marks a place, those that nobody marks included.

    Args:
        marks: (m, A), NaN where an annotator has no answer.
        weights: (m,), how much each place counts.
        n_places: (m,), for how many places each stands, unseen ones included.
        prior: pseudo-counts of marks and omissions.
    """
    n_marks, n_all = weights @ np.nan_to_num(marks), n_places @ np.isfinite(marks)
    rates = (prior[0] + n_marks) / (sum(prior) + n_all)
    return np.asarray(np.clip(rates, _MIN_RATE, 1 - _MIN_RATE))


def _log_likelihoods(marks: Floats, rates: Floats) -> Floats:
    """Return the log-probability (m,) of each place's marks."""
    logs = marks * np.log(rates) + (1 - marks) * np.log(1 - rates)
    return np.asarray(np.nan_to_num(logs).sum(axis=1))


def _rates_of(annotators: Iterable[SpanAnnotator]) -> Floats:
    """Return sensitivities and false rates, shape (2, A)."""
    return np.array([(one.sensitivity, one.false_rate) for one in annotators]).reshape(-1, 2).T


def _unseen(is_given: NDArray[np.bool_], rates: Floats) -> Floats:
    """Return the probability (m,) that none of those who have an answer marks a place."""
    omitted = np.where(is_given, 1 - rates, 1.0).prod(axis=1)
    return np.asarray(np.clip(omitted, 0.0, 1 - _MIN_RATE))


def _places(
    votes: Mapping[str, SpanRows], human: Mapping[int, Sequence[Span]]
) -> tuple[Floats, Floats]:
    """Return who marks each place (m, A), and whether it holds a span (m,), NaN if unknown."""
    marks: list[list[float]] = []
    truth: list[float] = []
    for row in range(len(next(iter(votes.values()), ()))):
        answers = [rows[row] for rows in votes.values()]
        people = human.get(row)
        every = [span for spans in (*answers, people) for span in spans or ()]
        for place in _merged(every):
            marks.append([np.nan if spans is None else _mark(spans, place) for spans in answers])
            truth.append(np.nan if people is None else float(_mark(people, place) > 0))
    return np.array(marks, dtype=np.float64).reshape(-1, len(votes)), np.array(truth)


def _merged(spans: Sequence[Span]) -> list[Span]:
    """Return the stretches of text that overlapping spans cover together."""
    places: list[Span] = []
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if places and span.start < places[-1].end:
            end = max(places[-1].end, span.end)
            places[-1] = Span(places[-1].start, end, "")
        else:
            places.append(Span(span.start, span.end, ""))
    return places


def _decide(
    answers: Mapping[str, Sequence[Span]], model: SpanModel
) -> tuple[tuple[Span, ...], float]:
    """Return the spans of one text, and the probability that they are right as a whole."""
    names = list(answers)
    exact = {name: {_key(span): span.probability for span in answers[name]} for name in names}
    candidates = sorted({key for of_name in exact.values() for key in of_name})
    spans = [Span(*key) for key in candidates]
    marks = np.array([[_mark(answers[name], span) for name in names] for span in spans])
    holds = model.place_probabilities(marks.reshape(len(spans), len(names)), names)
    weights = np.array([model.annotators[name].weight for name in names])
    scored = []
    for at, key in enumerate(candidates):
        own = np.array([exact[name].get(key, 0.0) for name in names])
        support = float(own @ weights) / max(float(marks[at] @ weights), _MIN_RATE)
        scored.append((float(holds[at]) * min(1.0, support), key))
    kept: list[Span] = []
    doubts = [1.0]
    for (probability, key), place in sorted(
        zip(scored, holds.tolist(), strict=True), key=lambda each: (-each[0][0], each[0][1])
    ):
        span = Span(*key, probability)
        rivals = [other for other in kept if _overlaps(span, other)]
        if place < model.threshold:
            doubts += [] if rivals else [1 - place]
        elif all(_marks_both(exact, key, _key(other)) for other in rivals):
            kept.append(span)
            doubts.append(probability)
    missed = float(np.exp(-model.missed(names)))
    return tuple(sorted(kept, key=lambda s: (s.start, s.end, s.label))), min(doubts) * missed


def _marks_both(
    exact: Mapping[str, Mapping[tuple[int, int, str], float]],
    one: tuple[int, int, str],
    other: tuple[int, int, str],
) -> bool:
    return any(one in marked and other in marked for marked in exact.values())


def _mark(spans: Sequence[Span], place: Span) -> float:
    """Return how surely spans mark anything at a place."""
    return max((span.probability for span in spans if _overlaps(span, place)), default=0.0)


def _overlaps(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _key(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label
