import numpy as np
import pytest

from backend.active_learning.baselines import EveryNth, FirstInList, RandomOrder, complete_order
from backend.active_learning.ordering import PoolView, Reason


def pool(n, **fields):
    vectors = np.tile(np.eye(2, dtype=np.float32)[0], (n, 1))
    return PoolView(np.arange(n), vectors, **fields)


def test_the_first_in_the_list_stay_first_and_are_found_out():
    ordering = FirstInList().order(pool(40, labelled={0: 1}), rng=np.random.default_rng(0))
    assert ordering.positions.tolist() == list(range(1, 40))
    assert ordering.health.warnings


def test_every_nth_takes_equal_steps():
    ordering = EveryNth(4).order(pool(12), rng=np.random.default_rng(0))
    assert ordering.positions[:4].tolist() == [0, 3, 6, 9]


def test_a_random_order_holds_every_open_position_once():
    ordering = RandomOrder().order(pool(9, labelled={3: None}), rng=np.random.default_rng(0))
    assert sorted(ordering.positions) == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("head", [[1, 1], [3]])
def test_a_head_that_repeats_or_is_labelled_is_refused(head):
    with pytest.raises(ValueError, match="twice"):
        complete_order(pool(5, labelled={3: 0}), head, Reason("chosen"), np.random.default_rng(0))
