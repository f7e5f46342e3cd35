"""FreeAL's robust self-training as published, without the faults of its code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.domain.student import FittedStudent, StudentOutput
from backend.self_training.checkpoint import fingerprint
from backend.self_training.classifier import TextClassifier
from backend.self_training.label_quality import loss_based_quality, student_output
from backend.self_training.losses import SecondViews, consistency_loss, label_loss
from backend.self_training.trainer import Objective, TrainingLoop, TrainingStage, TrainingStep
from backend.self_training.training_context import TrainingContext

_CLEAN_THRESHOLD = 0.7
_MIXUP_ALPHA = 4.0
_TEMPERATURE = 0.85
_N_WARMUP_EPOCHS, _N_RAMP_EPOCHS = 4, 10
"""Of 50 epochs; a training of fewer warms up for a third and ramps up for half of them at most."""


def train_paper(context: TrainingContext) -> tuple[FittedStudent, StudentOutput]:
    """Train by FreeAL's recipe (arXiv 2311.15614, section 3.3).

    After a warm-up on all labels, a mixture of two Gaussians splits the texts by their loss before
    each epoch; the clean ones teach by cross-entropy, on the text, on its second view and on
    mixtures of output states, the noisy ones only by the consistency of their two views.

    **Deviations** from the published code, each because the code's way fails or harms: a batch
    without clean texts has no clean term (its mean of nothing was NaN); the divergence of the
    two views is a mean over texts, not a sum that grows with the noise; the mixture is seeded
    and equal losses count as clean; abstained texts take part in the consistency loss instead
    of in nothing; human labels are always clean and never in the mixture; the dead dropout flag
    is gone; warm-up and ramp (4 and 10 of 50 epochs) are at most a third and a half of the
    epochs; states are mixed before the head's last layer, which every architecture has, where
    the code mixed RoBERTa's first token one layer earlier; without a back-translation the
    second view hides a run of tokens. **Kept**: one global mixture per epoch, threshold 0.7,
    Beta(4, 4), temperature 0.85 on the student, last epoch's weights, no early stopping.
    Cost: two passes forward and back per epoch and one prediction, about 2.3 plain fine-tunes.
    """
    model = context.new_model()
    stage = TrainingStage(
        "paper",
        np.arange(len(context.data.pool)),
        context.seed,
        context.recipe,
        content=fingerprint("paper", context.data.targets),
    )
    with context.timed("paper"):
        objective = _PaperObjective(context, model)
        TrainingLoop(model, context.tokens(model), objective, stage, context.hooks).run()
    with context.timed("predict"):
        prediction = context.predict(model)
    quality = loss_based_quality(context, prediction.probabilities)
    return model, student_output(context, quality, prediction)


class _PaperObjective(Objective):
    def __init__(self, context: TrainingContext, model: TextClassifier) -> None:
        data = context.data
        self._context = context
        self._model = model
        self._rng = np.random.default_rng(context.seed)
        self._views = SecondViews(model, data.pool, data.views)
        self._targets = torch.as_tensor(
            data.given_targets(soft=False), dtype=torch.float32, device=model.device
        )
        self._is_clean = torch.as_tensor(data.has_label, device=model.device)
        n_epochs = context.recipe.n_epochs
        self._n_warmup = max(1, min(_N_WARMUP_EPOCHS, -(-n_epochs // 3)))
        self._n_ramp = min(_N_RAMP_EPOCHS, n_epochs / 2)

    def before_epoch(self, epoch: int) -> None:
        """Split clean from noisy by this epoch's losses; during warm-up all labels are clean."""
        self._rng = np.random.default_rng([self._context.seed, epoch])
        if epoch < self._n_warmup:
            return
        data = self._context.data
        probabilities = self._context.predict(self._model).probabilities
        score = loss_based_quality(self._context, probabilities).score
        is_clean = data.has_label & (score > _CLEAN_THRESHOLD) | data.is_human
        self._is_clean = torch.as_tensor(is_clean, device=self._model.device)

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return FreeAL's total loss of a batch (section 3.3, eq. 3 to 7)."""
        rows = torch.as_tensor(step.rows, device=self._model.device)
        is_clean, targets = self._is_clean[rows], self._targets[rows]
        kind = self._model.spec.kind
        with self._model.catch_head_states() as states:
            first: Tensor = self._model.model(**inputs).logits.float()
        second = self._model.model(**self._views.inputs(step.rows)).logits.float()
        total = first.sum() * 0.0
        ramp = min(1.0, step.epochs_done / self._n_ramp)
        if bool(is_clean.any()):
            total = total + label_loss(first[is_clean], targets[is_clean], kind).mean()
            total = total + ramp * label_loss(second[is_clean], targets[is_clean], kind).mean()
            share = float(self._rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA))
            share = max(share, 1 - share)
            clean_states, clean_targets = states[-1][is_clean], targets[is_clean]
            order = torch.as_tensor(self._rng.permutation(len(clean_states)), device=rows.device)
            mixed = share * clean_states + (1 - share) * clean_states[order]
            mixed_targets = share * clean_targets + (1 - share) * clean_targets[order]
            logits: Tensor = self._model.output_layer(mixed).float()
            total = total + ramp * label_loss(logits, mixed_targets, kind).mean()
        if not bool(is_clean.all()):
            gap = consistency_loss(first[~is_clean], second[~is_clean], temperature=_TEMPERATURE)
            total = total + ramp * gap.mean()
        return total
