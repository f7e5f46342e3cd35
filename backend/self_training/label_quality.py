"""What the labels are worth: opinions that did not see a label, joined with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.ports import Encoder
from backend.domain.student import Recipe, TrainingSet
from backend.self_training import embedding_probe as probe
from backend.self_training import noise
from backend.self_training.context import (
    Floats,
    TrainingContext,
    TrainingTargets,
    assign_folds,
    given_targets,
)

_SMALLEST_WEIGHT = 0.05
_SMALLEST_CHANCE = 1e-9
_ONE_HOT_WITHIN = 1e-6
_N_PROBE_FOLDS = 5
_MIN_FOR_ROUNDS, _MOST = 300, 0.5


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """What cross-fitting found: predictions (n, K), the labels' posterior (n, K), clean (n,).

    `by_folds` (n, K) are the predictions of the first fold models, which learned the labels as
    given, None where none were trained.
    """

    cross_fitted: Floats
    posterior: Floats
    clean: Floats
    by_folds: Floats | None = None


def cross_validated_quality(
    context: TrainingContext, encoder: Encoder | None, rng: np.random.Generator
) -> LabelQuality:
    """Return what models think of the labels that they did not see, after all rounds."""
    data, recipe = context.data, context.recipe
    given = given_targets(data, soft=recipe.soft_targets)
    weights = data.has_label * np.where(data.is_human, recipe.human_weight, 1.0)
    targets_ = TrainingTargets(np.flatnonzero(data.has_label), given, weights)
    frozen = _frozen_opinions(context, encoder, given, weights, rng)
    if recipe.n_folds == 0 or len(targets_.rows) < 2 * recipe.n_folds:
        return _heard(data, recipe, given, frozen)
    first = quality = None
    for number in range(_n_rounds(data, recipe, given)):
        answers = _cross_fit(context, targets_, f"round {number + 1}", rng)
        first = answers if first is None else first
        quality = _heard(data, recipe, given, [*frozen, answers])
        targets_ = refined_targets(data, quality, recipe)
    if quality is None:
        raise AssertionError("a recipe has at least one round")
    return replace(quality, by_folds=first)


def _n_rounds(data: TrainingSet, recipe: Recipe, given: Floats) -> int:
    """Return how often to cross-fit: once, unless most labels are one-hot and they are many.

    A posterior says how sure it is, and models that learn it again after a round say the same.
    """
    n_one_hot = _is_one_hot(data, given).sum()
    n_labelled = (data.has_label & ~data.is_human).sum()
    is_worth_it = n_one_hot >= max(_MIN_FOR_ROUNDS, _MOST * n_labelled)
    return recipe.n_rounds if data.kind.is_exclusive and is_worth_it else 1


def _is_one_hot(data: TrainingSet, given: Floats) -> NDArray[np.bool_]:
    """Return which texts have a label, not by a person, that knows no doubt, shape (n,)."""
    is_sure: NDArray[np.bool_] = given.max(axis=1) > 1 - _ONE_HOT_WITHIN
    return data.has_label & ~data.is_human & is_sure


def _cross_fit(
    context: TrainingContext, targets_: TrainingTargets, name: str, rng: np.random.Generator
) -> Floats:
    """Return what models that did not see a text's label say of it, shape (n, K)."""
    n_folds = context.recipe.n_folds
    folds = assign_folds(context.data, n_folds, rng)
    answers = np.zeros_like(targets_.targets)
    for fold in range(n_folds):
        rows = targets_.rows[folds[targets_.rows] != fold]
        with context.clock("cross-fit"):
            model = context.fit(f"{name} fold {fold + 1}", replace(targets_, rows=rows))
            mine = np.flatnonzero(folds == fold)
            answers[mine] = context.answers(model, mine)
    return answers


def _heard(
    data: TrainingSet, recipe: Recipe, given: Floats, opinions: list[Floats]
) -> LabelQuality:
    """Judge the labels by opinions that did not see them; there may be none."""
    if not opinions:
        return judge(data, recipe, given, None)
    if len(opinions) == 1 or not data.kind.is_exclusive:
        return judge(data, recipe, given, opinions[-1])
    pooled = noise.log_opinion_pool(opinions, given, data.has_label & ~data.is_human)
    return judge(data, recipe, given, pooled)


def judge(
    data: TrainingSet, recipe: Recipe, given: Floats, cross_fitted: Floats | None
) -> LabelQuality:
    """Join the labels with predictions that did not see them; without any, believe the labels."""
    n_labels = len(data.labels)
    uniform = np.full_like(given, 1.0 / n_labels if data.kind.is_exclusive else 0.5)
    if cross_fitted is None:
        cross_fitted = uniform
    weak = np.where(data.has_label[:, None], given, uniform)
    if data.kind.is_exclusive:
        weak, unmixed = _through_noise(data, recipe, weak, cross_fitted)
        posterior = noise.join(weak, unmixed, strength=recipe.join_strength)
    else:
        posterior = _join_each(weak, cross_fitted, recipe.join_strength)
    clean = _clean(data, posterior)
    posterior = np.where(data.is_human[:, None], data.targets, posterior)
    return LabelQuality(cross_fitted, posterior, clean)


def in_sample_quality(context: TrainingContext, answers: Floats) -> LabelQuality:
    """Judge labels by the losses of the model that learned them: FreeAL's global mixture."""
    data = context.data
    given = given_targets(data, soft=False)
    known = np.flatnonzero(data.has_label & ~data.is_human)
    losses = -(given * np.log(np.clip(answers, 1e-9, 1))).sum(axis=1)
    clean = np.where(data.has_label, 1.0, 0.5)
    if len(known):
        clean[known] = noise.clean_by_loss(losses[known], seed=context.seed)
    posterior: Floats = np.where(data.has_label[:, None], given, answers)
    return LabelQuality(answers, posterior, clean)


def refined_targets(data: TrainingSet, quality: LabelQuality, recipe: Recipe) -> TrainingTargets:
    """Return what the next model learns, weighted by how sure it is.

    That is the posterior. A text's weight is its posterior's lead over an even guess, between 0.05
    and 1; a human label has the weight that the recipe gives it.
    """
    targets = quality.posterior
    weights: Floats = np.ones(len(data.pool))
    if recipe.weigh_by_clean and data.kind.is_exclusive and len(data.labels) > 1:
        even = 1.0 / len(data.labels)
        weights = np.clip((targets.max(axis=1) - even) / (1 - even), _SMALLEST_WEIGHT, 1.0)
    weights = np.where(data.is_human, recipe.human_weight, weights)
    is_used = data.has_label | recipe.keep_abstained
    return TrainingTargets(np.flatnonzero(is_used), targets, weights)


def _through_noise(
    data: TrainingSet, recipe: Recipe, weak: Floats, cross_fitted: Floats
) -> tuple[Floats, Floats]:
    """Return what one-hot labels, and predictions made of such labels, say of the true label.

    Both by the estimated noise matrix. A label that is a posterior already, and what is predicted
    of its text, stay as they are. Texts without a label go with one-hot labels where all are.
    """
    is_hard = _is_one_hot(data, weak)
    if not recipe.estimate_noise or not is_hard.any():
        return weak, cross_fitted
    labels = weak[is_hard].argmax(axis=1)
    share = noise.share_of_noise(labels, cross_fitted[is_hard])
    matrix = noise.transition_matrix(labels, cross_fitted[is_hard])
    matrix = share * matrix + (1 - share) * np.eye(len(matrix))
    unmixed = cross_fitted
    if recipe.deconvolve_noise:
        is_open = ~data.has_label
        is_noisy = is_hard | is_open if (is_hard | is_open | data.is_human).all() else is_hard
        unmixed = cross_fitted.copy()
        unmixed[is_noisy] = noise.deconvolve_noise(cross_fitted[is_noisy], matrix)
    softened = weak.copy()
    chances = matrix[:, labels].T * unmixed.mean(axis=0)
    softened[is_hard] = chances / np.maximum(chances.sum(axis=1, keepdims=True), _SMALLEST_CHANCE)
    return softened, unmixed


def _join_each(weak: Floats, cross_fitted: Floats, strength: float) -> Floats:
    """Join opinions label by label, for questions where several labels may hold."""
    joined = [
        noise.join(
            np.stack([1 - weak[:, label], weak[:, label]], axis=1),
            np.stack([1 - cross_fitted[:, label], cross_fitted[:, label]], axis=1),
            strength=strength,
        )[:, 1]
        for label in range(weak.shape[1])
    ]
    return np.stack(joined, axis=1)


def _clean(data: TrainingSet, posterior: Floats) -> Floats:
    """Return the posterior probability of each label as given, 0.5 where there is none."""
    if data.kind.is_exclusive:
        support = posterior[np.arange(len(posterior)), data.hard_labels]
    else:
        given = given_targets(data, soft=False)
        support = np.where(given > 0.5, posterior, 1 - posterior).min(axis=1)
    clean: Floats = np.where(data.has_label, support, 0.5)
    return clean


def _frozen_opinions(
    context: TrainingContext,
    encoder: Encoder | None,
    given: Floats,
    weights: Floats,
    rng: np.random.Generator,
) -> list[Floats]:
    """Return what the frozen encoder's space says of each label: its neighbours, and a probe."""
    data, recipe = context.data, context.recipe
    if not recipe.n_neighbours or encoder is None or not data.kind.is_exclusive:
        return []
    with context.clock("embed"):
        vectors = probe.embed_pool(encoder, data.pool)
    with context.clock("frozen"):
        probed = probe.cross_fit(data, vectors, weights, n_folds=_N_PROBE_FOLDS, rng=rng)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
        near = noise.neighbour_posterior(
            units, given, data.has_label, n_neighbours=recipe.n_neighbours
        )
    return [near, probed]
