from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.calibration import (
    BatchCalibrator,
    LabelCalibration,
    fit_label_calibration,
    temper_to_accuracy,
)


def leaning(n, shares, *, lean, sharp=3.0, seed=0):
    """Return posteriors (n, K) that lean by `lean` in log-odds, and the true classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(shares), size=n, p=shares)
    scores = rng.normal(size=(n, len(shares))) + sharp * np.eye(len(shares))[truth]
    return softmax(scores + np.asarray(lean), axis=1), truth


def accuracy(probabilities, truth):
    return float((probabilities.argmax(axis=1) == truth).mean())


def test_a_leaning_is_taken_out():
    raw, truth = leaning(1000, [0.5, 0.5], lean=[0, 5])
    calibrated = BatchCalibrator.fit(raw).apply(raw)
    assert accuracy(raw, truth) < 0.7
    assert accuracy(calibrated, truth) > 0.95


def test_unequal_classes_stay_unequal():
    raw, truth = leaning(2000, [0.9, 0.1], lean=[0, 0])
    calibrated = BatchCalibrator.fit(raw).apply(raw)
    assert accuracy(calibrated, truth) > accuracy(raw, truth) - 0.005
    assert calibrated[:, 0].mean() == pytest.approx(0.9, abs=0.03)


def test_posteriors_that_say_nothing_are_left_alone():
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


def test_too_sure_posteriors_are_tempered_by_human_labels():
    modest, truth = leaning(3000, [0.5, 0.5], lean=[0, 0], sharp=1.0)
    sure = modest**5 / (modest**5).sum(axis=1, keepdims=True)
    fitted = fit_label_calibration(sure[:200], truth[:200], np.random.default_rng(0))
    assert fitted.sharpness == pytest.approx(0.2, abs=0.1)
    assert fitted.n_labels == 200
    assert fitted.ece_after < fitted.ece_before / 2


def test_fewer_than_twenty_labels_change_nothing():
    raw, truth = leaning(19, [0.5, 0.5], lean=[0, 0])
    fitted = fit_label_calibration(raw, truth, np.random.default_rng(0))
    np.testing.assert_allclose(fitted.apply(raw), raw)
    assert fitted.ece_before is None


def test_twenty_labels_of_one_class_do_not_rule_the_other_out():
    raw = np.tile([0.5, 0.5], (20, 1))
    fitted = fit_label_calibration(raw, np.zeros(20, dtype=int), np.random.default_rng(0))
    assert 0.6 < fitted.apply(raw)[0, 0] < 0.99


def test_label_calibration_is_repeatable_and_survives_json():
    raw, truth = leaning(40, [0.3, 0.3, 0.4], lean=[0, 1, 0])
    first = fit_label_calibration(raw, truth, np.random.default_rng(3))
    assert first == fit_label_calibration(raw, truth, np.random.default_rng(3))
    assert LabelCalibration.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_confidence_is_tempered_to_an_estimated_accuracy():
    raw, _ = leaning(500, [0.5, 0.5], lean=[0, 0])
    tempered = softmax(temper_to_accuracy(raw, 0.7) * np.log(raw), axis=1)
    assert tempered.max(axis=1).mean() == pytest.approx(0.7, abs=1e-3)
    assert temper_to_accuracy(np.full((3, 2), 0.5), 0.9) == pytest.approx(50)
    assert temper_to_accuracy(np.empty((0, 2)), 0.9) == 1.0
    assert temper_to_accuracy(raw, 0.5) == pytest.approx(0.02)
