from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from backend.label_model.class_shares import (
    expected_shares,
    move_to_shares,
    share_by_agreement,
    shares_by_agreement,
)


def two_annotators(share, n, *, apart=2.0, seed=0, tail=0.0):
    """Return scores of two annotators (n,) that err independently, the first with a tail."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < share * n
    first = rng.normal(size=n) + apart * truth - tail * rng.exponential(size=n)
    return [first, rng.normal(size=n) + apart * truth]


def test_expected_shares_trust_an_even_annotator_more_than_a_one_sided_one():
    even, one_sided = np.array([[0.6, 0.4]]), np.array([[0.001, 0.999], [0.003, 0.997]])
    assert expected_shares([even])[0] == pytest.approx(0.55, abs=0.01)  # half of the log-odds
    assert 0.5 < expected_shares([even, one_sided])[0] < 0.55
    assert expected_shares([one_sided])[0] > 0.4
    np.testing.assert_allclose(expected_shares([np.full((4, 3), 1 / 3)]), 1 / 3)


def test_scores_are_moved_until_the_first_guess_has_the_shares():
    scores = np.random.default_rng(0).normal(size=(200, 3))
    shares = np.array([0.7, 0.2, 0.1])
    moved = move_to_shares(scores, shares)
    np.testing.assert_allclose(softmax(2 * moved, axis=1).mean(axis=0), shares, atol=1e-3)
    np.testing.assert_allclose(moved - scores, (moved - scores)[:1].repeat(200, axis=0))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_the_share_is_where_two_annotators_tell_most_about_each_other(share):
    first, second = two_annotators(share, 1000)
    found = share_by_agreement(first, [second], 0.5)
    assert found == pytest.approx(share, abs=0.06)


def test_a_long_tail_of_scores_is_no_class():
    tailed, other = two_annotators(0.5, 1000, tail=2.0)
    assert share_by_agreement(tailed, [other], 0.5) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("expected", [0.3, 0.5])
def test_unrelated_annotators_leave_the_share_about_where_it_was(expected):
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(20, 2, 300))
    found = [share_by_agreement(one, [other], expected) for one, other in scores]
    assert np.mean(found) == pytest.approx(expected, abs=0.1)


def test_texts_of_one_score_have_one_label_in_whatever_order_they_come():
    first, second = two_annotators(0.3, 400)
    answers = np.where(first > 1, 0.8, 0.2)
    order = np.random.default_rng(1).permutation(400)
    found = share_by_agreement(second, [answers], 0.5)
    assert share_by_agreement(second[order], [answers[order]], 0.5) == pytest.approx(found)
    assert found == pytest.approx(answers.tolist().count(0.8) / 400, abs=0.1)


def test_shares_of_more_classes_or_of_separate_texts_are_the_expected_ones():
    one, other = (np.random.default_rng(seed).dirichlet(np.ones(3), size=50) for seed in (0, 1))
    np.testing.assert_array_equal(shares_by_agreement(one, [other]), expected_shares([one, other]))
    first, second = (softmax(np.stack([0 * x, x], axis=1), axis=1) for x in two_annotators(0.2, 80))
    apart = [first.copy(), second.copy()]
    apart[0][:40], apart[1][40:] = np.nan, np.nan
    known = [own[np.isfinite(own[:, 0])] for own in apart]
    np.testing.assert_array_equal(shares_by_agreement(apart[0], apart[1:]), expected_shares(known))
    assert shares_by_agreement(first, [second])[1] < expected_shares([first, second])[1]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(2, 4), st.floats(0.01, 0.99), st.integers(0, 99))
def test_any_scores_give_a_share(n, n_annotators, expected, seed):
    scores = np.random.default_rng(seed).normal(size=(n_annotators, n)).round(seed % 3)
    assert 0 < share_by_agreement(scores[0], scores[1:], expected) < 1
