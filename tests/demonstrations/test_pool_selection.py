"""The demonstration pool: reliable labels, diverse texts, and classes of every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.pool_selection import (
    PoolEvidence,
    class_members,
    pool_size_per_class,
    select_pool,
    select_pool_paper,
)


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def evidence(labels, losses, *, n_classes=2, embeddings=None, agrees=None, **more) -> PoolEvidence:
    labels, losses = np.array(labels, dtype=int), np.array(losses, dtype=float)
    if embeddings is None:
        embeddings = on_circle(*(360 * at / len(labels) for at in range(len(labels))))
    agrees = np.ones(len(labels), dtype=bool) if agrees is None else np.array(agrees)
    return PoolEvidence(class_members(labels, agrees, n_classes), losses, embeddings, **more)


def chosen(of: PoolEvidence, n_per_class: int, select=select_pool) -> list[list[int]]:
    return [rows.tolist() for rows in select(of, n_per_class)]


@pytest.mark.parametrize("select", [select_pool, select_pool_paper])
def test_the_smallest_losses_of_each_class_are_chosen_the_smallest_first(select):
    losses = [0.4, 0.1, *[0.5] * 7, 0.2, *[0.9] * 3, 0.2, 0.7, 0.1, *[0.8] * 4]
    of = evidence([0] * 10 + [1] * 10, losses)
    assert chosen(of, 2, select) == [[1, 9], [15, 13]]


def test_texts_that_the_student_labels_otherwise_are_left_out():
    of = evidence([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], agrees=[False, True, False, True])
    assert chosen(of, 4) == [[1, 3], []]


def test_the_medoids_of_different_groups_are_taken():
    embeddings = on_circle(0, 10, 20, 170, 180, 190)
    of = evidence([0] * 6, [0.1] * 6, embeddings=embeddings, is_human=np.ones(6, dtype=bool))
    assert chosen(of, 2) == [[1, 4], []]


def test_human_labels_come_first_whatever_their_loss():
    is_human = np.array([False, False, True, True])
    of = evidence([0, 0, 0, 0], [0.1, 0.2, 9.0, 5.0], is_human=is_human)
    assert chosen(of, 3)[0] == [3, 2, 0]
    assert chosen(of, 2)[0] == [3, 2]


def test_the_published_selection_ignores_human_labels():
    of = evidence([0, 0, 0, 0], [0.1, 0.2, 9.0, 5.0], is_human=np.array([False, False, True, True]))
    assert chosen(of, 2, select_pool_paper)[0] == [0]


def test_weak_labels_that_are_more_likely_wrong_stay_out_and_human_ones_do_not():
    of = evidence(
        [0, 0, 0],
        [0.1, 0.2, 0.3],
        is_human=np.array([False, False, True]),
        label_quality_score=np.array([0.4, 0.9, 0.1]),
    )
    assert chosen(of, 3)[0] == [2, 1]


def test_texts_with_the_same_vector_count_once():
    of = evidence([0, 0, 0], [0.2, 0.1, 0.3], embeddings=on_circle(50, 50, 90))
    assert chosen(of, 3)[0] == [1, 2]


def test_a_class_of_three_texts_gives_all_three_and_an_empty_class_none():
    of = evidence([0] * 20 + [1] * 3, np.linspace(0, 1, 23), n_classes=3)
    pool = chosen(of, 5)
    assert [len(rows) for rows in pool] == [5, 3, 0]
    assert pool[1] == [20, 21, 22]


def test_a_text_without_a_finite_loss_is_left_out():
    of = evidence([0, 0], [np.nan, 0.5])
    assert chosen(of, 2)[0] == [1]


def test_no_texts_give_empty_pools():
    of = evidence([], [], embeddings=np.zeros((0, 2), dtype=np.float32), agrees=np.zeros(0, bool))
    assert chosen(of, 3) == [[], []]


@pytest.mark.parametrize(("n_classes", "size"), [(2, 50), (6, 16), (77, 2), (150, 2)])
def test_the_published_pool_of_100_is_shared_out_but_never_under_two_each(n_classes, size):
    labels = np.repeat(np.arange(n_classes), 5 * size)
    of = evidence(labels, np.zeros(len(labels)), n_classes=n_classes)
    assert {len(rows) for rows in select_pool_paper(of)} == {size}


def test_the_pool_size_leaves_a_choice_under_the_cap():
    assert pool_size_per_class(2, 8) == 60
    assert pool_size_per_class(150, 8) == 3


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.sampled_from([2, 150]), st.integers(1, 6), st.integers(0, 99))
def test_every_choice_is_a_candidate_once_per_class_and_always_the_same(n, n_classes, size, seed):
    rng = np.random.default_rng(seed)
    embeddings = on_circle(*rng.uniform(0, 360, n))
    of = evidence(
        rng.integers(0, n_classes, n),
        rng.uniform(0, 1, n),
        n_classes=n_classes,
        embeddings=embeddings,
        agrees=rng.uniform(size=n) < 0.7,
        is_human=rng.uniform(size=n) < 0.2,
    )
    for select in (select_pool, select_pool_paper):
        pool = chosen(of, size, select)
        assert pool == chosen(of, size, select)
        for at, rows in enumerate(pool):
            assert len(set(rows)) == len(rows) <= size
            assert of.is_candidate[rows, at].all()
