import numpy as np
import pytest

from backend.active_learning.coverage import kernel
from backend.active_learning.herding import HerdingProblem, greedy_herd


def unit(n, d=6, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def problem(vectors, chosen=()):
    every = np.arange(len(vectors))
    chosen = np.array(chosen, dtype=np.int64)
    return HerdingProblem(vectors, np.setdiff1d(every, chosen), every, chosen)


def discrepancy(vectors, picks, width):
    """Return the squared distance of the picks' mean and the pool's in the kernel's space."""
    values = kernel(vectors @ vectors.T, width).astype(float)
    return values.mean() - 2 * values[picks].mean() + values[np.ix_(picks, picks)].mean()


def test_the_picks_stand_for_the_pool_better_than_random_ones():
    vectors = unit(400)
    picks = greedy_herd(problem(vectors), 16, width=0.7)
    rng = np.random.default_rng(1)
    drawn = [discrepancy(vectors, rng.permutation(400)[:16], 0.7) for _ in range(50)]
    assert discrepancy(vectors, picks, 0.7) < min(drawn)


def test_groups_are_represented_by_their_sizes():
    two = np.eye(2, dtype=np.float32)
    vectors = two[[0] * 30 + [1] * 10]
    picks = greedy_herd(problem(vectors), 8, width=0.5)
    assert sum(pick >= 30 for pick in picks) == 2


def test_what_was_chosen_before_counts():
    vectors = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    (index,) = greedy_herd(problem(vectors, chosen=[0, 1]), 1, width=0.5)
    assert problem(vectors, chosen=[0, 1]).candidates[index] == 3


def test_the_first_picks_do_not_depend_on_how_many_are_wanted():
    vectors = unit(50)
    assert greedy_herd(problem(vectors), 50, width=0.5)[:9] == greedy_herd(
        problem(vectors), 9, width=0.5
    )


@pytest.mark.parametrize(("n", "n_picks"), [(0, 3), (2, 5)])
def test_no_text_is_picked_twice_in_small_pools(n, n_picks):
    assert sorted(greedy_herd(problem(unit(n)), n_picks, width=0.5)) == list(range(n))
