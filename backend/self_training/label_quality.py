"""Assess noisy labels by predictions that did not see them, and refine them for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.student import (
    Recipe,
    StudentOutput,
    StudentPrediction,
    TrainingReport,
    TrainingSet,
)
from backend.self_training import noise
from backend.self_training.embedding_probe import cross_fit, embed_pool
from backend.self_training.encoder_files import base_name
from backend.self_training.noise import Floats, assign_folds
from backend.self_training.training_context import TrainingContext, TrainingTargets

N_PROBE_FOLDS = 5
_MIN_WEIGHT = 0.05
_MIN_PROBABILITY = 1e-9
_ONE_HOT_TOLERANCE = 1e-6
_MIN_ONE_HOT, _MIN_ONE_HOT_SHARE = 300, 0.5


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """The quality of all labels of a pool.

    Args:
        cross_fitted: (n, K), predictions by models that did not see the text's label.
        posterior: (n, K), of the true label.
        score: (n,), probability of the given label being right; 0.5 without a label.
        fold_predictions: (n, K), by the first fold models, which learned the labels as given; None
            where there are none.
    """

    cross_fitted: Floats
    posterior: Floats
    score: Floats
    fold_predictions: Floats | None = None


def cross_fitted_quality(context: TrainingContext, rng: np.random.Generator) -> LabelQuality:
    """Cross-fit classifiers, repeatedly where that pays, and assess the labels by them."""
    data, recipe = context.data, context.recipe
    given = data.given_targets(soft=recipe.soft_targets)
    targets = TrainingTargets(np.flatnonzero(data.has_label), given, context.given_weights)
    frozen = _embedding_predictions(context, targets, rng)
    if recipe.n_folds == 0 or len(targets.rows) < 2 * recipe.n_folds:
        return _pooled_quality(data, recipe, frozen)
    # A stage's name seeds its training: another one would change every result.
    first = _cross_fit(context, targets, "round 1", rng)
    quality = _pooled_quality(data, recipe, [*frozen, first])
    # A posterior states its own confidence, and models that learn it again predict the same: so
    # cross-fit again only where most labels are one-hot and they are many.
    n_labelled = (data.has_label & ~data.is_human).sum()
    min_one_hot = max(_MIN_ONE_HOT, _MIN_ONE_HOT_SHARE * n_labelled)
    if data.kind.is_exclusive and _is_one_hot(data, given).sum() >= min_one_hot:
        for repeat in range(1, recipe.n_repeats):
            targets = refined_targets(data, quality, recipe)
            predictions = _cross_fit(context, targets, f"round {repeat + 1}", rng)
            quality = _pooled_quality(data, recipe, [*frozen, predictions])
    return replace(quality, fold_predictions=first)


def _is_one_hot(data: TrainingSet, given: Floats) -> NDArray[np.bool_]:
    """Return which texts have a one-hot label that is not a person's, shape (n,)."""
    is_one_hot: NDArray[np.bool_] = given.max(axis=1) > 1 - _ONE_HOT_TOLERANCE
    return data.has_label & ~data.is_human & is_one_hot


def _cross_fit(
    context: TrainingContext, targets: TrainingTargets, name: str, rng: np.random.Generator
) -> Floats:
    """Return predictions for each text by classifiers that did not see its label, shape (n, K)."""
    data, n_folds = context.data, context.recipe.n_folds
    folds = assign_folds(data.pool.keys, data.hard_labels, n_folds=n_folds, rng=rng)
    out = np.zeros_like(targets.targets)
    for fold in range(n_folds):
        rows = targets.rows[folds[targets.rows] != fold]
        with context.timed("cross-fit"):
            model = context.fine_tune(f"{name} fold {fold + 1}", replace(targets, rows=rows))
            held_out = np.flatnonzero(folds == fold)
            out[held_out] = context.predict(model, held_out).probabilities
    return out


def _embedding_predictions(
    context: TrainingContext, targets: TrainingTargets, rng: np.random.Generator
) -> list[Floats]:
    """Return the neighbors' labels and a probe's predictions in the frozen encoder's space."""
    data, n_neighbors = context.data, context.recipe.n_neighbors
    if not n_neighbors or context.encoder is None or not data.kind.is_exclusive:
        return []
    with context.timed("embed"):
        vectors = embed_pool(context.encoder, data.pool)
    with context.timed("probe and neighbors"):
        probed = cross_fit(data, vectors, targets.weights, n_folds=N_PROBE_FOLDS, rng=rng)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
        near = noise.neighbor_posterior(
            units, targets.targets, data.has_label, n_neighbors=n_neighbors
        )
    return [near, probed]


def _pooled_quality(data: TrainingSet, recipe: Recipe, predictions: list[Floats]) -> LabelQuality:
    """Assess the labels by several cross-fitted predictions; there may be none."""
    if len(predictions) < 2 or not data.kind.is_exclusive:
        return assess_labels(data, recipe, predictions[-1] if predictions else None)
    given = data.given_targets(soft=recipe.soft_targets)
    pooled = noise.log_opinion_pool(predictions, given, data.has_label & ~data.is_human)
    return assess_labels(data, recipe, pooled)


def assess_labels(data: TrainingSet, recipe: Recipe, cross_fitted: Floats | None) -> LabelQuality:
    """Combine labels and predictions to a posterior; without predictions, take the labels.

    A label by a person keeps its target, whatever its score. `cross_fitted`, (n, K), are
    predictions by models that did not see the row's label.
    """
    given = data.given_targets(soft=recipe.soft_targets)
    uniform = np.full_like(given, 1.0 / len(data.labels) if data.kind.is_exclusive else 0.5)
    if cross_fitted is None:
        cross_fitted = uniform
    weak = np.where(data.has_label[:, None], given, uniform)
    exponent = recipe.cross_fitted_weight
    if data.kind.is_exclusive:
        weak, corrected = _correct_noise(data, recipe, weak, cross_fitted)
        posterior = noise.bayes_combine(weak, corrected, exponent=exponent)
        support = posterior[np.arange(len(posterior)), data.hard_labels]
    else:
        posterior = np.empty_like(weak)
        for label, pair in enumerate(zip(weak.T, cross_fitted.T, strict=True)):
            binary = (np.stack([1 - each, each], axis=1) for each in pair)
            posterior[:, label] = noise.bayes_combine(*binary, exponent=exponent)[:, 1]
        is_positive = data.given_targets(soft=False) > 0.5
        support = np.where(is_positive, posterior, 1 - posterior).min(axis=1)
    score = np.where(data.has_label, support, 0.5)
    posterior = np.where(data.is_human[:, None], data.targets, posterior)
    return LabelQuality(cross_fitted, posterior, score)


def _correct_noise(
    data: TrainingSet, recipe: Recipe, weak: Floats, cross_fitted: Floats
) -> tuple[Floats, Floats]:
    """Return posteriors by one-hot labels, and predictions learned from them, noise corrected.

    Both by the estimated transition matrix. A label that is a posterior already, and what is
    predicted of its text, stay as they are. Texts without a label go with one-hot labels where all
    are.
    """
    is_one_hot = _is_one_hot(data, weak)
    if not recipe.estimate_noise or not is_one_hot.any():
        return weak, cross_fitted
    labels = weak[is_one_hot].argmax(axis=1)
    share = noise.label_noise_share(labels, cross_fitted[is_one_hot])
    matrix = noise.transition_matrix(labels, cross_fitted[is_one_hot])
    matrix = share * matrix + (1 - share) * np.eye(len(matrix))
    corrected = cross_fitted
    if recipe.deconvolve_noise:
        is_noisy = is_one_hot | ~data.has_label
        if not (is_noisy | data.is_human).all():
            is_noisy = is_one_hot
        corrected = cross_fitted.copy()
        corrected[is_noisy] = noise.deconvolve_noise(cross_fitted[is_noisy], matrix)
    softened = weak.copy()
    joint = matrix[:, labels].T * corrected.mean(axis=0)
    softened[is_one_hot] = joint / np.maximum(joint.sum(axis=1, keepdims=True), _MIN_PROBABILITY)
    return softened, corrected


def loss_based_quality(context: TrainingContext, probabilities: Floats) -> LabelQuality:
    """Assess labels by the losses (n,) of the model that learned them: FreeAL's global mixture."""
    data = context.data
    given = data.given_targets(soft=False)
    known = np.flatnonzero(data.has_label & ~data.is_human)
    losses = -(given * np.log(np.clip(probabilities, _MIN_PROBABILITY, 1))).sum(axis=1)
    score = np.where(data.has_label, 1.0, 0.5)
    if len(known):
        score[known] = noise.small_loss_score(losses[known], seed=context.seed)
    posterior = np.where(data.has_label[:, None], given, probabilities)
    return LabelQuality(probabilities, posterior, score)


def refined_targets(data: TrainingSet, quality: LabelQuality, recipe: Recipe) -> TrainingTargets:
    """Return the posterior as targets, weighted by confidence.

    A text's weight is its posterior's lead over a uniform one, between 0.05 and 1; a human label
    has the weight that the recipe gives it.
    """
    weights: Floats = np.ones(len(data.pool))
    if recipe.weight_by_confidence and data.kind.is_exclusive and len(data.labels) > 1:
        uniform = 1.0 / len(data.labels)
        lead = (quality.posterior.max(axis=1) - uniform) / (1 - uniform)
        weights = np.clip(lead, _MIN_WEIGHT, 1.0)
    weights = np.where(data.is_human, recipe.human_weight, weights)
    is_used = data.has_label | recipe.keep_abstained
    return TrainingTargets(np.flatnonzero(is_used), quality.posterior, weights)


def student_output(
    context: TrainingContext,
    quality: LabelQuality,
    prediction: StudentPrediction,
    figures: Mapping[str, float] | None = None,
    notes: tuple[str, ...] = (),
) -> StudentOutput:
    """Return predictions and label quality with a report of the training."""
    name, base = context.recipe.name, base_name(context.base)
    report = TrainingReport(name, dict(context.seconds), dict(figures or {}), notes, base)
    data, score = context.data, quality.score
    issues = noise.label_issues(score, data.has_label, data.pool.ids)
    return StudentOutput(prediction, quality.cross_fitted, score, quality.posterior, issues, report)
