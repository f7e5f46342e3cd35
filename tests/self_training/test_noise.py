"""Noise: hand-computed cases, properties, edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.self_training import noise


def test_the_combined_posterior_is_the_product_over_the_prior():
    weak = np.array([[0.8, 0.2], [0.5, 0.5]])
    crossed = np.array([[0.6, 0.4], [0.2, 0.8]])  # prior 0.4, 0.6
    first = np.array([0.8 * 0.6 / 0.4, 0.2 * 0.4 / 0.6])
    second = np.array([0.5 * 0.2 / 0.4, 0.5 * 0.8 / 0.6])
    expected = np.stack([first / first.sum(), second / second.sum()])
    np.testing.assert_allclose(noise.bayes_combine(weak, crossed), expected)


def test_with_exponent_0_the_prediction_counts_for_nothing():
    weak = np.array([[0.8, 0.2]])
    np.testing.assert_allclose(noise.bayes_combine(weak, np.array([[0.1, 0.9]]), exponent=0), weak)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
    st.floats(0, 3),
)
def test_a_combined_posterior_is_a_distribution(pairs, exponent):
    first, second = np.array(pairs).T
    combined = noise.bayes_combine(
        np.stack([first, 1 - first], axis=1),
        np.stack([second, 1 - second], axis=1),
        exponent=exponent,
    )
    assert np.isfinite(combined).all()
    np.testing.assert_allclose(combined.sum(axis=1), 1)


def test_equal_texts_share_a_fold_and_folds_are_alike():
    labels = np.array([0, 1] * 30)
    keys = [f"text {row // 2}" for row in range(60)]
    folds = noise.assign_folds(keys, labels, n_folds=3, rng=np.random.default_rng(0))
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [20, 20, 20]


def test_more_folds_than_texts_leave_folds_empty():
    folds = noise.assign_folds(["a"], np.array([0]), n_folds=5, rng=np.random.default_rng(0))
    assert folds.tolist() == [0]


def test_large_losses_are_not_clean():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.1, 0.02, 80), rng.normal(3, 0.3, 20)])
    clean = noise.small_loss_score(losses, seed=0)
    assert (clean[:80] > 0.9).all()
    assert (clean[80:] < 0.1).all()


@pytest.mark.parametrize("n_texts", [0, 1, 2, 5])
def test_equal_losses_separate_nothing(n_texts):
    assert noise.small_loss_score(np.full(n_texts, 0.7), seed=0).tolist() == [1.0] * n_texts


def test_the_transition_matrix_finds_which_class_is_mislabelled():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000)
    given_labels = np.where((truth == 1) & (rng.random(4000) < 0.3), 0, truth)
    sure = np.where(rng.random(4000) < 0.95, truth, 1 - truth)
    crossed = np.stack([np.where(sure == 0, 0.9, 0.1), np.where(sure == 1, 0.9, 0.1)], axis=1)
    matrix = noise.transition_matrix(given_labels, crossed)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert matrix[1, 0] == pytest.approx(0.3, abs=0.06)
    assert matrix[0, 1] < 0.12


def test_the_transition_matrix_of_one_class_is_the_identity():
    matrix = noise.transition_matrix(np.zeros(5, dtype=int), np.full((5, 3), 1 / 3))
    np.testing.assert_array_equal(matrix, np.eye(3))


def test_a_class_that_is_never_given_keeps_its_own_label():
    labels = np.array([0, 2] * 20)
    crossed = np.eye(3)[labels] * 0.7 + 0.1
    np.testing.assert_allclose(noise.transition_matrix(labels, crossed)[1], [0, 1, 0])


def test_predictions_of_noisy_labels_are_deconvolved_to_the_true_ones():
    matrix = np.array([[0.8, 0.2], [0.4, 0.6]])
    true = np.array([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5]])
    np.testing.assert_allclose(noise.deconvolve_noise(true @ matrix, matrix), true, atol=0.02)


def test_a_prediction_that_no_truth_explains_becomes_the_nearest():
    matrix = np.array([[0.8, 0.2], [0.4, 0.6]])
    np.testing.assert_allclose(
        noise.deconvolve_noise(np.array([[0.9, 0.1]]), matrix), [[1, 0]], atol=1e-3
    )


@given(
    st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 1.0])
)
def test_a_deconvolved_prediction_is_a_distribution(n_classes, n_texts, seed, alpha):
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.full(n_classes, alpha), size=n_classes)
    predicted = rng.dirichlet(np.full(n_classes, alpha), size=n_texts)
    true = noise.deconvolve_noise(predicted, matrix)
    assert np.isfinite(true).all()
    np.testing.assert_allclose(true.sum(axis=1), 1)
    np.testing.assert_allclose(
        noise.deconvolve_noise(predicted, np.eye(n_classes)), predicted, atol=1e-4
    )


def test_neighbors_are_weighted_by_cosine_without_the_text_itself():
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=float)
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float)
    posterior = noise.neighbor_posterior(vectors, targets, np.ones(4, dtype=bool), n_neighbors=2)
    np.testing.assert_allclose(posterior[0], [1, 0])
    np.testing.assert_allclose(posterior[1], [0.8 / 1.4, 0.6 / 1.4])
    np.testing.assert_allclose(posterior[3], [0.5, 0.5])


def test_equal_vectors_are_no_neighbors():
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8]], dtype=float)
    targets = np.array([[1, 0], [1, 0], [0, 1]], dtype=float)
    posterior = noise.neighbor_posterior(vectors, targets, np.ones(3, dtype=bool), n_neighbors=2)
    np.testing.assert_allclose(posterior[0], [0, 1])


def test_a_text_alone_has_no_neighbors():
    posterior = noise.neighbor_posterior(
        np.ones((1, 2)), np.array([[1.0, 0.0]]), np.ones(1, dtype=bool), n_neighbors=5
    )
    np.testing.assert_allclose(posterior, [[0.5, 0.5]])


def test_label_issues_are_ranked_by_score_then_by_id():
    clean = np.array([0.9, 0.2, 0.2, 0.1])
    has_label = np.array([True, True, True, False])
    assert noise.label_issues(clean, has_label, [5, 9, 7, 1]).tolist() == [2, 1, 0]


def test_an_uninformative_prediction_does_not_change_the_pool():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    targets = np.eye(3)[labels]
    expert = 0.7 * np.eye(3)[np.where(rng.random(400) < 0.7, labels, (labels + 1) % 3)] + 0.1
    guess = rng.dirichlet(np.ones(3), 400)
    has_label = np.ones(400, dtype=bool)
    alone = noise.log_opinion_pool([expert], targets, has_label)
    pooled = noise.log_opinion_pool([expert, guess], targets, has_label)
    assert (pooled.argmax(axis=1) == alone.argmax(axis=1)).mean() > 0.98
    np.testing.assert_allclose(pooled.sum(axis=1), 1)


def test_a_prediction_given_twice_does_not_count_twice():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 500)
    expert = 0.6 * np.eye(2)[np.where(rng.random(500) < 0.8, labels, 1 - labels)] + 0.2
    has_label = np.ones(500, dtype=bool)
    once = noise.log_opinion_pool([expert], np.eye(2)[labels], has_label)
    twice = noise.log_opinion_pool([expert, expert], np.eye(2)[labels], has_label)
    np.testing.assert_allclose(twice, once, atol=0.01)


def test_without_labels_predictions_count_alike():
    predictions = [np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])]
    pooled = noise.log_opinion_pool(predictions, np.zeros((1, 2)), np.zeros(1, dtype=bool))
    np.testing.assert_allclose(pooled, [[0.5, 0.5]], atol=1e-6)


def test_disagreement_is_noise_where_the_model_is_confident_and_else_its_own_weakness():
    labels = np.zeros(100, dtype=int)
    sure, unsure = np.linspace(0.99, 0.8, 50), np.linspace(0.7, 0.6, 50)
    right = np.stack([np.r_[sure, unsure], 1 - np.r_[sure, unsure]], axis=1)
    weak = right.copy()
    weak[60:90] = weak[60:90, ::-1]
    assert noise.label_noise_share(labels, weak) == 0.0
    noisy = right.copy()
    noisy[::10] = noisy[::10, ::-1]
    assert noise.label_noise_share(labels, noisy) == pytest.approx(1.0)
    assert noise.label_noise_share(labels, right) == 1.0
