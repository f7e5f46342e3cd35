"""The default recipe: cross-fit, judge the labels, refine them, learn the refined ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.core import noise
from backend.core.ports import Encoder
from backend.core.small_model import Recipe, TrainingSet
from backend.slm import probe
from backend.slm.classifier import TextClassifier
from backend.slm.desk import Desk, Floats, Lesson, Rows, agreement, given_targets, hold_out

_SMALLEST_WEIGHT = 0.05
_SMALLEST_CHANCE = 1e-9
_N_STANDARD_ERRORS = 1.0 + 1e-6
"""A hair above 1: a lead that rests on a single text is exactly one standard error."""
_N_PROBE_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """What cross-fitting found: predictions (n, K), the labels' posterior (n, K), clean (n,).

    `by_folds` (n, K) are the fold models' predictions alone, None where none were trained.
    """

    cross_fitted: Floats
    posterior: Floats
    clean: Floats
    by_folds: Floats | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished model with what was found about the labels; `notes` say what was chosen.

    `held_out` are labelled rows that the model did not learn from.
    """

    model: TextClassifier
    judgement: Judgement
    held_out: Rows
    figures: dict[str, float]
    notes: tuple[str, ...] = ()


def train_plain(desk: Desk) -> Trained:
    """Fine-tune on the labels as given, keeping the epoch that agrees best with held-out ones."""
    rng = np.random.default_rng(desk.seed)
    held_out = hold_out(desk.data, rng)
    model = _plain(desk, held_out)
    with desk.clock("read"):
        answers = desk.answers(model)
    return Trained(model, judge_in_sample(desk, answers), held_out, {})


def train_default(desk: Desk, encoder: Encoder | None) -> Trained:
    """Run robust self-training.

    Models that did not see a text's label say what it should be; the label's posterior under both
    opinions is what the final model learns, each text weighted by how sure that posterior is. After
    FreeAL (arXiv 2311.15614, section 3.3), SiDyP's neighbour prior (arXiv 2505.19675) and confident
    learning (Northcutt et al. 2021).

    **Deviations** from FreeAL: labels are judged by cross-fitted predictions instead of by the
    losses of the model that memorises them; noisy labels are softened instead of dropped; no mixup.
    The fold models, which learned the labels as given, stand in for the plain fine-tune on held-out
    labels; where they agree better with those than the final model, the plain fine-tune itself is
    trained and shipped if it is better. Cost: `n_rounds * (n_folds - 1) + 1` trainings on all rows,
    one more where the comparison asks for it.
    """
    recipe, data = desk.recipe, desk.data
    rng = np.random.default_rng(desk.seed)
    held_out = hold_out(data, rng) if recipe.compare_with_plain else np.zeros(0, dtype=np.int64)
    judgement = judge_across(desk, encoder, rng)
    lesson = refined_lesson(data, judgement, recipe)
    lesson = replace(lesson, rows=np.setdiff1d(lesson.rows, held_out))
    with desk.clock("final"):
        model = desk.fit("final", lesson)
    figures: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    if recipe.compare_with_plain and len(held_out):
        model, figures, notes = compare_with_plain(desk, model, judgement, held_out)
    return Trained(model, judgement, held_out, figures, notes)


def judge_across(desk: Desk, encoder: Encoder | None, rng: np.random.Generator) -> Judgement:
    """Return what models think of the labels that they did not see, after all rounds."""
    data, recipe = desk.data, desk.recipe
    given = given_targets(data, soft=recipe.soft_targets)
    weights = data.has_label * np.where(data.is_human, recipe.human_weight, 1.0)
    lesson = Lesson(np.flatnonzero(data.has_label), given, weights)
    frozen = _frozen_opinions(desk, encoder, given, weights, rng)
    if recipe.n_folds == 0 or len(lesson.rows) < 2 * recipe.n_folds:
        return _heard(data, recipe, given, frozen)
    keys = list(zip(data.pool.texts, data.pool.pairs or data.pool.texts, strict=True))
    folds = noise.assign_folds(keys, data.hard_labels, n_folds=recipe.n_folds, rng=rng)
    judgement = None
    for number in range(recipe.n_rounds):
        answers = np.zeros_like(given)
        for fold in range(recipe.n_folds):
            rows = lesson.rows[folds[lesson.rows] != fold]
            with desk.clock("cross-fit"):
                model = desk.fit(f"round {number + 1} fold {fold + 1}", replace(lesson, rows=rows))
                mine = np.flatnonzero(folds == fold)
                answers[mine] = desk.answers(model, mine)
        judgement = replace(_heard(data, recipe, given, [*frozen, answers]), by_folds=answers)
        lesson = refined_lesson(data, judgement, recipe)
    if judgement is None:
        raise AssertionError("a recipe has at least one round")
    return judgement


def _heard(data: TrainingSet, recipe: Recipe, given: Floats, opinions: list[Floats]) -> Judgement:
    """Judge the labels by opinions that did not see them; there may be none."""
    if not opinions:
        return judge(data, recipe, given, None)
    if len(opinions) == 1 or not data.kind.is_exclusive:
        return judge(data, recipe, given, opinions[-1])
    pooled = noise.pool_opinions(opinions, given, data.has_label & ~data.is_human)
    return judge(data, recipe, given, pooled)


def judge(
    data: TrainingSet, recipe: Recipe, given: Floats, cross_fitted: Floats | None
) -> Judgement:
    """Join the labels with predictions that did not see them; without any, believe the labels."""
    n_labels = len(data.labels)
    uniform = np.full_like(given, 1.0 / n_labels if data.kind.is_exclusive else 0.5)
    if cross_fitted is None:
        cross_fitted = uniform
    weak = np.where(data.has_label[:, None], given, uniform)
    if data.kind.is_exclusive:
        weak = _soften(data, recipe, weak, cross_fitted)
        posterior = noise.join(weak, cross_fitted, strength=recipe.join_strength)
    else:
        posterior = _join_each(weak, cross_fitted, recipe.join_strength)
    clean = _clean(data, posterior)
    posterior = np.where(data.is_human[:, None], data.targets, posterior)
    return Judgement(cross_fitted, posterior, clean)


def judge_in_sample(desk: Desk, answers: Floats) -> Judgement:
    """Judge labels by the losses of the model that learned them: FreeAL's global mixture."""
    data = desk.data
    given = given_targets(data, soft=False)
    known = np.flatnonzero(data.has_label & ~data.is_human)
    losses = -(given * np.log(np.clip(answers, 1e-9, 1))).sum(axis=1)
    clean = np.where(data.has_label, 1.0, 0.5)
    if len(known):
        clean[known] = noise.clean_by_loss(losses[known], seed=desk.seed)
    posterior: Floats = np.where(data.has_label[:, None], given, answers)
    return Judgement(answers, posterior, clean)


def refined_lesson(data: TrainingSet, judgement: Judgement, recipe: Recipe) -> Lesson:
    """Return what the next model learns, weighted by how sure it is.

    That is the posterior. A text's weight is its posterior's lead over an even guess, between 0.05
    and 1; a human label has the weight that the recipe gives it.
    """
    targets = judgement.posterior
    weights: Floats = np.ones(len(data.pool))
    if recipe.weigh_by_clean and data.kind.is_exclusive and len(data.labels) > 1:
        even = 1.0 / len(data.labels)
        weights = np.clip((targets.max(axis=1) - even) / (1 - even), _SMALLEST_WEIGHT, 1.0)
    weights = np.where(data.is_human, recipe.human_weight, weights)
    is_used = data.has_label | recipe.keep_abstained
    return Lesson(np.flatnonzero(is_used), targets, weights)


def _soften(data: TrainingSet, recipe: Recipe, weak: Floats, cross_fitted: Floats) -> Floats:
    """Turn one-hot labels into what they say of the true one, by the estimated noise matrix."""
    rows = np.flatnonzero(data.has_label & ~data.is_human)
    is_hard = weak[rows].max(axis=1) > 1 - 1e-6 if len(rows) else np.zeros(0, dtype=bool)
    rows = rows[is_hard]
    if not recipe.estimate_noise or len(rows) == 0:
        return weak
    labels = weak[rows].argmax(axis=1)
    share = noise.share_of_noise(labels, cross_fitted[rows])
    matrix = noise.noise_matrix(labels, cross_fitted[rows])
    matrix = share * matrix + (1 - share) * np.eye(len(matrix))
    softened = weak.copy()
    chances = matrix[:, labels].T * cross_fitted.mean(axis=0)
    softened[rows] = chances / np.maximum(chances.sum(axis=1, keepdims=True), _SMALLEST_CHANCE)
    return softened


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
    desk: Desk, encoder: Encoder | None, given: Floats, weights: Floats, rng: np.random.Generator
) -> list[Floats]:
    """Return what the frozen encoder's space says of each label: its neighbours, and a probe."""
    data, recipe = desk.data, desk.recipe
    if not recipe.n_neighbours or encoder is None or not data.kind.is_exclusive:
        return []
    with desk.clock("embed"):
        vectors = probe.embed_pool(encoder, data.pool)
    with desk.clock("frozen"):
        probed = probe.cross_fit(data, vectors, weights, n_folds=_N_PROBE_FOLDS, rng=rng)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-9)
        near = noise.neighbour_posterior(
            units, given, data.has_label, n_neighbours=recipe.n_neighbours
        )
    return [near, probed]


def _plain(desk: Desk, held_out: Rows) -> TextClassifier:
    data = desk.data
    recipe = replace(desk.recipe, ema_decay=None, reads_all_tokens=False, start_from_probe=False)
    desk = replace(desk, recipe=recipe)
    rows = np.setdiff1d(np.flatnonzero(data.has_label), held_out)
    lesson = Lesson(rows, given_targets(data, soft=False), np.ones(len(data.pool)))

    def score(model: TextClassifier) -> float:
        return float(agreement(desk.answers(model, held_out), data, held_out).mean())

    with desk.clock("plain"):
        return desk.fit("plain", lesson, judge=score if len(held_out) else None)


def compare_with_plain(
    desk: Desk, model: TextClassifier, judgement: Judgement, held_out: Rows
) -> tuple[TextClassifier, dict[str, float], tuple[str, ...]]:
    """Return the recipe's model unless the plain one is clearly better on held-out labels.

    People's labels decide if there are any among them. A model that learned all texts and is not
    clearly worse on them than the fold models, which learned a part, needs no further comparison.
    Otherwise the plain fine-tune is trained. The difference is taken text by text; one standard
    error is clear, because the annotator's own held-out labels favour the model that imitates its
    mistakes.
    """
    data = desk.data
    humans = held_out[data.is_human[held_out]]
    judges = humans if len(humans) else held_out
    ours = agreement(desk.answers(model, judges), data, judges)
    figures = {"held_out_agreement": float(ours.mean()), "n_held_out": float(len(judges))}
    if judgement.by_folds is not None:
        folds = agreement(judgement.by_folds[judges], data, judges)
        figures["held_out_agreement_folds"] = float(folds.mean())
        if not _is_clearly_better(folds, ours):
            return model, figures, ()
    plain = _plain(desk, held_out)
    theirs = agreement(desk.answers(plain, judges), data, judges)
    figures["held_out_agreement_plain"] = float(theirs.mean())
    if _is_clearly_better(theirs, ours):
        return plain, figures, ("the plain fine-tune was better on held-out labels and is kept",)
    return model, figures, ()


def _is_clearly_better(theirs: Floats, ours: Floats) -> bool:
    """Whether one model's agreement leads the other's by more than a standard error, by text."""
    lead = theirs - ours
    error = float(lead.std(ddof=1) / np.sqrt(len(lead))) if len(lead) > 1 else np.inf
    return bool(lead.mean() > _N_STANDARD_ERRORS * error)
