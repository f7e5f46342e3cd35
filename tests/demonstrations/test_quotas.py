"""How many demonstrations per class: by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.demonstrations.quotas import settle_quotas, shares_by_class


def test_enough_of_every_class_gives_all_that_is_asked_for():
    quotas = settle_quotas([40, 40], n_sets=10, n_shots=8, capacity=1)
    assert (quotas.n_shots, quotas.n_each, quotas.n_left) == (8, 4, 0)
    assert quotas.capacities == (1, 1)


def test_the_remainder_is_counted_apart():
    quotas = settle_quotas([20] * 6, n_sets=10, n_shots=10, capacity=1)
    assert (quotas.n_shots, quotas.n_each, quotas.n_left) == (10, 1, 4)


def test_a_small_pool_gives_fewer_under_the_same_cap():
    quotas = settle_quotas([20, 20], n_sets=10, n_shots=8, capacity=1)
    assert (quotas.n_shots, quotas.capacities) == (4, (1, 1))


def test_the_cap_gives_way_only_for_the_class_that_has_too_few():
    quotas = settle_quotas([3, 40], n_sets=10, n_shots=8, capacity=1)
    assert (quotas.n_shots, quotas.capacities) == (3, (4, 1))


def test_more_classes_than_shots_give_one_of_as_many_classes():
    quotas = settle_quotas([2] * 77, n_sets=20, n_shots=8, capacity=2)
    assert (quotas.n_shots, quotas.n_each, quotas.n_left) == (8, 0, 8)


def test_the_remainder_goes_to_the_nearest_class_that_has_places():
    quotas = settle_quotas([1, 1], n_sets=2, n_shots=1, capacity=1)
    shares = shares_by_class(np.array([[0.9, 0.1], [0.8, 0.7]]), quotas)
    assert shares.tolist() == [[1, 0], [0, 1]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
def test_what_is_settled_can_be_kept_and_differs_by_one_at_most(sizes, data):
    n_sets = data.draw(st.integers(1, 12))
    n_shots = data.draw(st.integers(1, 10))
    quotas = settle_quotas(sizes, n_sets=n_sets, n_shots=n_shots, capacity=1)
    nearest = np.random.default_rng(0).uniform(size=(n_sets, len(sizes)))
    shares = shares_by_class(nearest, quotas)
    assert shares.sum(axis=1).tolist() == [quotas.n_shots] * n_sets
    assert (shares.max(axis=1) - shares.min(axis=1) <= 1).all()
    assert (shares <= np.array(sizes)).all()
    assert (shares.sum(axis=0) <= np.array(sizes) * np.array(quotas.capacities)).all()
    assert quotas.n_shots >= min(n_shots, len(sizes))


@pytest.mark.parametrize("n_sets", [1, 5])
def test_one_demonstration_serves_every_set_if_it_is_the_only_one(n_sets):
    quotas = settle_quotas([1], n_sets=n_sets, n_shots=4, capacity=1)
    assert (quotas.n_shots, quotas.capacities) == (1, (n_sets,))
