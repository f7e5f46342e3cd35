"""The `Student` port: trains by the recipes default (self-training), plain, probe and paper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.domain.ports import Encoder
from backend.domain.student import (
    FittedStudent,
    Recipe,
    StudentOutput,
    StudentPrediction,
    TrainingHooks,
    TrainingSet,
)
from backend.self_training import embedding_probe
from backend.self_training.classifier import TextClassifier
from backend.self_training.embedding_probe import EmbeddingProbe
from backend.self_training.label_quality import (
    N_PROBE_FOLDS,
    LabelQuality,
    assess_labels,
    cross_fitted_quality,
    loss_based_quality,
    refined_targets,
    student_output,
)
from backend.self_training.noise import Floats
from backend.self_training.recipe_paper import train_paper
from backend.self_training.training_context import (
    Rows,
    TrainingContext,
    TrainingTargets,
    hold_out,
    label_agreement,
)

_log = logging.getLogger(__name__)
_N_STANDARD_ERRORS = 1.0 + 1e-6
"""A hair above 1: a lead that rests on a single text is exactly one standard error."""


@dataclass(frozen=True, slots=True)
class SelfTrainer:
    """Trains students on any Hugging Face encoder.

    `base` is a hub name or a folder, "" for the embedded encoder; `encoder` gives frozen vectors:
    recipe `probe` needs it, `default` assesses labels by it.
    """

    base: str = ""
    recipe: Recipe = Recipe()
    encoder: Encoder | None = None

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedStudent, StudentOutput]:
        """Train on `data`; see the port."""
        hooks = hooks or TrainingHooks()
        context = TrainingContext(data, self.recipe, self.base, seed, hooks, self.encoder)
        model, output = _TRAIN[self.recipe.name](context)
        _log.info("student trained recipe=%s seconds=%s", self.recipe.name, context.seconds)
        return model, output

    def load(self, folder: Path) -> FittedStudent:
        """Read what `save` wrote; raises InvalidRequest."""
        if (folder / embedding_probe.PROBE_FILE).exists() and self.encoder is not None:
            return EmbeddingProbe.load(folder, self.encoder)
        return TextClassifier.load(folder)


def train_default(context: TrainingContext) -> tuple[FittedStudent, StudentOutput]:
    """Run robust self-training.

    Cross-fitted models predict each text's label without having seen it; the label's posterior
    given both is what the final model learns, each text weighted by the posterior's confidence.
    After FreeAL (arXiv 2311.15614, section 3.3), SiDyP's neighbor prior (arXiv 2505.19675) and
    confident learning (Northcutt et al. 2021).

    **Deviations** from FreeAL: labels are assessed by cross-fitted predictions instead of by the
    losses of the model that memorizes them; noisy labels are softened instead of dropped; no mixup.
    The fold models, which learned the labels as given, stand in for the plain fine-tune on held-out
    labels; where they agree better with those than the final model, the plain fine-tune itself is
    trained and shipped if it is better. Cost: `n_repeats * (n_folds - 1) + 1` trainings on all
    rows, one more where the comparison asks for it.
    """
    recipe, data = context.recipe, context.data
    rng = np.random.default_rng(context.seed)
    held_out = hold_out(data, rng) if recipe.compare_with_plain else np.zeros(0, dtype=np.int64)
    quality = cross_fitted_quality(context, rng)
    targets = refined_targets(data, quality, recipe)
    with context.timed("final"):
        rows = np.setdiff1d(targets.rows, held_out)
        model = context.fine_tune("final", replace(targets, rows=rows))
    figures: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    if len(held_out):
        model, figures, notes = compare_with_plain(context, model, quality, held_out)
    prediction = _calibrated_prediction(context, model, quality, held_out)
    return model, student_output(context, quality, prediction, figures, notes)


def train_plain(context: TrainingContext) -> tuple[FittedStudent, StudentOutput]:
    """Fine-tune on the labels as given, keeping the epoch that agrees best with held-out ones."""
    held_out = hold_out(context.data, np.random.default_rng(context.seed))
    model = _fine_tune_plain(context, held_out)
    with context.timed("predict"):
        quality = loss_based_quality(context, context.predict(model).probabilities)
    prediction = _calibrated_prediction(context, model, quality, held_out)
    return model, student_output(context, quality, prediction)


def train_probe(context: TrainingContext) -> tuple[FittedStudent, StudentOutput]:
    """Fit a linear probe on frozen vectors, and assess the labels by cross-fitting."""
    data, encoder = context.data, context.encoder
    if encoder is None:
        raise ValueError("the probe needs an encoder")
    with context.timed("embed"):
        vectors = embedding_probe.embed_pool(encoder, data.pool)
    weights, rng = context.given_weights, np.random.default_rng(context.seed)
    with context.timed("probe"):
        cross_fitted = embedding_probe.cross_fit(
            data, vectors, weights, n_folds=N_PROBE_FOLDS, rng=rng
        )
        quality = assess_labels(data, context.recipe, cross_fitted)
        targets = data.given_targets(soft=context.recipe.soft_targets)
        probes = embedding_probe.fit_probes(vectors, targets, weights, data.kind)
    model = EmbeddingProbe(encoder, data.labels, data.kind, probes)
    prediction = StudentPrediction(
        embedding_probe.predict_proba(probes, vectors), vectors.astype(np.float32)
    )
    return model, student_output(context, quality, prediction)


_TRAIN: Mapping[str, Callable[[TrainingContext], tuple[FittedStudent, StudentOutput]]] = {
    "default": train_default,
    "plain": train_plain,
    "probe": train_probe,
    "paper": train_paper,
}


def compare_with_plain(
    context: TrainingContext, model: TextClassifier, quality: LabelQuality, held_out: Rows
) -> tuple[TextClassifier, dict[str, float], tuple[str, ...]]:
    """Return the recipe's model unless the plain one is clearly better on held-out labels.

    People's labels decide if there are any among them. A model that learned all texts and is not
    clearly worse on them than the fold models, which learned a part, needs no further comparison.
    Otherwise the plain fine-tune is trained. The difference is taken text by text; one standard
    error is clear, because the annotator's own held-out labels favor the model that imitates its
    mistakes. Figures by name and notes go with it.
    """
    data = context.data
    human = held_out[data.is_human[held_out]]
    rows = human if len(human) else held_out
    ours = label_agreement(context.predict(model, rows).probabilities, data, rows)
    figures = {"held_out_agreement": float(ours.mean()), "n_held_out": float(len(rows))}
    if quality.fold_predictions is not None:
        folds = label_agreement(quality.fold_predictions[rows], data, rows)
        figures["held_out_agreement_folds"] = float(folds.mean())
        if not _is_clearly_better(folds, ours):
            return model, figures, ()
    plain = _fine_tune_plain(context, held_out)
    theirs = label_agreement(context.predict(plain, rows).probabilities, data, rows)
    figures["held_out_agreement_plain"] = float(theirs.mean())
    if _is_clearly_better(theirs, ours):
        return plain, figures, ("the plain fine-tune was better on held-out labels and is kept",)
    return model, figures, ()


def _is_clearly_better(theirs: Floats, ours: Floats) -> bool:
    """Whether one model's agreement leads the other's by more than a standard error, by text."""
    lead = theirs - ours
    error = float(lead.std(ddof=1) / np.sqrt(len(lead))) if len(lead) > 1 else np.inf
    return bool(lead.mean() > _N_STANDARD_ERRORS * error)


def _fine_tune_plain(context: TrainingContext, held_out: Rows) -> TextClassifier:
    data = context.data
    recipe = replace(context.recipe, ema_decay=None, mean_pooling=False, init_head_from_probe=False)
    context = replace(context, recipe=recipe)
    rows = np.setdiff1d(np.flatnonzero(data.has_label), held_out)
    targets = TrainingTargets(rows, data.given_targets(soft=False), np.ones(len(data.pool)))

    def validate(model: TextClassifier) -> float:
        probabilities = context.predict(model, held_out).probabilities
        return float(label_agreement(probabilities, data, held_out).mean())

    with context.timed("plain"):
        return context.fine_tune("plain", targets, validate=validate if len(held_out) else None)


def _calibrated_prediction(
    context: TrainingContext, model: TextClassifier, quality: LabelQuality, held_out: Rows
) -> StudentPrediction:
    """Calibrate the model to the posterior of held-out labels, and predict the pool."""
    with context.timed("predict"):
        if len(held_out):
            tokens = context.tokens(model).subset(held_out)
            logits, _ = model.logits(tokens, before_batch=context.hooks.raise_if_cancelled)
            temperature = embedding_probe.fit_temperature(
                logits, quality.posterior[held_out], is_exclusive=context.data.kind.is_exclusive
            )
            model.scale_logits(temperature)
        return context.predict(model)
