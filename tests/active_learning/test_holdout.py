"""The audit slice, what it says about each source, and agreement with people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from backend.active_learning.holdout import (
    Source,
    audit,
    cohens_kappa,
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


def test_kappa_by_hand():
    # 45 + 15 of 100 agree on yes and no, 25 + 15 do not: agreed 0.6, by chance 0.54
    ours = np.array([0] * 45 + [0] * 15 + [1] * 25 + [1] * 15)
    theirs = np.array([0] * 45 + [1] * 15 + [0] * 25 + [1] * 15)
    kappa = cohens_kappa(ours, theirs)
    assert kappa.value == pytest.approx((0.6 - 0.54) / 0.46)
    # 1 - kappa is 0.869565; the marginals are 0.6, 0.4 and 0.7, 0.3
    same = 0.45 * (1 - 1.3 * 0.869565) ** 2 + 0.15 * (1 - 0.7 * 0.869565) ** 2
    other = (0.15 * (0.7 + 0.4) ** 2 + 0.25 * (0.3 + 0.6) ** 2) * 0.869565**2
    variance = (same + other - (0.130435 - 0.54 * 0.869565) ** 2) / 0.46**2 / 100
    assert (kappa.high - kappa.low) / 2 == pytest.approx(1.95996 * variance**0.5, rel=1e-4)


def test_full_agreement_is_not_certain_agreement():
    labels = np.array([0, 1] * 10)
    kappa = cohens_kappa(labels, labels)
    assert (kappa.value, kappa.high) == (pytest.approx(1.0), 1.0)
    assert kappa.low == pytest.approx((0.025 ** (1 / 20) - 0.5) / 0.5)


def test_kappa_needs_two_classes_and_an_example():
    assert cohens_kappa(np.zeros(0, dtype=int), np.zeros(0, dtype=int)) is None
    assert cohens_kappa(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2))
def test_kappa_is_scikit_learns_inside_its_interval(pairs):
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    kappa = cohens_kappa(ours, theirs)
    if kappa is not None:
        assert kappa.value == pytest.approx(cohen_kappa_score(ours, theirs))
        assert -1.0 <= kappa.low <= kappa.value + 1e-9
        assert kappa.value - 1e-9 <= kappa.high <= 1.0


def test_kappas_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    table = np.array([[0.5, 0.08, 0.02], [0.05, 0.2, 0.03], [0.02, 0.02, 0.08]])
    chance = table.sum(axis=1) @ table.sum(axis=0)
    true_kappa = (np.trace(table) - chance) / (1 - chance)
    n_covered = 0
    for _ in range(400):
        cells = rng.choice(9, size=80, p=table.ravel())
        kappa = cohens_kappa(cells // 3, cells % 3)
        n_covered += kappa.low <= true_kappa <= kappa.high
    assert n_covered / 400 >= 0.92
