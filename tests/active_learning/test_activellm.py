from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.active_learning.coverage import kernel
from backend.active_learning.informativeness import ScoredTexts
from backend.active_learning.pool_estimate import ActiveLLMSettings, margin_uncertainty
from backend.active_learning.strategy_interface import PoolView


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def random_pool(n, *, seed=0, **fields):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PoolView(np.arange(10, 10 + n), vectors, **fields)


def ordered(pool, **changes):
    strategy = ActiveLLMStrategy(settings=ActiveLLMSettings(**changes))
    return strategy.order(pool, rng=np.random.default_rng(0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.sets(st.integers(0, 39), max_size=10), st.integers(0, 99))
def test_every_open_task_is_ordered_exactly_once(n, labeled, seed):
    pool = random_pool(n, seed=seed, labeled={at: 0 for at in labeled if at < n})
    ordering = ordered(pool, n_head=7)
    assert sorted(ordering.positions) == sorted(pool.open_positions)
    assert len(ordering.reasons) == len(ordering.positions)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(0, 99))
def test_the_first_tasks_do_not_depend_on_how_many_are_chosen(n_head, seed):
    rng = np.random.default_rng(seed)
    pool = random_pool(40, seed=seed, posteriors=rng.dirichlet(np.ones(3), size=40))
    short, long = ordered(pool, n_head=n_head), ordered(pool, n_head=40)
    assert short.positions[:n_head].tolist() == long.positions[:n_head].tolist()


def test_the_same_pool_and_seed_give_the_same_order():
    pool = random_pool(300)
    first = ordered(pool, n_candidates=100, n_references=50)
    second = ordered(pool, n_candidates=100, n_references=50)
    assert first.positions.tolist() == second.positions.tolist()


def test_the_middle_of_the_larger_group_comes_first_then_the_other_group():
    pool = PoolView(np.arange(5), directions(0, 20, 40, 180, 200))
    assert ordered(pool, width_share=0.2).positions[:2].tolist() == [1, 3]


def test_what_is_labeled_already_is_not_covered_again():
    vectors = directions(0, 10, 20, 180, 200)
    pool = PoolView(np.arange(5), vectors, labeled={1: 0})
    assert ordered(pool, width_share=0.2).positions[0] == 3


def test_ties_go_to_the_lower_example_id():
    pool = PoolView(np.array([4, 9]), directions(0, 90))
    assert ordered(pool).example_ids(pool).tolist() == [4, 9]


def test_near_duplicates_come_last_and_say_what_they_repeat():
    pool = PoolView(np.array([4, 5, 9]), directions(0, 0, 90))
    ordering = ordered(pool)
    assert ordering.positions[-1] == 1
    assert ordering.reasons[-1] == "says nearly the same as task 4"
    assert ordering.diagnostics.n_near_duplicates == 1


def test_a_pinned_task_comes_first_with_its_reason():
    pool = random_pool(6, pinned={4: "looks like an order to the model"})
    ordering = ordered(pool)
    assert ordering.positions[0] == 4
    assert "looks like an order to the model" in ordering.reasons[0]


def test_a_class_below_its_target_is_preferred_to_a_better_covering_text():
    vectors = directions(0, 15, 30, 170)
    sure = np.array([[0.99, 0.01]] * 3 + [[0.01, 0.99]])
    pool = PoolView(np.arange(4), vectors, posteriors=sure, labeled={})
    with_quota = ordered(pool, quota_power=8.0, width_share=5.0, margin_power=0.0)
    without = ordered(pool, quota_power=0.0, width_share=5.0, margin_power=0.0, label_share=0.0)
    assert 3 in with_quota.positions[:2]
    assert 3 not in without.positions[:1]


def test_a_reason_names_the_two_likeliest_labels():
    pool = PoolView(
        np.arange(1),
        directions(0),
        posteriors=np.array([[0.52, 0.44, 0.04]]),
        label_names=("billing", "refund", "other"),
    )
    assert ordered(pool).reasons[0].endswith("unsure: 0.52 billing / 0.44 refund")


def test_a_text_without_a_posterior_is_ordered_too():
    posteriors = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]])
    pool = PoolView(np.arange(3), directions(0, 90, 180), posteriors=posteriors)
    ordering = ordered(pool)
    assert sorted(ordering.positions) == [0, 1, 2]
    assert "nothing is known" in ordering.reasons[ordering.positions.tolist().index(1)]


def test_with_many_labels_the_student_decides_what_is_uncertain():
    annotators = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    small = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    pool = PoolView(
        np.arange(4),
        directions(0, 90, 180, 270),
        posteriors=annotators,
        student_posteriors=small,
        labeled={2: 0, 3: 1},
    )
    cold = ordered(pool, student_half_at=1e6, quota_power=0.0, n_head=0)
    warm = ordered(pool, student_half_at=1e-6, quota_power=0.0, n_head=0)
    assert cold.positions.tolist() == [0, 1]
    assert warm.positions.tolist() == [1, 0]


def test_margin_uncertainty_is_one_less_the_lead_of_the_best_label():
    rows = np.array([[0.7, 0.2, 0.1], [np.nan, np.nan, np.nan]])
    assert margin_uncertainty(rows).tolist() == pytest.approx([0.5, 1.0])


def test_a_pool_has_to_come_in_the_order_of_ids():
    with pytest.raises(ValueError, match="ascend"):
        PoolView(np.array([2, 1]), directions(0, 90))


class FixedScorer:
    """Gives fixed scores."""

    def __init__(self, scores, weight):
        self.scores, self.weight = scores, weight
        self.shortlist = None

    def score(self, pool, shortlist, *, rng):
        self.shortlist = shortlist.tolist()
        return ScoredTexts(self.scores[shortlist], reliability=self.weight, weight=self.weight)


def order_with(scorer, pool, **changes):
    strategy = ActiveLLMStrategy(scorer=scorer, settings=ActiveLLMSettings(**changes))
    return strategy.order(pool, rng=np.random.default_rng(0))


def test_scores_that_are_noise_change_nothing():
    pool = random_pool(30)
    scorer = FixedScorer(np.arange(30) / 29, weight=0.0)
    assert order_with(scorer, pool).positions.tolist() == ordered(pool).positions.tolist()


def test_reliable_scores_move_the_order_and_are_reported():
    pool = random_pool(30)
    favorite = int(ordered(pool).positions[20])
    scorer = FixedScorer((np.arange(30) == favorite).astype(float), weight=1.0)
    ordering = order_with(scorer, pool, scorer_strength=5.0)
    assert ordering.positions[0] == favorite
    assert ordering.diagnostics.judgement_weight == 1.0


def test_the_scorer_reads_a_shortlist_only():
    scorer = FixedScorer(np.zeros(30), weight=0.0)
    order_with(scorer, random_pool(30), n_shortlist=5)
    assert len(scorer.shortlist) == 5


def test_a_sampled_pool_is_covered_nearly_as_well_as_a_whole_one():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(60, 16))
    vectors = centers[rng.integers(60, size=5000)] + 0.4 * rng.normal(size=(5000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pool = PoolView(np.arange(5000), vectors)

    def coverage(**changes):
        head = ordered(pool, n_head=40, duplicate_similarity=0.9999, **changes).positions[:40]
        return kernel((vectors @ vectors[head].T).max(axis=1), 0.75).mean()

    assert coverage(n_candidates=2500, n_references=2000) > 0.98 * coverage()


def prelabeled(share=1.0, **fields):
    """Return 40 texts in a circle that annotators are sure about but for numbers 7 and 30."""
    sure = np.tile([[0.95, 0.05]], (40, 1))
    sure[[7, 30]] = [[0.5, 0.5], [0.4, 0.6]]
    vectors = directions(*np.linspace(0, 350, 40))
    return PoolView(
        np.arange(40), vectors, posteriors=sure, prelabeled_share=share, agreement=0.5, **fields
    )


def test_where_labels_are_there_the_probably_wrong_ones_come_first_with_their_errors():
    ordering = ordered(prelabeled(), duplicate_similarity=2.0)
    assert set(ordering.positions[:2].tolist()) == {7, 30}
    assert "expected errors 0.50" in ordering.reasons[ordering.positions.tolist().index(7)]
    assert ordering.diagnostics.expected_corrections == pytest.approx(0.5 + 0.4 + 38 * 0.05)


def test_where_nobody_has_labeled_clear_texts_come_first():
    ordering = ordered(prelabeled(share=0.0), quota_power=0.0, duplicate_similarity=2.0)
    assert not {7, 30} & set(ordering.positions[:10].tolist())
    assert ordering.diagnostics.expected_corrections is None


def test_expected_errors_of_spans_or_of_several_questions_decide_without_posteriors():
    errors = np.full(40, 0.2)
    errors[[3, 21]], errors[5] = 3.0, np.nan
    ordering = ordered(
        replace(prelabeled(), posteriors=None, expected_errors=errors), duplicate_similarity=2.0
    )
    assert set(ordering.positions[:2].tolist()) == {3, 21}
    assert "expected errors 3.00" in ordering.reasons[0]


def two_groups(**fields):
    """Return 60 texts of one direction and 20 of another, annotators sure of the larger only."""
    vectors = directions(*([0.0] * 60 + [90.0] * 20))
    vectors[:, 0] += np.linspace(0, 0.2, 80, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sure = np.array([[0.99, 0.01]] * 60 + [[0.5, 0.5]] * 20)
    return PoolView(np.arange(80), vectors, posteriors=sure, **fields)


def test_annotators_that_agree_by_chance_are_not_used_before_there_are_labels():
    pool = two_groups(agreement=0.0)
    ordering = ordered(pool, duplicate_similarity=2.0, n_head=8)
    flipped = ordered(
        replace(pool, posteriors=1 - pool.posteriors), duplicate_similarity=2.0, n_head=8
    )
    assert ordering.positions[:8].tolist() == flipped.positions[:8].tolist()
    assert sum(ordering.positions[:8] >= 60) == 2
    assert any("no more than by chance" in warning for warning in ordering.diagnostics.warnings)
    assert "are not used" in ordering.reasons[0]


def test_annotators_that_agree_are_used():
    ordering = ordered(two_groups(agreement=0.4), duplicate_similarity=2.0, n_head=8)
    assert not any("by chance" in warning for warning in ordering.diagnostics.warnings)
    assert "0.99" in ordering.reasons[0]


def test_with_many_labels_annotators_that_agree_by_chance_are_used_again():
    pool = two_groups(agreement=0.0, labeled={at: at % 2 for at in range(70)})
    assert "annotators" in ordered(pool, duplicate_similarity=2.0).reasons[0]
