"""What the stages of one training share: the initialized head, agreement with labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, Recipe, TrainingHooks, TrainingSet
from backend.self_training.training_context import (
    TrainingContext,
    TrainingTargets,
    label_agreement,
)
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


def test_several_labels_start_from_their_probes_without_being_asked_to(tiny_base):
    texts = reviews(200)
    data = training_set(*texts)
    context = TrainingContext(
        replace(data, kind=QuestionKind.MULTIPLE_CHOICE),
        Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32),
        tiny_base,
        0,
        TrainingHooks(),
    )
    by_default, as_asked = (
        predictions_at_start(context, data.targets, np.arange(200), has_probe=has_probe)
        for has_probe in (False, True)
    )
    np.testing.assert_array_equal(by_default, as_asked)
    holds = data.targets == 1
    assert by_default[holds].mean() > by_default[~holds].mean() + 0.02


def test_a_model_that_claims_no_label_does_not_agree_with_labels_that_hold(context):
    n_labels = 50
    targets = np.zeros((4, n_labels))
    targets[:3, 0] = 1
    data = TrainingSet(
        PoolTexts((1, 2, 3, 4), ("a", "b", "c", "d")),
        tuple(f"label {n}" for n in range(n_labels)),
        targets,
        np.ones(4, dtype=bool),
        np.zeros(4, dtype=bool),
        kind=QuestionKind.MULTIPLE_CHOICE,
    )
    rows = np.arange(4)
    found = np.zeros((4, n_labels))
    np.testing.assert_array_equal(label_agreement(found, data, rows), [0, 0, 0, 1])
    found[0, 0] = found[1, :2] = found[3, 0] = 1
    np.testing.assert_allclose(label_agreement(found, data, rows), [1, 2 / 3, 0, 0])
