"""Defaults and schedule of the training loop."""

from __future__ import annotations

import pytest

from backend.self_training.trainer import (
    default_batch_size,
    default_learning_rate,
    learning_rate_factor,
)


def test_the_learning_rate_goes_up_then_down_to_nothing():
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(11)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[-1] == 0.0
    assert all(later < earlier for earlier, later in zip(factors[2:], factors[3:], strict=False))


@pytest.mark.parametrize(
    ("width", "rate"), [(64, 5e-4), (384, 2e-4), (768, 5e-5), (1024, 2.8125e-5)]
)
def test_narrow_encoders_learn_faster(width, rate):
    assert default_learning_rate(width) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("n_texts_read", "batch_size"), [(1, 8), (1200, 8), (3000, 20), (4800, 32), (10**6, 32)]
)
def test_few_texts_come_in_small_batches(n_texts_read, batch_size):
    assert default_batch_size(n_texts_read) == batch_size
