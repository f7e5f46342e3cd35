"""Annotators of spans are weighted, and their spans aggregated one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backend.domain.labels import Span
from backend.label_model.spans import SpanAnnotator, SpanModel, aggregate_spans, fit_span_model

EQUAL = SpanAnnotator(0.8, 0.2)


def model(**annotators: SpanAnnotator) -> SpanModel:
    return SpanModel(annotators, 0.5, 1.0)


def at(start: int, end: int, label: str = "Person", probability: float = 1.0) -> Span:
    return Span(start, end, label, probability)


def places(spans):
    return [(span.start, span.end, span.label) for span in spans]


def test_a_place_is_kept_that_two_of_three_equal_annotators_mark():
    votes = {
        "a": ((at(0, 3), at(10, 13)),),
        "b": ((at(0, 3),),),
        "c": ((),),
    }
    (spans,), _ = aggregate_spans(votes, model(a=EQUAL, b=EQUAL, c=EQUAL))
    assert places(spans) == [(0, 3, "Person")]


def test_a_span_s_probability_follows_from_the_rates_of_those_who_mark_it():
    votes = {"a": ((at(0, 3),),), "b": ((at(0, 3),),)}
    (spans,), _ = aggregate_spans(votes, model(a=EQUAL, b=EQUAL))
    true, false = 0.8**2 / (1 - 0.2**2), 0.2**2 / (1 - 0.8**2)  # of places that anybody marks
    odds = (true / false) ** 0.8  # even odds beforehand, the evidence tempered
    assert spans[0].probability == pytest.approx(odds / (1 + odds))


def test_border_and_label_are_decided_by_those_who_mark_the_place():
    good = SpanAnnotator(0.9, 0.1)
    votes = {
        "border": ((at(0, 8),),),
        "label": ((at(0, 3, "Place"),),),
        "good": ((at(0, 3),),),
        "other": ((at(0, 3),),),
    }
    (spans,), _ = aggregate_spans(votes, model(border=EQUAL, label=EQUAL, good=good, other=EQUAL))
    assert places(spans) == [(0, 3, "Person")]
    assert 0.4 < spans[0].probability < 0.7


def test_nested_spans_stand_where_one_annotator_marks_both():
    both = (at(0, 13, "Place"), at(0, 3))
    votes = {"a": (both,), "b": (both,)}
    (spans,), _ = aggregate_spans(votes, model(a=EQUAL, b=EQUAL))
    assert set(places(spans)) == set(places(both))
    votes = {"a": ((both[0],),), "b": ((both[1],),)}
    (spans,), _ = aggregate_spans(votes, model(a=EQUAL, b=EQUAL))
    assert len(spans) == 1


def test_a_mark_counts_by_its_own_probability():
    def kept(probability: float) -> int:
        votes = {"a": ((at(0, 3, probability=probability),),), "b": ((),), "c": ((at(0, 3),),)}
        return len(aggregate_spans(votes, model(a=EQUAL, b=EQUAL, c=EQUAL))[0][0])

    assert (kept(0.9), kept(0.1)) == (1, 0)


def test_who_has_no_answer_says_nothing_and_rows_without_any_have_none():
    votes = {"a": ((at(0, 3),), None, ()), "b": (None, None, None)}
    (first, second, third), certain = aggregate_spans(votes, model(a=EQUAL, b=EQUAL))
    assert (places(first), second, third) == ([(0, 3, "Person")], None, ())
    assert certain[1] == 0.0
    assert 0 < certain[0] < certain[2] <= 1


def test_one_annotator_alone_is_believed_as_far_as_its_marks_tell():
    fitted = SpanModel({"a": SpanAnnotator(0.8, 0.1), "b": EQUAL, "c": EQUAL}, 0.45, 1.0)
    votes = {"a": ((at(0, 3),),), "b": (None,), "c": (None,)}
    (spans,), _ = aggregate_spans(votes, fitted)
    assert [span.probability > 0.5 for span in spans] == [True]


def test_annotators_that_the_model_does_not_know_are_left_out():
    votes = {"new": ((at(0, 3),),), "a": ((),)}
    assert aggregate_spans(votes, model(a=EQUAL))[0] == ((),)
    assert aggregate_spans({"new": ((at(0, 3),),)}, model(a=EQUAL))[0] == (None,)


def noisy_votes(n: int, rates: dict[str, tuple[float, float]], *, seed: int = 0):
    """Return votes of n texts with two entities each, and the right spans; rates by annotator."""
    rng = np.random.default_rng(seed)
    truth = tuple((at(0, 3), at(10, 15, "Place")) for _ in range(n))
    votes = {}
    for name, (found, invented) in rates.items():
        rows = []
        for spans in truth:
            kept = [span for span in spans if rng.random() < found]
            kept += [at(20 + 5 * k, 24 + 5 * k) for k in range(4) if rng.random() < invented]
            rows.append(tuple(kept))
        votes[name] = tuple(rows)
    return votes, truth


def f1(found, truth) -> float:
    n_right = sum(len(set(places(a)) & set(places(b))) for a, b in zip(found, truth, strict=True))
    return 2 * n_right / (sum(map(len, found)) + sum(map(len, truth)))


def test_the_better_annotator_is_found_without_any_label_by_people():
    rates = {"good": (0.75, 0.05), "fair": (0.7, 0.1), "bad": (0.6, 0.15)}
    votes, truth = noisy_votes(200, rates)
    fitted = fit_span_model(votes)
    weights = {name: annotator.weight for name, annotator in fitted.annotators.items()}
    assert weights["good"] > weights["fair"] > weights["bad"]
    found, _ = aggregate_spans(votes, fitted)
    assert f1(found, truth) > max(f1(rows, truth) for rows in votes.values()) + 0.02
    assert fitted.per_text == pytest.approx(2.0, abs=0.4)


def test_people_s_labels_teach_who_misses_spans_that_nobody_marked():
    votes, truth = noisy_votes(100, {"a": (0.3, 0.0), "b": (0.3, 0.0)})
    human = dict(enumerate(truth[:30]))
    alone, taught = fit_span_model(votes), fit_span_model(votes, human)
    assert taught.n_human == 30
    assert taught.annotators["a"].sensitivity == pytest.approx(0.3, abs=0.1)
    assert taught.annotators["a"].sensitivity < alone.annotators["a"].sensitivity
    assert taught.missed(["a", "b"]) > alone.missed(["a", "b"])


def test_places_are_kept_from_where_the_expected_f1_is_highest():
    sure, _ = noisy_votes(100, {"a": (0.95, 0.02), "b": (0.95, 0.02), "c": (0.95, 0.02)})
    unsure, _ = noisy_votes(200, {"a": (0.6, 0.15), "b": (0.75, 0.05)})
    assert fit_span_model(unsure).threshold < fit_span_model(sure).threshold <= 0.5


def test_few_labels_by_people_are_not_used():
    votes, truth = noisy_votes(50, {"a": (0.9, 0.1), "b": (0.9, 0.1)})
    assert fit_span_model(votes, {0: truth[0]}) == fit_span_model(votes)


def test_texts_without_any_span_are_learned_and_a_model_is_stored_as_plain_values():
    fitted = fit_span_model({"a": ((), ()), "b": ((), None)})
    assert SpanModel.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    assert aggregate_spans({"a": ((), ()), "b": ((), None)}, fitted)[0] == ((), ())
