import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.coverage import (
    CoverageProblem,
    best_similarity,
    greedy_cover,
    greedy_herd,
    kernel,
    near_duplicates,
    sample_similarities,
)


def unit(n, d=6, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def problem(vectors, weights=None):
    return CoverageProblem(
        similarities=vectors @ vectors.T,
        weights=np.ones(len(vectors), np.float32) if weights is None else weights,
        covered=np.full(len(vectors), -1.0, dtype=np.float32),
    )


def slow_greedy(vectors, n_picks, width):
    values = np.exp((vectors @ vectors.T - 1) / width).astype(float)
    picks = []
    for _ in range(n_picks):
        covered = values[picks].max(axis=0) if picks else np.zeros(len(vectors))
        gains = np.maximum(values - covered, 0).sum(axis=1)
        gains[picks] = -1
        picks.append(int(np.flatnonzero(gains >= gains.max() - 1e-6 * gains.max())[0]))
    return picks


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(0, 99))
def test_the_lazy_greedy_picks_what_the_plain_greedy_picks(n, seed):
    vectors = unit(n, seed=seed)
    assert greedy_cover(problem(vectors), 8, width=0.6) == slow_greedy(vectors, min(8, n), 0.6)


def test_a_kernel_value_falls_with_the_angle():
    values = kernel(np.array([1.0, 0.36, -1.0], dtype=np.float32), 0.64)
    assert values.tolist() == pytest.approx([1.0, np.exp(-1), np.exp(-3.125)], rel=1e-5)


def test_heavier_references_draw_the_first_pick():
    vectors = np.eye(3, dtype=np.float32)
    weights = np.array([1, 1, 5], dtype=np.float32)
    assert greedy_cover(problem(vectors, weights), 1, width=0.1) == [2]


def test_more_picks_than_candidates_take_all_candidates():
    assert sorted(greedy_cover(problem(unit(4)), 9, width=0.5)) == [0, 1, 2, 3]


def test_a_preference_can_turn_the_choice():
    picks = greedy_cover(
        problem(np.eye(3, dtype=np.float32)), 1, width=0.1, prefer=lambda _: np.array([1, 9, 1.0])
    )
    assert picks == [1]


def test_a_repeat_names_the_first_of_its_kind():
    vectors = unit(4)
    vectors[2] = vectors[0]
    vectors[3] = vectors[0]
    rng = np.random.default_rng(0)
    found = near_duplicates(vectors, np.arange(4), threshold=0.999, rng=rng)
    assert found == {2: 0, 3: 0}


def test_in_a_large_pool_equal_texts_are_always_found():
    vectors = unit(21_000, d=16)
    vectors[20_500:] = vectors[:500]
    found = near_duplicates(
        vectors, np.arange(21_000), threshold=0.9999, rng=np.random.default_rng(0)
    )
    assert all(found[20_500 + at] == at for at in range(500))


def test_the_best_similarity_to_nothing_is_minus_one():
    assert best_similarity(unit(2), np.arange(2), np.zeros(0, np.int64)).tolist() == [-1, -1]


def test_similarities_are_sampled_between_different_texts():
    rng = np.random.default_rng(0)
    assert sample_similarities(np.eye(3, dtype=np.float32), rng).max() == 0.0
    assert len(sample_similarities(unit(1), rng)) == 0


def herd(vectors, n_picks, width, chosen=()):
    candidates = np.delete(vectors, list(chosen), axis=0)
    return greedy_herd(candidates, vectors, vectors[list(chosen)], n_picks, width=width)


def discrepancy(vectors, picks, width):
    """Return the squared distance of the picks' mean and the pool's in the kernel's space."""
    values = kernel(vectors @ vectors.T, width).astype(float)
    return values.mean() - 2 * values[picks].mean() + values[np.ix_(picks, picks)].mean()


def test_the_picks_represent_the_pool_better_than_random_ones():
    vectors = unit(400)
    picks = herd(vectors, 16, 0.7)
    rng = np.random.default_rng(1)
    drawn = [discrepancy(vectors, rng.permutation(400)[:16], 0.7) for _ in range(50)]
    assert discrepancy(vectors, picks, 0.7) < min(drawn)


def test_groups_are_represented_by_their_sizes():
    two = np.eye(2, dtype=np.float32)
    vectors = two[[0] * 30 + [1] * 10]
    picks = herd(vectors, 8, 0.5)
    assert sum(pick >= 30 for pick in picks) == 2


def test_what_was_chosen_before_counts():
    vectors = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    (pick,) = herd(vectors, 1, 0.5, chosen=[0, 1])
    assert pick + 2 == 3


def test_the_first_picks_do_not_depend_on_how_many_are_wanted():
    vectors = unit(50)
    assert herd(vectors, 50, 0.5)[:9] == herd(vectors, 9, 0.5)


@pytest.mark.parametrize(("n", "n_picks"), [(0, 3), (2, 5)])
def test_no_text_is_picked_twice_in_small_pools(n, n_picks):
    assert sorted(herd(unit(n), n_picks, 0.5)) == list(range(n))
