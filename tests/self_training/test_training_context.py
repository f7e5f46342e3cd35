"""What the stages of one training share: the initialized head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.student import Recipe, TrainingHooks
from backend.self_training.training_context import TrainingContext, TrainingTargets
from tests.self_training.conftest import reviews, training_set


@pytest.fixture
def context(tiny_base: str) -> TrainingContext:
    recipe = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)
    return TrainingContext(training_set(*reviews(200)), recipe, tiny_base, 0, TrainingHooks())


def predictions_at_start(
    context: TrainingContext, targets: np.ndarray, rows: np.ndarray, *, has_probe: bool
) -> np.ndarray:
    """Return the predictions of a model that has hardly been trained."""
    recipe = replace(context.recipe, learning_rate=1e-9, n_epochs=1, init_head_from_probe=has_probe)
    context = replace(context, recipe=recipe)
    model = context.fine_tune("one", TrainingTargets(rows, targets, np.ones(len(targets))))
    return context.predict(model).probabilities


def test_a_training_starts_from_the_probes_predictions(context):
    targets, rows = context.data.targets, np.arange(200)
    initialized = predictions_at_start(context, targets, rows, has_probe=True)
    random = predictions_at_start(context, targets, rows, has_probe=False)
    gain = np.log(initialized[targets == 1]) - np.log(random[targets == 1])
    assert gain.mean() > 0.02


def test_the_initial_probe_sees_no_label_outside_its_rows(context):
    targets, rows = context.data.targets, np.arange(100)
    others = np.where(np.arange(200)[:, None] < 100, targets, 1 - targets)
    first = predictions_at_start(context, targets, rows, has_probe=True)
    np.testing.assert_array_equal(
        first, predictions_at_start(context, others, rows, has_probe=True)
    )
