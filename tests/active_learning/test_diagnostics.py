import numpy as np
import pytest

from backend.active_learning.diagnostics import (
    ascending_share,
    class_balance,
    gap_variation,
    position_correlation,
    position_warnings,
)


def test_the_head_of_the_list_is_called_position_only():
    warnings = position_warnings(np.arange(32), n_choices=300)
    assert any("looked at places, not at texts" in warning for warning in warnings)


def test_every_second_text_in_any_order_is_called_regular():
    picks = np.random.default_rng(0).permutation(np.arange(1, 65, 2))
    warnings = position_warnings(picks, n_choices=300)
    assert any("nearly equal distances" in warning for warning in warnings)


def test_a_random_choice_raises_no_warning():
    picks = np.random.default_rng(1).choice(1000, size=64, replace=False)
    assert position_warnings(picks, n_choices=1000) == ()


@pytest.mark.parametrize("n_choices", [105, 115, 130, 170])
def test_picks_of_nearly_all_texts_have_small_gaps_by_chance(n_choices):
    picks = np.random.default_rng(2).permutation(n_choices)[:105]
    assert position_warnings(picks, n_choices=n_choices) == ()


def test_few_picks_are_not_judged():
    assert position_warnings(np.arange(15), n_choices=300) == ()


def test_shares_and_correlations_of_a_small_order():
    ids = np.array([1, 3, 2, 4])
    assert ascending_share(ids) == pytest.approx(2 / 3)
    assert position_correlation(ids) == pytest.approx(0.8)
    assert gap_variation(ids) == 0.0


def test_nothing_can_be_said_about_nothing():
    none = np.zeros(0, np.int64)
    assert ascending_share(none) is None
    assert position_correlation(none) is None
    assert gap_variation(none) is None
    assert class_balance(np.full((1, 2), np.nan)) is None


def test_even_classes_are_in_full_balance():
    assert class_balance(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1.0)
    assert class_balance(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.0)
