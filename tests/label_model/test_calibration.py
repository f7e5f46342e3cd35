from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.calibration import (
    BatchCalibrator,
    accuracy_from_agreement,
    inverse_temperature_for_accuracy,
    selection_weights,
)


def biased(n, shares, *, bias, sharp=3.0, seed=0):
    """Return posteriors (n, K) shifted by `bias` in log-odds, and the true classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), size=n, p=shares)
    scores = rng.normal(size=(n, len(shares))) + sharp * np.eye(len(shares))[truth]
    return softmax(scores + np.asarray(bias), axis=1), truth


def accuracy(probabilities, truth):
    return float((probabilities.argmax(axis=1) == truth).mean())


def test_a_preference_for_a_label_is_removed():
    raw, truth = biased(1000, [0.5, 0.5], bias=[0, 5])
    calibrated = BatchCalibrator.fit(raw).apply(raw)
    assert accuracy(raw, truth) < 0.7
    assert accuracy(calibrated, truth) > 0.95


def test_unequal_classes_stay_unequal():
    raw, truth = biased(2000, [0.9, 0.1], bias=[0, 0])
    calibrated = BatchCalibrator.fit(raw).apply(raw)
    assert accuracy(calibrated, truth) > accuracy(raw, truth) - 0.005
    assert calibrated[:, 0].mean() == pytest.approx(0.9, abs=0.03)


def test_constant_posteriors_are_left_alone():
    raw = np.tile([0.7, 0.2, 0.1], (50, 1))
    np.testing.assert_allclose(BatchCalibrator.fit(raw).apply(raw), raw)
    none = BatchCalibrator.fit(np.empty((0, 3)))
    np.testing.assert_allclose(none.apply(raw), raw)


def test_two_texts_move_their_posteriors_little():
    raw = np.array([[0.7, 0.3], [0.6, 0.4]])
    assert np.abs(BatchCalibrator.fit(raw).apply(raw) - raw).max() < 0.1


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(2, 6), st.integers(0, 50))
def test_calibrated_posteriors_sum_to_one_and_survive_json(n, k, seed):
    raw = np.random.default_rng(seed).dirichlet(np.ones(k), size=n)
    calibrator = BatchCalibrator.fit(raw)
    again = BatchCalibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    np.testing.assert_allclose(again.apply(raw), calibrator.apply(raw))
    np.testing.assert_allclose(calibrator.apply(raw).sum(axis=1), 1)


def test_confidence_is_tempered_to_an_estimated_accuracy():
    raw, _ = biased(500, [0.5, 0.5], bias=[0, 0])
    tempered = softmax(inverse_temperature_for_accuracy(raw, 0.7) * np.log(raw), axis=1)
    assert tempered.max(axis=1).mean() == pytest.approx(0.7, abs=1e-3)
    assert inverse_temperature_for_accuracy(np.full((3, 2), 0.5), 0.9) == pytest.approx(50)
    assert inverse_temperature_for_accuracy(np.empty((0, 2)), 0.9) == 1.0
    assert inverse_temperature_for_accuracy(raw, 0.5) == pytest.approx(0.1)


def test_two_that_agree_on_72_of_100_are_right_on_83():
    first = np.repeat([0, 1], 50)
    second = np.where(np.arange(100) % 50 < 36, first, 1 - first)
    even = np.array([0.5, 0.5])
    assert accuracy_from_agreement([first, second], even) == pytest.approx(0.8317, abs=1e-4)


def test_agreement_on_the_common_label_alone_shows_nothing():
    first, second = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    first[:10], second[10:20] = 1, 1  # 80 of 100 agree, 82 would by chance
    shares = np.array([0.9, 0.1])
    assert accuracy_from_agreement([first, second], shares) == pytest.approx(0.82)
    constant = np.zeros(100, dtype=int)
    assert accuracy_from_agreement([constant, constant], shares) == pytest.approx(0.82)


def test_agreement_counts_only_where_both_answered_and_needs_two():
    first, second = np.array([0, 1, -1, 1]), np.array([0, 1, 0, -1])
    even = np.array([0.5, 0.5])
    assert accuracy_from_agreement([first, second], np.full(3, 1 / 3)) == pytest.approx(1.0)
    assert accuracy_from_agreement([first], even) is None
    assert accuracy_from_agreement([first, np.full(4, -1)], even) is None
    opposite = np.where(first >= 0, 1 - first, -1)
    assert accuracy_from_agreement([first, opposite], even) == pytest.approx(0.5)


def test_answers_count_by_the_share_of_their_fifth_of_the_pool():
    scores = np.arange(100) / 100
    rows = np.array([0, 1, 2, 3, 4, 5, 40, 99])
    found = selection_weights(scores, rows, (0.2, 1.0))
    assert found == pytest.approx([0.2 / 0.75] * 6 + [1.0] * 2)
    assert selection_weights(scores, np.arange(100), (0.2, 5.0)) == pytest.approx(np.ones(100))
    assert selection_weights(scores, np.arange(2), (0.5, 1.0)) == pytest.approx([0.5] * 2)
