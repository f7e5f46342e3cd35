"""The `Student` port: one way in for every recipe, one shape of what comes out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from backend.domain.ports import Encoder
from backend.domain.student import (
    FittedStudent,
    Recipe,
    StudentOutput,
    StudentPrediction,
    TrainingHooks,
    TrainingReport,
    TrainingSet,
)
from backend.self_training import embedding_probe as probe
from backend.self_training import noise
from backend.self_training.classifier import TextClassifier
from backend.self_training.context import Floats, TrainingContext, given_targets
from backend.self_training.encoder import embedded_encoder_folder
from backend.self_training.label_quality import LabelQuality, judge
from backend.self_training.linear_heads import answers, fit_probes
from backend.self_training.recipe_default import Trained, train_default, train_plain
from backend.self_training.recipe_paper import train_paper
from backend.self_training.temperature import fit_temperature

_log = logging.getLogger(__name__)
_PROBE_FOLDS = 5


class SelfTrainer:
    """A small model on any Hugging Face encoder; `base` "" is the embedded one.

    `encoder` gives frozen vectors: the probe needs it, the default recipe reads its neighbours.
    """

    def __init__(
        self, base: str = "", *, recipe: Recipe | None = None, encoder: Encoder | None = None
    ) -> None:
        self._base = base
        self._recipe = recipe or Recipe()
        self._encoder = encoder

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedStudent, StudentOutput]:
        """Train on `data`; see the port."""
        context = TrainingContext(data, self._recipe, self._base, seed, hooks or TrainingHooks())
        if self._recipe.name == "probe":
            return self._fit_probe(context)
        if self._recipe.name == "plain":
            trained = train_plain(context)
        elif self._recipe.name == "paper":
            trained = train_paper(context)
        else:
            trained = train_default(context, self._encoder)
        with context.clock("read"):
            _calibrate(context, trained)
            prediction = trained.model.read(context.tokens(trained.model), between=context.check)
        output = _output(context, trained, trained.quality, prediction)
        _log.info("small model trained recipe=%s seconds=%s", self._recipe.name, context.seconds)
        return trained.model, output

    def load(self, folder: Path) -> FittedStudent:
        """Read what `save` wrote; raises InvalidRequest."""
        if (folder / probe.PROBE_FILE).exists() and self._encoder is not None:
            return probe.EmbeddingProbe.load(folder, self._encoder)
        return TextClassifier.load(folder)

    def _fit_probe(self, context: TrainingContext) -> tuple[FittedStudent, StudentOutput]:
        data, encoder = context.data, self._encoder
        if encoder is None:
            raise ValueError("the probe needs an encoder")
        with context.clock("embed"):
            vectors = probe.embed_pool(encoder, data.pool)
        weights = data.has_label * np.where(data.is_human, context.recipe.human_weight, 1.0)
        rng = np.random.default_rng(context.seed)
        with context.clock("probe"):
            crossed = probe.cross_fit(data, vectors, weights, n_folds=_PROBE_FOLDS, rng=rng)
            quality = judge(data, context.recipe, _given(context), crossed)
            probes = fit_probes(vectors, _given(context), weights, data.kind)
        model = probe.EmbeddingProbe(encoder, data.labels, data.kind, probes)
        prediction = StudentPrediction(answers(probes, vectors), vectors.astype(np.float32))
        return model, _output(context, None, quality, prediction)


def _given(context: TrainingContext) -> Floats:
    return given_targets(context.data, soft=context.recipe.soft_targets)


def _calibrate(context: TrainingContext, trained: Trained) -> None:
    """Make the finished model as sure as the posterior of held-out labels lets it be."""
    rows = trained.held_out
    if len(rows) == 0:
        return
    model = trained.model
    logits, _ = model.logits(context.tokens(model).subset(rows), between=context.check)
    targets = trained.quality.posterior[rows]
    model.sharpen(fit_temperature(logits, targets, is_exclusive=context.data.kind.is_exclusive))


def _output(
    context: TrainingContext,
    trained: Trained | None,
    quality: LabelQuality,
    prediction: StudentPrediction,
) -> StudentOutput:
    data = context.data
    report = TrainingReport(
        context.recipe.name,
        dict(context.seconds),
        dict(trained.figures) if trained else {},
        trained.notes if trained else (),
        context.base or embedded_encoder_folder().name,
    )
    return StudentOutput(
        prediction,
        quality.cross_fitted,
        quality.clean,
        quality.posterior,
        noise.label_issues(quality.clean, data.has_label, data.pool.ids),
        report,
    )
