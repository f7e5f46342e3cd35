"""Retrieval: near, balanced, never itself, never everywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.retrieval import DemonstrationPool, Texts, retrieve, retrieve_paper


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def texts_at(*degrees: float, first_id: int = 1000) -> Texts:
    n = len(degrees)
    return Texts(on_circle(*degrees), range(first_id, first_id + n), [f"text {d}" for d in degrees])


def pool_at(*degrees: float, classes, ids=None, texts=None) -> DemonstrationPool:
    return DemonstrationPool(
        on_circle(*degrees),
        np.array(classes),
        ids or [None] * len(degrees),
        texts or [f"shot {at}" for at in range(len(degrees))],
    )


def default(texts, pool, n_shots, *, seed=0):
    return retrieve(texts, pool, n_shots, rng=np.random.default_rng(seed))


def random_case(n, p, n_classes, seed):
    rng = np.random.default_rng(seed)
    texts = texts_at(*rng.uniform(0, 360, n))
    pool = pool_at(*rng.uniform(0, 360, p), classes=np.arange(p) % n_classes)
    return texts, pool


def test_the_published_order_is_class_by_class_most_similar_first():
    pool = pool_at(0, 10, 20, 5, 15, 25, classes=[0, 0, 0, 1, 1, 1])
    retrieval = retrieve_paper(texts_at(12), pool, 4)
    assert retrieval.shots == ((1, 2, 4, 3),)


def test_a_remainder_goes_to_the_nearest_classes():
    pool = pool_at(0, 1, 90, 91, 180, 181, classes=[0, 0, 1, 1, 2, 2])
    (row,) = retrieve_paper(texts_at(80), pool, 5).shots
    assert Counter(pool.classes[list(row)].tolist()) == {0: 2, 1: 2, 2: 1}


def test_more_classes_than_shots_give_one_of_each_of_the_nearest_classes():
    pool = pool_at(*range(0, 77 * 4, 4), classes=range(77))
    (row,) = retrieve_paper(texts_at(100), pool, 3).shots
    assert row == (24, 25, 26)


@pytest.mark.parametrize("n", [10, 60])
@pytest.mark.parametrize("find", [default, retrieve_paper])
def test_no_text_demonstrates_itself_by_id_or_by_wording(find, n):
    degrees = list(range(0, 6 * n, 6))
    texts = texts_at(*degrees)
    pool = pool_at(
        *degrees,
        classes=[at % 2 for at in range(n)],
        ids=[1000 + at if at < n // 2 else None for at in range(n)],
        texts=[f" TEXT  {degree}" if degree > 3 * n - 80 else "other" for degree in degrees],
    )
    retrieval = find(texts, pool, 4)
    own = [at for at, row in enumerate(retrieval.shots) if at in row]
    assert own == []
    assert len({len(row) for row in retrieval.shots}) == 1


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(10, 120),
    n_classes=st.sampled_from([1, 2, 3, 6, 15]),
    n_shots=st.integers(1, 10),
    seed=st.integers(0, 999),
)
def test_a_large_pool_keeps_the_cap_and_the_balance(n, n_classes, n_shots, seed):
    p = 20 * n_classes * -(-n_shots // n_classes)
    texts, pool = random_case(n, p, n_classes, seed)
    retrieval = default(texts, pool, n_shots, seed=seed)
    counts = Counter(column for row in retrieval.shots for column in row)
    assert max(counts.values()) <= 0.1 * n
    for row in retrieval.shots:
        assert len(set(row)) == len(row) == n_shots
        by_class = np.bincount(pool.classes[list(row)], minlength=n_classes)
        assert by_class.max() - by_class.min() <= 1
    assert sorted(retrieval.order.tolist()) == list(range(n))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    seed=st.integers(0, 999),
)
def test_a_small_pool_is_never_an_error_and_gives_one_of_each_class_at_least(n, sizes, seed):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    texts = texts_at(*rng.uniform(0, 360, n))
    pool = pool_at(*rng.uniform(0, 360, len(classes)), classes=classes)
    retrieval = default(texts, pool, 6, seed=seed)
    assert len(retrieval.shots) == n
    n_filled = len(sizes) - sizes.count(0)
    assert min(map(len, retrieval.shots)) >= min(6, n_filled)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_the_same_seed_gives_the_same_demonstrations(seed):
    texts, pool = random_case(50, 60, 2, seed)
    first = default(texts, pool, 4, seed=seed)
    second = default(texts, pool, 4, seed=seed)
    assert first.shots == second.shots
    assert first.order.tolist() == second.order.tolist()


def test_texts_of_a_cluster_share_one_set_in_one_order_and_stand_together():
    texts, pool = random_case(200, 120, 2, 3)
    retrieval = default(texts, pool, 4)
    in_order = [retrieval.shots[at] for at in retrieval.order]
    n_changes = sum(a != b for a, b in zip(in_order, in_order[1:], strict=False))
    assert n_changes + 1 == len(set(retrieval.shots)) == 10


def test_a_text_that_stands_in_its_cluster_s_set_gets_another_in_its_place():
    degrees = list(range(0, 40))
    pool = pool_at(*degrees, classes=[0] * 40, ids=[1000 + at for at in degrees])
    retrieval = default(texts_at(*degrees), pool, 2)
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
    texts, pool = random_case(1000, 160, 2, 5)
    retrieval = default(texts, pool, 8)
    last = Counter(int(pool.classes[row[-1]]) for row in retrieval.shots)
    assert min(last[0], last[1]) >= 300


def test_one_class_is_enough():
    texts, pool = random_case(30, 60, 1, 1)
    assert {len(row) for row in default(texts, pool, 3).shots} == {3}


@pytest.mark.parametrize("find", [default, retrieve_paper])
@pytest.mark.parametrize("n_shots", [0, 4])
def test_an_empty_pool_or_no_shots_give_empty_prompts(n_shots, find):
    pool = pool_at(classes=np.zeros(0, dtype=int)) if n_shots else pool_at(0, classes=[0])
    retrieval = find(texts_at(0, 90), pool, n_shots)
    assert retrieval.shots == ((), ())
    assert retrieval.order.tolist() == [0, 1]


@pytest.mark.parametrize("find", [default, retrieve_paper])
def test_no_texts_give_no_prompts(find):
    assert find(texts_at(), pool_at(0, classes=[0]), 8).shots == ()
