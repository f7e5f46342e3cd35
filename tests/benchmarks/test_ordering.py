from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.active_learning.baselines import RandomOrder
from backend.active_learning.strategy_interface import PoolView
from benchmarks.ordering_learners import PROBE_C, learn_by_fine_tuning, probe
from benchmarks.ordering_metrics import area, figures, interval, random_figures
from benchmarks.ordering_pools import LabeledSet, draw_pool
from benchmarks.ordering_protocol import BUDGETS, collect, learning_curve, macro_f1, random_curves
from benchmarks.ordering_strategies import (
    WITHOUT_ANNOTATORS,
    Builders,
    EveryNth,
    FirstInList,
)

builder = Builders(llm="", cache=Path("unused"), task="a or b")


def two_topics(n=300, n_test=100):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n + n_test)
    x = (np.eye(8)[y] + 0.3 * rng.normal(size=(n + n_test, 8))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    posteriors = np.where(np.eye(2)[y[:n]] == 1, 0.7, 0.3)
    posteriors = {"similarity": posteriors}
    return LabeledSet("two", ("a", "b"), x[:n], y[:n], x[n:], y[n:], posteriors)


def test_identical_choices_give_identical_scores():
    data = two_topics()
    pool = draw_pool(data, 0, 200)
    first = learning_curve(data, pool, lambda n: FirstInList(), without_annotators=True)
    second = learning_curve(data, pool, lambda n: FirstInList(), without_annotators=True)
    assert first.picks == second.picks == tuple(range(128))
    assert first.accuracy == second.accuracy


def test_every_strategy_is_given_the_same_pool():
    data = two_topics()
    assert draw_pool(data, 3, 200).rows.tolist() == draw_pool(data, 3, 200).rows.tolist()
    assert draw_pool(data, 3, 200).rows.tolist() != draw_pool(data, 4, 200).rows.tolist()


def test_no_text_is_picked_twice_and_each_budget_is_met():
    data = two_topics()
    curve = learning_curve(data, draw_pool(data, 0, 200), builder("activellm"))
    assert len(set(curve.picks)) == BUDGETS[-1]
    assert len(curve.accuracy) == len(BUDGETS)


def test_human_labels_correct_annotators_that_are_always_wrong():
    data = two_topics()
    pool = draw_pool(data, 0, 200)
    gold = data.y_train[pool.rows]
    wrong = replace(data, posteriors={"similarity": 1 - data.posteriors["similarity"]})
    labels = {at: int(gold[at]) for at in range(60)}
    before, after = collect(wrong, pool, {}).posteriors, collect(wrong, pool, labels).posteriors
    assert (before.argmax(axis=1) == gold).mean() < 0.5
    assert (after[60:].argmax(axis=1) == gold[60:]).mean() > 0.8


@pytest.mark.parametrize("name", ["activellm-blind", "first-k"])
def test_strategies_without_annotators_choose_the_same_whatever_those_answer(name):
    assert name in WITHOUT_ANNOTATORS
    data = two_topics(n=160)
    pool = draw_pool(data, 0, 150)
    without = learning_curve(data, pool, builder(name), without_annotators=True)
    assert without.picks == learning_curve(data, pool, builder(name)).picks


def test_a_strategy_is_measured_against_the_median_of_random_draws():
    data = two_topics()
    pools = [draw_pool(data, seed, 200) for seed in range(3)]
    random = [random_curves(data, pool, 5) for pool in pools]
    curves = [
        learning_curve(data, pool, lambda n: EveryNth(n), without_annotators=True) for pool in pools
    ]
    mine = figures(curves, random)
    assert set(mine) >= {
        "aulc",
        "aulc_minus_random",
        "interval",
        "p_worse_than_random",
        "macro_f1",
        "class_coverage",
        "tokens",
    }
    assert mine["interval"][0] <= mine["aulc_minus_random"] <= mine["interval"][1]
    assert 0 <= mine["p_worse_than_random"] <= 1
    assert random_figures(random)["aulc_minus_random"] == 0.0


def test_the_area_of_a_flat_curve_is_its_height():
    assert area(np.full((2, len(BUDGETS)), 0.6)).tolist() == pytest.approx([0.6, 0.6])
    assert area(np.array([0.0, 0.0, 1.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_the_interval_of_equal_differences_is_a_point():
    assert interval(np.full(20, 0.03)) == pytest.approx((0.03, 0.03))


def test_macro_f1_counts_classes_of_the_gold_labels():
    predicted, gold = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert macro_f1(predicted, gold) == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_probe_of_one_class_answers_that_class():
    x = np.eye(3, dtype=np.float32)
    assert probe(x, np.array([1, 1, 1]), x, 2).tolist() == [[0, 1]] * 3


def test_the_probe_in_gram_coordinates_is_the_plain_regression():
    from sklearn.linear_model import LogisticRegression

    data = two_topics()
    x, y = data.train[:40], data.y_train[:40]
    plain = LogisticRegression(C=PROBE_C, max_iter=1000, tol=1e-8).fit(x, y)
    ours = probe(x, y, data.test, 2)
    assert ours == pytest.approx(plain.predict_proba(data.test), abs=0.05)


@pytest.mark.slow
def test_a_fine_tune_learns_from_the_words_of_the_chosen_texts():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=60)
    words = (["good film", "great, fine, good"], ["bad film", "poor, dull, bad"])
    texts = [words[label][at % 2] + f" {at}" for at, label in enumerate(y)]
    x = np.eye(60, dtype=np.float32)
    data = LabeledSet(
        "words", ("good", "bad"), x[:40], y[:40], x[40:], y[40:], {}, texts[:40], texts[40:]
    )
    pool = draw_pool(data, 0, 30)
    learned = learn_by_fine_tuning(data, pool, np.arange(24))
    assert (learned.of_test.argmax(axis=1) == data.y_test).mean() > 0.8
    assert learned.of_pool().shape == (30, 2)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="activellm, "):
        builder("best")


def test_a_strategy_that_asks_an_llm_needs_its_address():
    with pytest.raises(ValueError, match="--llm"):
        builder("activellm-paper")


def test_a_random_order_is_a_strategy_too():
    data = two_topics()
    curve = learning_curve(data, draw_pool(data, 0, 200), lambda n: RandomOrder())
    assert len(curve.picks) == BUDGETS[-1]


def uniform_pool(n, **fields):
    vectors = np.tile(np.eye(2, dtype=np.float32)[0], (n, 1))
    return PoolView(np.arange(n), vectors, **fields)


def test_the_first_in_the_list_stay_first_and_are_found_out():
    ordering = FirstInList().order(uniform_pool(40, labeled={0: 1}), rng=np.random.default_rng(0))
    assert ordering.positions.tolist() == list(range(1, 40))
    assert ordering.diagnostics.warnings


def test_every_nth_takes_equal_steps():
    ordering = EveryNth(4).order(uniform_pool(12), rng=np.random.default_rng(0))
    assert ordering.positions[:4].tolist() == [0, 3, 6, 9]
