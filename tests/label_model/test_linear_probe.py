from __future__ import annotations

import json

import numpy as np
import pytest

from backend.label_model.linear_probe import (
    LinearProbe,
    cross_fit_ridge,
    explained_variance,
    fit_probe,
    fit_ridge_probe,
)


def test_a_probe_learns_soft_labels_by_their_weight():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    heavy = fit_probe(vectors, targets, np.array([30.0, 30.0, 1.0])).posterior(vectors)
    assert heavy[0, 0] > 0.8
    assert heavy[1, 1] == pytest.approx(30 / 31, abs=0.05)


def test_without_rows_every_class_is_as_likely():
    probe = fit_probe(np.empty((0, 4)), np.empty((0, 3)), np.empty(0))
    np.testing.assert_allclose(probe.posterior(np.ones((2, 4))), 1 / 3)


def test_a_probe_is_repeatable_and_survives_json():
    rng = np.random.default_rng(0)
    vectors, targets = rng.normal(size=(20, 5)), rng.dirichlet(np.ones(3), size=20)
    first = fit_probe(vectors, targets, np.ones(20))
    again = LinearProbe.from_json(json.loads(json.dumps(first.to_json())))
    np.testing.assert_array_equal(first.posterior(vectors), again.posterior(vectors))
    stored = first.to_json()
    older = LinearProbe.from_json({**stored, "centre": stored.pop("center")})
    np.testing.assert_array_equal(first.posterior(vectors), older.posterior(vectors))
    second = fit_probe(vectors, targets, np.ones(20))
    np.testing.assert_array_equal(first.weights, second.weights)


def test_least_squares_by_hand():
    vectors, targets = np.array([[1.0], [-1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    probe = fit_ridge_probe(vectors, targets, np.ones(2))
    np.testing.assert_allclose(probe.scores(vectors), np.array([[1, -1], [-1, 1]]) / (2 + 5))


def test_least_squares_counts_a_row_by_its_weight_and_scores_have_no_mean():
    rng = np.random.default_rng(0)
    vectors, targets = rng.normal(size=(30, 4)), rng.dirichlet(np.ones(3), size=30)
    twice = fit_ridge_probe(vectors, targets, np.where(np.arange(30) < 5, 2.0, 1.0))
    again = [*range(30), *range(5)]
    doubled = fit_ridge_probe(vectors[again], targets[again], np.ones(35))
    np.testing.assert_allclose(twice.weights, doubled.weights)
    np.testing.assert_allclose(twice.scores(vectors).mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(twice.scores(vectors).sum(axis=1), 0, atol=1e-12)


def test_a_probe_is_as_wide_on_its_own_texts_as_on_others():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 40))
    targets = np.eye(2)[(vectors[:, 0] + rng.normal(size=60) > 0).astype(int)]
    held_out, probe = cross_fit_ridge(vectors, targets, np.ones(60))
    own = probe.scores(vectors)
    assert np.linalg.norm(own) == pytest.approx(np.linalg.norm(held_out))
    assert (own.argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9


def test_embeddings_explain_what_is_linear_in_them_and_no_noise():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 8))
    linear = vectors @ rng.normal(size=(8, 3))
    noise = rng.normal(size=(400, 3))
    assert explained_variance(vectors, linear) > 0.99
    assert explained_variance(vectors, noise) < 0.05
    half = linear / linear.std() + noise / noise.std()
    assert explained_variance(vectors, half) == pytest.approx(0.5, abs=0.1)
    assert explained_variance(vectors, np.zeros((400, 3))) == 0.0
    assert explained_variance(vectors[:1], linear[:1]) == 0.0
