"""Retrieval: near, balanced, never itself, never everywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.few_shot import RetrievalPlan, ShotPool, Texts
from backend.demonstrations.retrieval import retrieve
from backend.domain.labels import Answer, Demonstration


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def texts_at(*degrees: float, first_id: int = 1000) -> Texts:
    n = len(degrees)
    return Texts(on_circle(*degrees), range(first_id, first_id + n), [f"text {d}" for d in degrees])


def pool_at(*degrees: float, classes, ids=None, texts=None) -> ShotPool:
    return ShotPool(
        on_circle(*degrees),
        np.array(classes),
        ids or [None] * len(degrees),
        texts or [f"shot {at}" for at in range(len(degrees))],
    )


def found(texts, pool, plan, *, n_classes=2, seed=0):
    return retrieve(texts, pool, plan, n_classes=n_classes, rng=np.random.default_rng(seed))


def random_case(n, p, n_classes, seed):
    rng = np.random.default_rng(seed)
    texts = texts_at(*rng.uniform(0, 360, n))
    pool = pool_at(*rng.uniform(0, 360, p), classes=np.arange(p) % n_classes)
    return texts, pool


PAPER = RetrievalPlan(n_shots=4, recipe="paper")


def test_the_published_order_is_class_by_class_most_similar_first():
    pool = pool_at(0, 10, 20, 5, 15, 25, classes=[0, 0, 0, 1, 1, 1])
    retrieval = found(texts_at(12), pool, PAPER)
    assert retrieval.shots == ((1, 2, 4, 3),)


def test_a_remainder_goes_to_the_nearest_classes():
    pool = pool_at(0, 1, 90, 91, 180, 181, classes=[0, 0, 1, 1, 2, 2])
    (row,) = found(texts_at(80), pool, RetrievalPlan(n_shots=5, recipe="paper"), n_classes=3).shots
    assert Counter(pool.classes[list(row)].tolist()) == {0: 2, 1: 2, 2: 1}


def test_more_classes_than_shots_give_one_of_each_of_the_nearest_classes():
    pool = pool_at(*range(0, 77 * 4, 4), classes=range(77))
    plan = RetrievalPlan(n_shots=3, recipe="paper")
    (row,) = found(texts_at(100), pool, plan, n_classes=77).shots
    assert row == (24, 25, 26)


@pytest.mark.parametrize("recipe", ["default", "paper"])
@pytest.mark.parametrize("sharing", ["cluster", "text"])
def test_no_text_demonstrates_itself_by_id_or_by_wording(recipe, sharing):
    degrees = list(range(0, 360, 6))
    texts = texts_at(*degrees)
    pool = pool_at(
        *degrees,
        classes=[at % 2 for at in range(60)],
        ids=[1000 + at if at < 30 else None for at in range(60)],
        texts=[f" TEXT  {degree}" if degree > 100 else "other" for degree in degrees],
    )
    plan = RetrievalPlan(n_shots=4, recipe=recipe, sharing=sharing)
    retrieval = found(texts, pool, plan)
    own = [at for at, row in enumerate(retrieval.shots) if at in row]
    assert own == []
    assert retrieval.report.n_incomplete == 0


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(10, 120),
    n_classes=st.sampled_from([1, 2, 3, 6, 15]),
    n_shots=st.integers(1, 10),
    sharing=st.sampled_from(["cluster", "text"]),
    seed=st.integers(0, 999),
)
def test_a_large_pool_keeps_the_cap_and_the_balance(n, n_classes, n_shots, sharing, seed):
    p = 20 * n_classes * -(-n_shots // n_classes)
    texts, pool = random_case(n, p, n_classes, seed)
    plan = RetrievalPlan(n_shots=n_shots, sharing=sharing)
    retrieval = found(texts, pool, plan, n_classes=n_classes, seed=seed)
    counts = Counter(column for row in retrieval.shots for column in row)
    assert max(counts.values()) <= 0.1 * n
    assert retrieval.report.is_cap_met
    assert retrieval.report.hub_share == max(counts.values()) / n
    for row in retrieval.shots:
        assert len(set(row)) == len(row) == n_shots
        by_class = np.bincount(pool.classes[list(row)], minlength=n_classes)
        assert by_class.max() - by_class.min() <= 1
    assert sorted(retrieval.order.tolist()) == list(range(n))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    sharing=st.sampled_from(["cluster", "text"]),
    seed=st.integers(0, 999),
)
def test_a_small_pool_is_never_an_error_and_the_report_tells_the_truth(n, sizes, sharing, seed):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    texts = texts_at(*rng.uniform(0, 360, n))
    pool = pool_at(*rng.uniform(0, 360, len(classes)), classes=classes)
    plan = RetrievalPlan(n_shots=6, sharing=sharing)
    retrieval = found(texts, pool, plan, n_classes=len(sizes), seed=seed)
    report = retrieval.report
    counts = Counter(column for row in retrieval.shots for column in row)
    hub = max(counts.values(), default=0) / n
    assert report.is_cap_met == (hub <= 0.1 + 1e-9)
    assert report.n_incomplete == sum(len(row) < report.n_shots for row in retrieval.shots)
    assert report.n_empty_classes == sizes.count(0)
    n_filled = len(sizes) - sizes.count(0)
    if n_filled:
        assert report.n_shots >= min(6, n_filled)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["cluster", "text"]), st.integers(0, 99))
def test_the_same_seed_gives_the_same_demonstrations(sharing, seed):
    texts, pool = random_case(50, 60, 2, seed)
    plan = RetrievalPlan(n_shots=4, sharing=sharing)
    first = found(texts, pool, plan, seed=seed)
    second = found(texts, pool, plan, seed=seed)
    assert first.shots == second.shots
    assert first.order.tolist() == second.order.tolist()


def test_texts_of_a_cluster_share_one_set_in_one_order_and_stand_together():
    texts, pool = random_case(200, 120, 2, 3)
    retrieval = found(texts, pool, RetrievalPlan(n_shots=4))
    in_order = [retrieval.shots[at] for at in retrieval.order]
    n_changes = sum(a != b for a, b in zip(in_order, in_order[1:], strict=False))
    assert n_changes + 1 == retrieval.report.n_sets == 10


def test_a_text_that_stands_in_its_cluster_s_set_gets_another_in_its_place():
    degrees = list(range(0, 40))
    pool = pool_at(*degrees, classes=[0] * 40, ids=[1000 + at for at in degrees])
    retrieval = found(texts_at(*degrees), pool, RetrievalPlan(n_shots=2), n_classes=1)
    in_order = [retrieval.shots[at] for at in retrieval.order]
    n_differing = 0
    for first in range(0, 40, 4):
        in_cluster = in_order[first : first + 4]
        usual, n_usual = Counter(in_cluster).most_common(1)[0]
        n_differing += 4 - n_usual
        for row in in_cluster:
            assert row == usual or sum(a == b for a, b in zip(row, usual, strict=True)) == 1
    assert n_differing > 0


def test_the_order_of_a_set_is_not_class_by_class_everywhere():
    texts, pool = random_case(100, 160, 2, 5)
    retrieval = found(texts, pool, RetrievalPlan(n_shots=8, sharing="text"))
    last = Counter(int(pool.classes[row[-1]]) for row in retrieval.shots)
    assert min(last[0], last[1]) >= 30


def test_the_demonstrations_are_given_by_example_as_a_guide_holds_them():
    pool = pool_at(0, 10, classes=[0, 1])
    demonstrations = [Demonstration({"t": name}, Answer(), "human") for name in "ab"]
    retrieval = found(texts_at(1, 9, first_id=7), pool, RetrievalPlan(n_shots=2, recipe="paper"))
    shots = retrieval.by_example([7, 8], demonstrations)
    assert shots == {7: tuple(demonstrations), 8: tuple(demonstrations)}


def test_one_class_is_enough():
    texts, pool = random_case(30, 60, 1, 1)
    assert found(texts, pool, RetrievalPlan(n_shots=3), n_classes=1).report.n_incomplete == 0


@pytest.mark.parametrize("n_shots", [0, 4])
def test_an_empty_pool_or_no_shots_give_empty_prompts(n_shots):
    pool = pool_at(classes=np.zeros(0, dtype=int)) if n_shots else pool_at(0, classes=[0])
    retrieval = found(texts_at(0, 90), pool, RetrievalPlan(n_shots=n_shots))
    assert retrieval.shots == ((), ())
    assert retrieval.order.tolist() == [0, 1]


def test_no_texts_give_no_prompts():
    retrieval = found(texts_at(), pool_at(0, classes=[0]), RetrievalPlan())
    assert retrieval.shots == ()
