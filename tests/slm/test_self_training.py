"""Which model the default recipe ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.core.small_model import Recipe, TrainingHooks
from backend.slm.desk import Desk
from backend.slm.model import Transformer
from backend.slm.self_training import Judgement, compare_with_plain
from tests.slm.bag_of_words import BagOfWordsEncoder
from tests.slm.conftest import reviews, training_set

HELD_OUT = np.arange(0, 200, 10)


@pytest.fixture
def desk(tiny_base: str) -> Desk:
    recipe = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)
    return Desk(training_set(*reviews(200)), recipe, tiny_base, 0, TrainingHooks())


def judged(desk: Desk, by_folds: np.ndarray | None) -> Judgement:
    targets = desk.data.targets
    return Judgement(targets, targets, np.ones(len(targets)), by_folds)


def test_a_model_no_worse_than_its_folds_is_shipped_without_a_plain_training(desk):
    model = desk.fresh()
    wrong = 1 - desk.data.targets
    shipped, figures, notes = compare_with_plain(desk, model, judged(desk, wrong), HELD_OUT)
    assert shipped is model
    assert figures["held_out_agreement"] >= figures["held_out_agreement_folds"] == 0
    assert notes == () and "plain" not in desk.seconds


@pytest.mark.parametrize("has_folds", [True, False])
def test_a_model_that_learned_nothing_gives_way_to_the_plain_one(desk, has_folds):
    model = desk.fresh()
    right = desk.data.targets if has_folds else None
    shipped, figures, notes = compare_with_plain(desk, model, judged(desk, right), HELD_OUT)
    assert shipped is not model
    assert figures["held_out_agreement_plain"] > figures["held_out_agreement"]
    assert len(notes) == 1 and desk.seconds["plain"] > 0


def test_people_decide_between_the_models_where_they_labelled_held_out_texts(desk):
    is_human = np.zeros(200, dtype=bool)
    is_human[HELD_OUT[:5]] = True
    desk.data = replace(desk.data, is_human=is_human)
    right = judged(desk, desk.data.targets)
    _, figures, _ = compare_with_plain(desk, desk.fresh(), right, HELD_OUT)
    assert figures["n_held_out"] == 5


@pytest.mark.parametrize(("n_texts", "n_labels"), [(3, 8), (20, 1), (30, 3)])
def test_opinions_of_the_frozen_encoder_take_any_pool(tiny_base, n_texts, n_labels):
    texts, labels = reviews(n_texts)
    data = training_set(texts, labels % n_labels, n_labels=n_labels)
    data.has_label[:: n_texts - 1] = False
    recipe = Recipe(n_epochs=1, batch_size=16, max_tokens=32)
    _, output = Transformer(tiny_base, recipe=recipe, encoder=BagOfWordsEncoder()).fit(data)
    assert output.posterior.shape == (n_texts, n_labels)
    np.testing.assert_allclose(output.posterior.sum(axis=1), 1)
    np.testing.assert_allclose(output.cross_fitted.sum(axis=1), 1)


def test_the_frozen_encoder_finds_errors_that_an_untrained_model_cannot(tiny_base):
    texts, labels = reviews(200)
    given = labels.copy()
    given[:20] = 1 - given[:20]
    recipe = Recipe(n_epochs=1, batch_size=32, learning_rate=1e-6, max_tokens=32)
    _, output = Transformer(tiny_base, recipe=recipe, encoder=BagOfWordsEncoder()).fit(
        training_set(texts, given)
    )
    assert (output.suspects[:20] < 20).mean() > 0.8
