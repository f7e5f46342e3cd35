"""Which model the default recipe ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.core.small_model import Recipe, TrainingHooks
from backend.slm.desk import Desk, Lesson
from backend.slm.model import Transformer
from backend.slm.self_training import Judgement, compare_with_plain, judge, refined_lesson
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


def untrained(desk: Desk, targets: np.ndarray, rows: np.ndarray, *, is_started: bool) -> np.ndarray:
    """Return what a model says before it was trained to speak of."""
    recipe = replace(desk.recipe, learning_rate=1e-9, n_epochs=1, start_from_probe=is_started)
    desk = replace(desk, recipe=recipe)
    return desk.answers(desk.fit("one", Lesson(rows, targets, np.ones(len(targets)))))


def test_a_training_starts_from_what_a_probe_says(desk):
    targets, rows = desk.data.targets, np.arange(200)
    started = untrained(desk, targets, rows, is_started=True)
    stock = untrained(desk, targets, rows, is_started=False)
    gain = np.log(started[targets == 1]) - np.log(stock[targets == 1])
    assert gain.mean() > 0.02


def test_a_start_hears_no_label_outside_its_lesson(desk):
    targets, rows = desk.data.targets, np.arange(100)
    others = np.where(np.arange(200)[:, None] < 100, targets, 1 - targets)
    first = untrained(desk, targets, rows, is_started=True)
    np.testing.assert_array_equal(first, untrained(desk, others, rows, is_started=True))


def test_a_text_counts_by_its_lead_and_a_persons_label_as_often_as_asked(desk):
    given = desk.data.targets
    heard = replace(judged(desk, None), posterior=np.where(given == 1, 0.75, 0.25))
    is_human = np.arange(200) == 0
    lesson = refined_lesson(replace(desk.data, is_human=is_human), heard, desk.recipe)
    np.testing.assert_array_equal(lesson.targets, heard.posterior)
    np.testing.assert_allclose(lesson.weights[1:], 0.5)
    assert lesson.weights[0] == desk.recipe.human_weight


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


def test_a_lead_of_one_text_is_no_reason_for_a_plain_training(desk):
    model = desk.fresh()
    ours = desk.answers(model)
    kept = (ours[HELD_OUT].argmax(axis=1) == desk.data.hard_labels[HELD_OUT]).nonzero()[0]
    assert 0 < len(kept) < len(HELD_OUT)
    wrong = next(row for row in range(len(HELD_OUT)) if row not in kept)
    folds = ours.copy()
    folds[HELD_OUT[wrong]] = folds[HELD_OUT[wrong]][::-1]
    shipped, figures, _ = compare_with_plain(desk, model, judged(desk, folds), HELD_OUT)
    assert shipped is model and "plain" not in desk.seconds
    assert figures["held_out_agreement_folds"] > figures["held_out_agreement"]


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
