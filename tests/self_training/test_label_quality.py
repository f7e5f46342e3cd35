"""Assessing and refining noisy labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.questions import QuestionKind
from backend.domain.student import Recipe, TrainingHooks, TrainingSet
from backend.self_training.label_quality import (
    LabelQuality,
    assess_labels,
    cross_fitted_quality,
    refined_targets,
)
from backend.self_training.self_trainer import SelfTrainer
from backend.self_training.training_context import TrainingContext
from tests.self_training.bag_of_words import BagOfWordsEncoder
from tests.self_training.conftest import reviews, training_set

ENOUGH = 300


def test_weights_follow_confidence_and_a_persons_label_has_its_own():
    data, recipe = training_set(*reviews(200)), Recipe()
    quality = LabelQuality(data.targets, np.where(data.targets == 1, 0.75, 0.25), np.ones(200))
    is_human = np.arange(200) == 0
    targets = refined_targets(replace(data, is_human=is_human), quality, recipe)
    np.testing.assert_array_equal(targets.targets, quality.posterior)
    np.testing.assert_allclose(targets.weights[1:], 0.5)
    assert targets.weights[0] == recipe.human_weight


def test_a_label_that_is_often_wrong_counts_less_for_a_rare_class():
    rng = np.random.default_rng(0)
    gold = (rng.random(1000) < 0.1).astype(int)
    given = np.where((gold == 0) & (rng.random(1000) < 0.1), 1, gold)
    data = training_set(tuple(str(n) for n in range(1000)), given)
    crossed = np.where(gold[:, None] == np.arange(2), 0.95, 0.05)
    crossed[:10] = crossed.mean(axis=0)
    found = assess_labels(data, Recipe(), crossed)
    doubtful = [row for row in range(10) if given[row] == 1]
    sure = [row for row in range(10) if given[row] == 0]
    assert (found.score[sure] > 0.9).all()
    assert all(found.score[row] < 0.7 for row in doubtful)


def predicted(*, n_texts: int = 1000) -> tuple[np.ndarray, TrainingSet, np.ndarray]:
    """Return true labels, ones of which a third was changed, and predictions of the latter."""
    rng = np.random.default_rng(0)
    gold = rng.integers(2, size=n_texts)
    given = np.where(rng.random(n_texts) < 1 / 3, 1 - gold, gold)
    predictions = np.where(gold[:, None] == np.arange(2), 2 / 3, 1 / 3)
    return gold, training_set(tuple(str(n) for n in range(n_texts)), given), predictions


def test_predictions_of_noisy_labels_are_deconvolved():
    gold, data, crossed = predicted()
    kept = assess_labels(data, Recipe(deconvolve_noise=False), crossed)
    corrected = assess_labels(data, Recipe(), crossed)
    assert (kept.posterior.argmax(axis=1) == gold).mean() < 0.9
    assert (corrected.posterior.argmax(axis=1) == gold).mean() > 0.99
    np.testing.assert_array_equal(corrected.cross_fitted, crossed)


def test_predictions_learned_from_posteriors_are_not_deconvolved():
    _, data, crossed = predicted()
    soft = replace(data, targets=np.where(data.targets == 1, 0.8, 0.2))
    with_it = assess_labels(soft, Recipe(), crossed)
    without = assess_labels(soft, Recipe(deconvolve_noise=False), crossed)
    np.testing.assert_array_equal(with_it.posterior, without.posterior)


def test_beside_posteriors_only_one_hot_labels_are_deconvolved():
    _, data, crossed = predicted()
    is_soft, is_open = np.arange(1000) < 300, np.arange(1000) >= 900
    targets = np.where(is_soft[:, None], 0.2 + 0.6 * data.targets, data.targets)
    mixed = replace(data, targets=targets, has_label=~is_open)
    found = assess_labels(mixed, Recipe(), crossed).posterior
    bare = assess_labels(mixed, Recipe(deconvolve_noise=False), crossed).posterior
    np.testing.assert_allclose(found[is_open], bare[is_open], atol=0.05)
    assert np.abs(found - bare)[~is_soft & ~is_open].max() > 0.3


def test_a_text_without_a_label_is_deconvolved_where_all_labels_are_one_hot():
    _, data, crossed = predicted()
    is_open = np.arange(1000) >= 900
    found = assess_labels(replace(data, has_label=~is_open), Recipe(), crossed).posterior
    assert found[is_open].max(axis=1).mean() > 0.9


def assess(tiny_base: str, data: TrainingSet) -> tuple[LabelQuality, list[str]]:
    """Assess a pool; return the stages that were trained, too."""
    recipe = Recipe(n_epochs=1, batch_size=100, n_neighbors=0, max_tokens=16)
    stages: list[str] = []
    hooks = TrainingHooks(on_progress=lambda progress: stages.append(progress.stage))
    context = TrainingContext(data, recipe, tiny_base, 0, hooks)
    return cross_fitted_quality(context, np.random.default_rng(0)), sorted(set(stages))


ONCE = ["round 1 fold 1", "round 1 fold 2"]


def test_many_one_hot_labels_are_cross_fitted_twice(tiny_base):
    data = training_set(*reviews(ENOUGH))
    found, stages = assess(tiny_base, data)
    assert stages == [*ONCE, "round 2 fold 1", "round 2 fold 2"]
    assert found.fold_predictions is not None
    assert not np.array_equal(found.fold_predictions, found.cross_fitted)


def test_few_labels_and_posteriors_are_cross_fitted_once(tiny_base):
    few = training_set(*reviews(ENOUGH - 1))
    found, stages = assess(tiny_base, few)
    assert stages == ONCE
    np.testing.assert_array_equal(found.fold_predictions, found.cross_fitted)
    many = training_set(*reviews(ENOUGH))
    soft = replace(many, targets=0.1 + 0.8 * many.targets)
    assert assess(tiny_base, soft)[1] == ONCE


def test_labels_by_people_alone_are_cross_fitted_once(tiny_base):
    data = training_set(*reviews(ENOUGH))
    people = replace(data, is_human=np.ones(ENOUGH, dtype=bool))
    assert assess(tiny_base, people)[1] == ONCE


def test_where_several_labels_may_hold_they_are_cross_fitted_once(tiny_base):
    data = replace(training_set(*reviews(ENOUGH)), kind=QuestionKind.MULTIPLE_CHOICE)
    assert assess(tiny_base, data)[1] == ONCE


@pytest.mark.parametrize(("n_texts", "n_labels"), [(3, 8), (20, 1), (30, 3)])
def test_embedding_predictions_take_any_pool(tiny_base, n_texts, n_labels):
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
