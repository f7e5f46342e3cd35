"""When rounds have converged and when labels stop paying, by hand and at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.evaluation.stopping import (
    LearningPoint,
    advise_on_labels,
    advise_on_rounds,
    expected_gain,
)


def test_rounds_converge_when_labels_stand_still_twice():
    assert not advise_on_rounds([0.2, 0.01]).is_converged
    advice = advise_on_rounds([0.2, 0.01, 0.015])
    assert advice.is_converged
    assert "1.0% and 1.5%" in advice.sentence
    assert not advise_on_rounds([0.01, 0.2, 0.01]).is_converged


def test_rounds_end_at_their_limit():
    assert not advise_on_rounds([0.3] * 4).is_converged
    advice = advise_on_rounds([0.3] * 5)
    assert advice.is_converged
    assert "limit of 6" in advice.sentence


def test_one_round_cannot_tell():
    advice = advise_on_rounds([])
    assert not advice.is_converged
    assert "changed" not in advice.figures


def curve(*pairs, width=0.05):
    return [LearningPoint(n, accuracy, width) for n, accuracy in pairs]


def power_law(n, *, floor=0.1, scale=2.0, decay=0.5):
    return 1 - floor - scale * n**-decay


def test_the_gain_of_a_known_learning_curve_is_found():
    points = curve(*[(n, power_law(n)) for n in (50, 100, 200, 400)])
    # 2 / sqrt(400) - 2 / sqrt(500)
    assert expected_gain(points, n_next=100) == pytest.approx(0.1 - 0.0894427, abs=1e-4)


def test_an_accuracy_that_does_not_rise_promises_nothing():
    assert expected_gain(curve((50, 0.8), (100, 0.8), (150, 0.8)), n_next=50) < 1e-9
    assert expected_gain(curve((50, 0.8), (100, 0.7), (150, 0.6)), n_next=50) < 1e-9


def test_without_labels_at_three_points_the_slope_is_continued():
    assert expected_gain(curve((0, 0.6), (50, 0.7), (100, 0.8)), n_next=50) == pytest.approx(0.1)
    assert expected_gain(curve((0, 0.6)), n_next=50) == 0.0


def test_a_steep_curve_advises_to_go_on():
    advice = advise_on_labels(curve((50, 0.6), (100, 0.7), (150, 0.76)), 0.0)
    assert advice.is_paying
    assert advice.sentence.startswith("With 150 labels the accuracy is 76.0%")
    assert advice.sentence.endswith("go on.")


FLAT = curve((100, 0.9), (200, 0.901), (300, 0.901))


def test_a_flat_curve_with_stable_labels_and_a_narrow_interval_advises_to_stop():
    advice = advise_on_labels(FLAT, 0.01)
    assert advice.is_paying is False
    assert advice.figures["expected_gain"] < 0.005
    assert "not expected to pay" in advice.sentence


def test_labels_that_still_change_keep_a_flat_curve_open():
    advice = advise_on_labels(FLAT, 0.08)
    assert advice.is_paying
    assert "8.0%" in advice.sentence


def test_an_accuracy_that_is_badly_known_keeps_a_flat_curve_open():
    wide = [LearningPoint(p.n_labels, p.accuracy, 0.2) for p in FLAT]
    advice = advise_on_labels(wide, None)
    assert advice.is_paying
    assert "20.0 points wide" in advice.sentence


@pytest.mark.parametrize("points", [[], FLAT[:2], [FLAT[0]] * 5])
def test_there_is_no_advice_from_fewer_than_three_points(points):
    advice = advise_on_labels(points, 0.0)
    assert advice.is_paying is None
    assert "expected_gain" not in advice.figures
    assert "Too early" in advice.sentence


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1)),
        min_size=3,
        unique_by=lambda point: point[0],
    )
)
def test_the_expected_gain_is_never_negative_nor_more_than_all_that_is_missing(raw):
    points = sorted((LearningPoint(*point) for point in raw), key=lambda p: p.n_labels)
    gain = expected_gain(points, n_next=50)
    assert 0.0 <= gain <= 1.0 + 1e-9
    assert advise_on_labels(points, 0.0).is_paying is not None
