from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.latent_class import (
    LatentClassModel,
    Standardizer,
    contrasts,
    default_inverse_temperature,
    fit_latent_classes,
)


def two_groups(n_first, n_second, *, apart=4.0, seed=0):
    """Return scores (n, 2) around two means, and which of them each row is from."""
    rng = np.random.default_rng(seed)
    truth = np.repeat([0, 1], [n_first, n_second])
    margin = rng.normal(size=len(truth)) + apart * (truth - 0.5)
    margin -= margin.mean()
    return np.stack([-margin, margin], axis=1) / 2, truth


def test_scores_are_log_odds_without_their_mean_and_with_unit_spread():
    probabilities = np.array([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]])
    scores = Standardizer.fit(probabilities).transform(probabilities)
    np.testing.assert_allclose(scores[:, 1], [-np.sqrt(1.5), np.sqrt(1.5), 0], atol=1e-12)
    assert (scores**2).mean() == pytest.approx(1)


def test_the_posterior_is_bayes_rule_for_bell_curves():
    model = LatentClassModel(np.array([0.75, 0.25]), np.array([[-1.0], [1.0]]), np.array([[1.0]]))
    odds = np.exp(model.log_posterior(np.array([[0.5]])))[0]
    assert odds[1] / odds[0] == pytest.approx(np.exp(2 * 0.5) / 3)
    pool = partial(model.log_linear_pool, np.array([[0.5]]), np.ones(1))
    np.testing.assert_allclose(np.exp(pool(np.array([False]))), [[0.75, 0.25]])
    np.testing.assert_allclose(softmax(pool(np.array([True])), axis=1), odds[None])


def test_classes_of_unequal_size_are_found_without_labels():
    scores, truth = two_groups(900, 100)
    model = fit_latent_classes(contrasts(scores), scores)
    assert model.shares[0] == pytest.approx(0.9, abs=0.03)
    found = model.log_posterior(contrasts(scores)).argmax(axis=1)
    assert (found == truth).mean() > 0.97


def test_one_group_is_cut_in_the_middle_not_somewhere():
    margin = np.random.default_rng(1).normal(size=1000)
    scores = np.stack([-margin, margin], axis=1)
    model = fit_latent_classes(contrasts(scores), scores)
    assert model.shares[0] == pytest.approx(0.5, abs=0.1)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 99))
def test_any_posteriors_give_finite_posteriors_that_sum_to_one(n, k, seed):
    probabilities = np.random.default_rng(seed).dirichlet(np.full(k, 0.2), size=n)
    scores = Standardizer.fit(probabilities).transform(probabilities)
    model = fit_latent_classes(contrasts(scores), scores)
    posterior = np.exp(model.log_posterior(contrasts(scores)))
    assert np.isfinite(posterior).all()
    np.testing.assert_allclose(posterior.sum(axis=1), 1)


def test_a_model_survives_json():
    scores, _ = two_groups(50, 50)
    model = fit_latent_classes(contrasts(scores), scores)
    again = LatentClassModel.from_json(json.loads(json.dumps(model.to_json())))
    np.testing.assert_array_equal(
        again.log_posterior(contrasts(scores)), model.log_posterior(contrasts(scores))
    )


def test_more_classes_are_tempered_more():
    assert [default_inverse_temperature(k) for k in (1, 4, 100)] == [1.0, 0.5, 0.1]
