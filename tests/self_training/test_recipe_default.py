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
def context(tiny_base: str) -> TrainingContext:
    recipe = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)
    return TrainingContext(training_set(*reviews(200)), recipe, tiny_base, 0, TrainingHooks())


def judged(context: TrainingContext, by_folds: np.ndarray | None) -> LabelQuality:
    targets = context.data.targets
    return LabelQuality(targets, targets, np.ones(len(targets)), by_folds)


def test_a_model_no_worse_than_its_folds_is_shipped_without_a_plain_training(context):
    model = context.fresh()
    wrong = 1 - context.data.targets
    shipped, figures, notes = compare_with_plain(context, model, judged(context, wrong), HELD_OUT)
    assert shipped is model
    assert figures["held_out_agreement"] >= figures["held_out_agreement_folds"] == 0
    assert notes == () and "plain" not in context.seconds


def untrained(
    context: TrainingContext, targets: np.ndarray, rows: np.ndarray, *, is_started: bool
) -> np.ndarray:
    """Return what a model says before it was trained to speak of."""
    recipe = replace(context.recipe, learning_rate=1e-9, n_epochs=1, start_from_probe=is_started)
    context = replace(context, recipe=recipe)
    return context.answers(
        context.fit("one", TrainingTargets(rows, targets, np.ones(len(targets))))
    )


def test_a_training_starts_from_what_a_probe_says(context):
    targets, rows = context.data.targets, np.arange(200)
    started = untrained(context, targets, rows, is_started=True)
    stock = untrained(context, targets, rows, is_started=False)
    gain = np.log(started[targets == 1]) - np.log(stock[targets == 1])
    assert gain.mean() > 0.02


def test_a_start_hears_no_label_outside_its_lesson(context):
    targets, rows = context.data.targets, np.arange(100)
    others = np.where(np.arange(200)[:, None] < 100, targets, 1 - targets)
    first = untrained(context, targets, rows, is_started=True)
    np.testing.assert_array_equal(first, untrained(context, others, rows, is_started=True))


def test_a_lead_of_one_text_is_no_reason_for_a_plain_training(context):
    model = context.fresh()
    ours = context.answers(model)
    kept = (ours[HELD_OUT].argmax(axis=1) == context.data.hard_labels[HELD_OUT]).nonzero()[0]
    assert 0 < len(kept) < len(HELD_OUT)
    wrong = next(row for row in range(len(HELD_OUT)) if row not in kept)
    folds = ours.copy()
    folds[HELD_OUT[wrong]] = folds[HELD_OUT[wrong]][::-1]
    shipped, figures, _ = compare_with_plain(context, model, judged(context, folds), HELD_OUT)
    assert shipped is model and "plain" not in context.seconds
    assert figures["held_out_agreement_folds"] > figures["held_out_agreement"]


@pytest.mark.parametrize("has_folds", [True, False])
def test_a_model_that_learned_nothing_gives_way_to_the_plain_one(context, has_folds):
    model = context.fresh()
    right = context.data.targets if has_folds else None
    shipped, figures, notes = compare_with_plain(context, model, judged(context, right), HELD_OUT)
    assert shipped is not model
    assert figures["held_out_agreement_plain"] > figures["held_out_agreement"]
    assert len(notes) == 1 and context.seconds["plain"] > 0


def test_people_decide_between_the_models_where_they_labelled_held_out_texts(context):
    is_human = np.zeros(200, dtype=bool)
    is_human[HELD_OUT[:5]] = True
    context.data = replace(context.data, is_human=is_human)
    right = judged(context, context.data.targets)
    _, figures, _ = compare_with_plain(context, context.fresh(), right, HELD_OUT)
    assert figures["n_held_out"] == 5
