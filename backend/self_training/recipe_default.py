"""The default recipe: cross-fit, judge the labels, refine them, learn the refined ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.domain.ports import Encoder
from backend.self_training.classifier import TextClassifier
from backend.self_training.context import (
    Floats,
    Rows,
    TrainingContext,
    TrainingTargets,
    agreement,
    given_targets,
    hold_out,
)
from backend.self_training.label_quality import (
    LabelQuality,
    cross_validated_quality,
    in_sample_quality,
    refined_targets,
)

_N_STANDARD_ERRORS = 1.0 + 1e-6
"""A hair above 1: a lead that rests on a single text is exactly one standard error."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished model with what was found about the labels; `notes` say what was chosen.

    `held_out` are labelled rows that the model did not learn from.
    """

    model: TextClassifier
    quality: LabelQuality
    held_out: Rows
    figures: dict[str, float]
    notes: tuple[str, ...] = ()


def train_plain(context: TrainingContext) -> Trained:
    """Fine-tune on the labels as given, keeping the epoch that agrees best with held-out ones."""
    rng = np.random.default_rng(context.seed)
    held_out = hold_out(context.data, rng)
    model = _plain(context, held_out)
    with context.clock("read"):
        answers = context.answers(model)
    return Trained(model, in_sample_quality(context, answers), held_out, {})


def train_default(context: TrainingContext, encoder: Encoder | None) -> Trained:
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
    recipe, data = context.recipe, context.data
    rng = np.random.default_rng(context.seed)
    held_out = hold_out(data, rng) if recipe.compare_with_plain else np.zeros(0, dtype=np.int64)
    quality = cross_validated_quality(context, encoder, rng)
    targets_ = refined_targets(data, quality, recipe)
    targets_ = replace(targets_, rows=np.setdiff1d(targets_.rows, held_out))
    with context.clock("final"):
        model = context.fit("final", targets_)
    figures: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    if recipe.compare_with_plain and len(held_out):
        model, figures, notes = compare_with_plain(context, model, quality, held_out)
    return Trained(model, quality, held_out, figures, notes)


def _plain(context: TrainingContext, held_out: Rows) -> TextClassifier:
    data = context.data
    recipe = replace(context.recipe, ema_decay=None, reads_all_tokens=False, start_from_probe=False)
    context = replace(context, recipe=recipe)
    rows = np.setdiff1d(np.flatnonzero(data.has_label), held_out)
    targets_ = TrainingTargets(rows, given_targets(data, soft=False), np.ones(len(data.pool)))

    def score(model: TextClassifier) -> float:
        return float(agreement(context.answers(model, held_out), data, held_out).mean())

    with context.clock("plain"):
        return context.fit("plain", targets_, judge=score if len(held_out) else None)


def compare_with_plain(
    context: TrainingContext, model: TextClassifier, quality: LabelQuality, held_out: Rows
) -> tuple[TextClassifier, dict[str, float], tuple[str, ...]]:
    """Return the recipe's model unless the plain one is clearly better on held-out labels.

    People's labels decide if there are any among them. A model that learned all texts and is not
    clearly worse on them than the fold models, which learned a part, needs no further comparison.
    Otherwise the plain fine-tune is trained. The difference is taken text by text; one standard
    error is clear, because the annotator's own held-out labels favour the model that imitates its
    mistakes.
    """
    data = context.data
    humans = held_out[data.is_human[held_out]]
    judges = humans if len(humans) else held_out
    ours = agreement(context.answers(model, judges), data, judges)
    figures = {"held_out_agreement": float(ours.mean()), "n_held_out": float(len(judges))}
    if quality.by_folds is not None:
        folds = agreement(quality.by_folds[judges], data, judges)
        figures["held_out_agreement_folds"] = float(folds.mean())
        if not _is_clearly_better(folds, ours):
            return model, figures, ()
    plain = _plain(context, held_out)
    theirs = agreement(context.answers(plain, judges), data, judges)
    figures["held_out_agreement_plain"] = float(theirs.mean())
    if _is_clearly_better(theirs, ours):
        return plain, figures, ("the plain fine-tune was better on held-out labels and is kept",)
    return model, figures, ()


def _is_clearly_better(theirs: Floats, ours: Floats) -> bool:
    """Whether one model's agreement leads the other's by more than a standard error, by text."""
    lead = theirs - ours
    error = float(lead.std(ddof=1) / np.sqrt(len(lead))) if len(lead) > 1 else np.inf
    return bool(lead.mean() > _N_STANDARD_ERRORS * error)
