"""The random holdout, and what is estimated from it about each source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.holdout import (
    LabelSource,
    estimate_accuracies,
    estimate_kappas,
    with_holdout,
)
from backend.domain.holdout import holdout_rank, in_holdout


def test_the_holdout_is_a_tenth_and_always_the_same():
    held_out = [n for n in range(20_000) if in_holdout(n, seed=3)]
    assert len(held_out) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert held_out == [n for n in range(20_000) if in_holdout(n, seed=3)]
    again = [n for n in range(20_000) if in_holdout(n, seed=4)]
    assert len(set(held_out) & set(again)) / len(held_out) == pytest.approx(0.1, abs=0.03)


def test_ranks_are_even_and_independent_of_ids():
    ranks = np.array([holdout_rank(n, seed=0) for n in range(10_000)])
    assert np.histogram(ranks, bins=10, range=(0, 1))[0].min() > 900
    assert abs(np.corrcoef(ranks, np.arange(10_000))[0, 1]) < 0.03


def n_among(examples):
    return sum(in_holdout(n, seed=1) for n in examples)


def test_the_holdout_is_asked_about_often_at_first_and_less_later_in_random_order():
    served = with_holdout(list(range(5000)), seed=1, share=0.2)
    held_out = [n for n in served if in_holdout(n, seed=1)]
    assert [n_among(served[:end]) for end in (50, 150, 600, 2400)] == [10, 30, 69, 138]
    ranks = [holdout_rank(n, seed=1) for n in held_out]
    assert ranks == sorted(ranks)
    rest = [n for n in served if not in_holdout(n, seed=1)]
    assert rest == sorted(rest)


def test_a_new_order_goes_on_where_people_are():
    order = list(range(5000))
    served = with_holdout(order, seed=1)
    answered, rest = served[:400], [n for n in order if n not in set(served[:400])]
    again = with_holdout(rest, seed=1, answered=answered)
    assert n_among([*answered, *again[:400]]) == n_among(served[:800])
    assert again[:400] == served[400:800]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_the_holdout_is_bounded(share):
    served = with_holdout(list(range(1000)), seed=1, share=share)
    assert n_among(served[:20]) == 20 * share


@settings(deadline=None)
@given(st.lists(st.integers(1, 10_000), unique=True))
def test_an_order_with_the_holdout_has_the_same_examples(order):
    assert sorted(with_holdout(order, seed=0)) == sorted(order)


def one_hot(labels, n_classes=2, confidence=0.9):
    rows = np.full((len(labels), n_classes), (1 - confidence) / (n_classes - 1))
    rows[np.arange(len(labels)), labels] = confidence
    return rows


def test_each_source_is_measured_on_the_labels_of_the_holdout_alone():
    llm = LabelSource("llm", one_hot([0, 0, 1, 1, 0]))
    fused = LabelSource("fused", one_hot([0, 1, 1, 1, 0]))
    labels = {0: 0, 1: 1, 3: 1}
    accuracies = estimate_accuracies([llm, fused], labels)
    assert accuracies["llm"].value == pytest.approx(2 / 3)
    assert accuracies["fused"].value == 1.0
    assert accuracies["fused"].low == pytest.approx(0.025 ** (1 / 3))
    assert estimate_kappas([llm, fused], labels)["fused"].value == pytest.approx(1.0)


def test_no_answer_counts_as_wrong_for_accuracy_and_not_for_agreement():
    rows = one_hot([0, 1, 1])
    rows[2] = 0.0
    sources, labels = [LabelSource("llm", rows)], {0: 0, 1: 1, 2: 1}
    assert estimate_accuracies(sources, labels)["llm"].value == pytest.approx(2 / 3)
    kappa = estimate_kappas(sources, labels)["llm"]
    assert (kappa.value, kappa.n) == (pytest.approx(1.0), 2)


def test_without_labels_of_the_holdout_there_are_no_figures():
    sources = [LabelSource("llm", one_hot([0, 1]))]
    assert estimate_accuracies(sources, {}) == estimate_kappas(sources, {}) == {}


def test_the_aggregated_labels_predict_where_the_llm_is_wrong_and_narrow_its_interval():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=3000)
    weak = np.where(rng.random(3000) < 0.7, truth, 1 - truth)
    good = np.where(rng.random(3000) < 0.95, truth, 1 - truth)
    llm, fused = (
        LabelSource("llm", one_hot(weak)),
        LabelSource("fused", one_hot(good, confidence=0.95)),
    )
    labels = {int(n): int(truth[n]) for n in rng.choice(3000, 150, replace=False)}
    alone = estimate_accuracies([llm], labels)["llm"]
    helped = estimate_accuracies([llm], labels, reference=fused)["llm"]
    assert helped.method == "prediction-powered"
    assert helped.width < 0.7 * alone.width
    assert helped.low <= (weak == truth).mean() <= helped.high
