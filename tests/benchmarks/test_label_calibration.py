"""Calibration on human labels, the benchmarks' baseline."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.label_calibration import fit_label_calibration
from benchmarks.scores import expected_calibration_error
from tests.label_model.test_calibration import biased


def test_overconfident_posteriors_are_tempered_by_human_labels():
    modest, truth = biased(3000, [0.5, 0.5], bias=[0, 0], sharp=1.0)
    sure = modest**5 / (modest**5).sum(axis=1, keepdims=True)
    fitted = fit_label_calibration(sure[:200], truth[:200])
    assert fitted.inverse_temperature == pytest.approx(0.2, abs=0.1)
    before = expected_calibration_error(sure[200:], truth[200:])
    assert expected_calibration_error(fitted.apply(sure[200:]), truth[200:]) < before / 2


def test_fewer_than_twenty_labels_change_nothing():
    raw, truth = biased(19, [0.5, 0.5], bias=[0, 0])
    fitted = fit_label_calibration(raw, truth)
    np.testing.assert_allclose(fitted.apply(raw), raw)


def test_twenty_labels_of_one_class_do_not_rule_the_other_out():
    raw = np.tile([0.5, 0.5], (20, 1))
    fitted = fit_label_calibration(raw, np.zeros(20, dtype=int))
    assert 0.6 < fitted.apply(raw)[0, 0] < 0.99
