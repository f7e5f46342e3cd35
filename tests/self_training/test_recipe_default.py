"""Which model the default recipe ships."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.student import Recipe, TrainingHooks
from backend.self_training.context import TrainingContext, TrainingTargets
from backend.self_training.label_quality import LabelQuality
from backend.self_training.recipe_default import compare_with_plain
from tests.self_training.conftest import reviews, training_set

HELD_OUT = np.arange(0, 200, 10)


@pytest.fixture
def desk(tiny_base: str) -> TrainingContext:
    recipe = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)
    return TrainingContext(training_set(*reviews(200)), recipe, tiny_base, 0, TrainingHooks())


def judged(desk: TrainingContext, by_folds: np.ndarray | None) -> LabelQuality:
    targets = desk.data.targets
    return LabelQuality(targets, targets, np.ones(len(targets)), by_folds)


def test_a_model_no_worse_than_its_folds_is_shipped_without_a_plain_training(desk):
    model = desk.fresh()
    wrong = 1 - desk.data.targets
    shipped, figures, notes = compare_with_plain(desk, model, judged(desk, wrong), HELD_OUT)
    assert shipped is model
    assert figures["held_out_agreement"] >= figures["held_out_agreement_folds"] == 0
    assert notes == () and "plain" not in desk.seconds


def untrained(
    desk: TrainingContext, targets: np.ndarray, rows: np.ndarray, *, is_started: bool
) -> np.ndarray:
    """Return what a model says before it was trained to speak of."""
    recipe = replace(desk.recipe, learning_rate=1e-9, n_epochs=1, start_from_probe=is_started)
    desk = replace(desk, recipe=recipe)
    return desk.answers(desk.fit("one", TrainingTargets(rows, targets, np.ones(len(targets)))))


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
