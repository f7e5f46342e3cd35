"""The audit slice, what it says about each source, and agreement with people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.holdout import (
    Source,
    audit,
    holdout_rank,
    in_holdout,
    with_holdout,
)


def test_the_slice_is_a_tenth_and_the_same_at_each_look():
    audited = [n for n in range(20_000) if in_holdout(n, seed=3)]
    assert len(audited) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert audited == [n for n in range(20_000) if in_holdout(n, seed=3)]
    again = [n for n in range(20_000) if in_holdout(n, seed=4)]
    assert len(set(audited) & set(again)) / len(audited) == pytest.approx(0.1, abs=0.03)


def test_ranks_are_even_and_independent_of_ids():
    ranks = np.array([holdout_rank(n, seed=0) for n in range(10_000)])
    assert np.histogram(ranks, bins=10, range=(0, 1))[0].min() > 900
    assert abs(np.corrcoef(ranks, np.arange(10_000))[0, 1]) < 0.03


def test_no_share_audits_nothing_and_the_whole_share_everything():
    assert not any(in_holdout(n, seed=0, share=0.0) for n in range(100))
    assert all(in_holdout(n, seed=0, share=1.0) for n in range(100))


def test_one_in_ten_of_what_is_served_is_audited_in_random_order():
    order = list(range(5000))
    served = with_holdout(order, seed=1)
    audited = [n for n in served if in_holdout(n, seed=1)]
    for end in (100, 1000, 4000):
        assert sum(in_holdout(n, seed=1) for n in served[:end]) == pytest.approx(end / 10, abs=1)
    ranks = [holdout_rank(n, seed=1) for n in audited]
    assert ranks == sorted(ranks)
    rest = [n for n in served if not in_holdout(n, seed=1)]
    assert rest == sorted(rest)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10_000), unique=True), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_an_order_with_audit_has_the_same_examples(order, share):
    assert sorted(with_holdout(order, seed=0, share=share)) == sorted(order)


def one_hot(labels, n_classes=2, confidence=0.9):
    rows = np.full((len(labels), n_classes), (1 - confidence) / (n_classes - 1))
    rows[np.arange(len(labels)), labels] = confidence
    return rows


def test_each_source_is_judged_by_the_audited_labels_alone():
    llm = Source("llm", one_hot([0, 0, 1, 1, 0]))
    fused = Source("fused", one_hot([0, 1, 1, 1, 0]))
    report = audit([llm, fused], {0: 0, 1: 1, 3: 1})
    assert report.n_audited == 3
    assert report.accuracies["llm"].value == pytest.approx(2 / 3)
    assert report.accuracies["fused"].value == 1.0
    assert report.accuracies["fused"].low == pytest.approx(0.025 ** (1 / 3))
    assert report.kappas["fused"].value == pytest.approx(1.0)


def test_no_answer_counts_as_wrong_for_accuracy_and_not_for_agreement():
    rows = one_hot([0, 1, 1])
    rows[2] = 0.0
    report = audit([Source("llm", rows)], {0: 0, 1: 1, 2: 1})
    assert report.accuracies["llm"].value == pytest.approx(2 / 3)
    assert (report.kappas["llm"].value, report.kappas["llm"].n) == (pytest.approx(1.0), 2)


def test_without_audited_labels_there_are_no_figures():
    report = audit([Source("llm", one_hot([0, 1]))], {})
    assert (report.n_audited, report.accuracies, report.kappas) == (0, {}, {})


def test_the_fused_labels_tell_where_the_llm_is_wrong_and_narrow_its_interval():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=3000)
    weak = np.where(rng.random(3000) < 0.7, truth, 1 - truth)
    good = np.where(rng.random(3000) < 0.95, truth, 1 - truth)
    llm, fused = Source("llm", one_hot(weak)), Source("fused", one_hot(good, confidence=0.95))
    judged = {int(n): int(truth[n]) for n in rng.choice(3000, 150, replace=False)}
    alone = audit([llm], judged).accuracies["llm"]
    helped = audit([llm], judged, judge_of_rest=fused).accuracies["llm"]
    assert helped.method == "prediction-powered"
    assert helped.width < 0.7 * alone.width
    assert helped.low <= (weak == truth).mean() <= helped.high
