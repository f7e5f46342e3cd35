"""What is found out about noisy labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.questions import QuestionKind
from backend.domain.student import Recipe, TrainingHooks, TrainingSet
from backend.self_training.context import TrainingContext
from backend.self_training.label_quality import (
    LabelQuality,
    cross_validated_quality,
    judge,
    refined_targets,
)
from backend.self_training.self_trainer import SelfTrainer
from tests.self_training.bag_of_words import BagOfWordsEncoder
from tests.self_training.conftest import reviews, training_set

ENOUGH = 300


def test_a_text_counts_by_its_lead_and_a_persons_label_as_often_as_asked():
    data, recipe = training_set(*reviews(200)), Recipe()
    heard = LabelQuality(data.targets, np.where(data.targets == 1, 0.75, 0.25), np.ones(200))
    is_human = np.arange(200) == 0
    targets_ = refined_targets(replace(data, is_human=is_human), heard, recipe)
    np.testing.assert_array_equal(targets_.targets, heard.posterior)
    np.testing.assert_allclose(targets_.weights[1:], 0.5)
    assert targets_.weights[0] == recipe.human_weight


def test_a_label_that_is_given_away_says_less_of_a_rare_class():
    rng = np.random.default_rng(0)
    gold = (rng.random(1000) < 0.1).astype(int)
    given = np.where((gold == 0) & (rng.random(1000) < 0.1), 1, gold)
    data = training_set(tuple(str(n) for n in range(1000)), given)
    crossed = np.where(gold[:, None] == np.arange(2), 0.95, 0.05)
    crossed[:10] = crossed.mean(axis=0)
    found = judge(data, Recipe(), data.targets, crossed)
    doubted = [row for row in range(10) if given[row] == 1]
    sure = [row for row in range(10) if given[row] == 0]
    assert (found.clean[sure] > 0.9).all()
    assert all(found.clean[row] < 0.7 for row in doubted)


def predicted(*, n_texts: int = 1000) -> tuple[np.ndarray, TrainingSet, np.ndarray]:
    """Return true labels, ones of which a third was changed, and predictions of the latter."""
    rng = np.random.default_rng(0)
    gold = rng.integers(2, size=n_texts)
    given = np.where(rng.random(n_texts) < 1 / 3, 1 - gold, gold)
    sure = np.where(gold[:, None] == np.arange(2), 2 / 3, 1 / 3)
    return gold, training_set(tuple(str(n) for n in range(n_texts)), given), sure


def test_predictions_of_noisy_labels_are_taken_back_through_the_noise():
    gold, data, crossed = predicted()
    kept = judge(data, Recipe(deconvolve_noise=False), data.targets, crossed)
    mended = judge(data, Recipe(), data.targets, crossed)
    assert (kept.posterior.argmax(axis=1) == gold).mean() < 0.9
    assert (mended.posterior.argmax(axis=1) == gold).mean() > 0.99
    np.testing.assert_array_equal(mended.cross_fitted, crossed)


def test_what_is_said_of_posteriors_is_not_taken_back():
    _, data, crossed = predicted()
    soft = replace(data, targets=np.where(data.targets == 1, 0.8, 0.2))
    with_it = judge(soft, Recipe(), soft.targets, crossed)
    without = judge(soft, Recipe(deconvolve_noise=False), soft.targets, crossed)
    np.testing.assert_array_equal(with_it.posterior, without.posterior)


def test_beside_posteriors_only_one_hot_labels_are_taken_back():
    _, data, crossed = predicted()
    is_soft, is_open = np.arange(1000) < 300, np.arange(1000) >= 900
    targets = np.where(is_soft[:, None], 0.2 + 0.6 * data.targets, data.targets)
    mixed = replace(data, targets=targets, has_label=~is_open)
    found = judge(mixed, Recipe(), targets, crossed).posterior
    bare = judge(mixed, Recipe(deconvolve_noise=False), targets, crossed).posterior
    np.testing.assert_allclose(found[is_open], bare[is_open], atol=0.05)
    assert np.abs(found - bare)[~is_soft & ~is_open].max() > 0.3


def test_a_text_without_a_label_is_taken_back_where_all_labels_are_one_hot():
    _, data, crossed = predicted()
    is_open = np.arange(1000) >= 900
    found = judge(replace(data, has_label=~is_open), Recipe(), data.targets, crossed).posterior
    assert found[is_open].max(axis=1).mean() > 0.9


def cross_fitted(tiny_base: str, data: TrainingSet) -> tuple[LabelQuality, list[str]]:
    """Judge a pool; return the stages that were trained, too."""
    recipe = Recipe(n_epochs=1, batch_size=100, n_neighbours=0, max_tokens=16)
    stages: list[str] = []
    hooks = TrainingHooks(on_progress=lambda progress: stages.append(progress.stage))
    context = TrainingContext(data, recipe, tiny_base, 0, hooks)
    return cross_validated_quality(context, None, np.random.default_rng(0)), sorted(set(stages))


ONCE = ["round 1 fold 1", "round 1 fold 2"]


def test_one_hot_labels_are_judged_again_after_a_round(tiny_base):
    data = training_set(*reviews(ENOUGH))
    found, stages = cross_fitted(tiny_base, data)
    assert stages == [*ONCE, "round 2 fold 1", "round 2 fold 2"]
    assert found.by_folds is not None
    assert not np.array_equal(found.by_folds, found.cross_fitted)


def test_few_labels_and_posteriors_are_judged_once(tiny_base):
    few = training_set(*reviews(ENOUGH - 1))
    found, stages = cross_fitted(tiny_base, few)
    assert stages == ONCE
    np.testing.assert_array_equal(found.by_folds, found.cross_fitted)
    many = training_set(*reviews(ENOUGH))
    soft = replace(many, targets=0.1 + 0.8 * many.targets)
    assert cross_fitted(tiny_base, soft)[1] == ONCE


def test_labels_that_people_alone_gave_are_judged_once(tiny_base):
    data = training_set(*reviews(ENOUGH))
    people = replace(data, is_human=np.ones(ENOUGH, dtype=bool))
    assert cross_fitted(tiny_base, people)[1] == ONCE


def test_where_several_labels_may_hold_they_are_judged_once(tiny_base):
    data = replace(training_set(*reviews(ENOUGH)), kind=QuestionKind.MULTIPLE_CHOICE)
    assert cross_fitted(tiny_base, data)[1] == ONCE


@pytest.mark.parametrize(("n_texts", "n_labels"), [(3, 8), (20, 1), (30, 3)])
def test_opinions_of_the_frozen_encoder_take_any_pool(tiny_base, n_texts, n_labels):
    texts, labels = reviews(n_texts)
    data = training_set(texts, labels % n_labels, n_labels=n_labels)
    data.has_label[:: n_texts - 1] = False
    recipe = Recipe(n_epochs=1, batch_size=16, max_tokens=32)
    _, output = SelfTrainer(tiny_base, recipe=recipe, encoder=BagOfWordsEncoder()).fit(data)
    assert output.posterior.shape == (n_texts, n_labels)
    np.testing.assert_allclose(output.posterior.sum(axis=1), 1)
    np.testing.assert_allclose(output.cross_fitted.sum(axis=1), 1)


def test_the_frozen_encoder_finds_errors_that_an_untrained_model_cannot(tiny_base):
    texts, labels = reviews(200)
    given = labels.copy()
    given[:20] = 1 - given[:20]
    recipe = Recipe(n_epochs=1, batch_size=32, learning_rate=1e-6, max_tokens=32)
    _, output = SelfTrainer(tiny_base, recipe=recipe, encoder=BagOfWordsEncoder()).fit(
        training_set(texts, given)
    )
    assert (output.label_issues[:20] < 20).mean() > 0.8
