"""FreeAL's robust self-training as published, its code's faults removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.domain.student import TrainingSet
from backend.self_training.batches import Tokens
from backend.self_training.checkpoint import fingerprint
from backend.self_training.classifier import TextClassifier, output_layer
from backend.self_training.consistency import SecondViews
from backend.self_training.context import Floats, TrainingContext, given_targets
from backend.self_training.label_quality import LabelQuality, in_sample_quality
from backend.self_training.losses import label_loss, two_way_divergence
from backend.self_training.recipe_default import Trained
from backend.self_training.trainer import Stage, TrainingStep, train


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """The published numbers; a training of few epochs warms up a third and ramps up half of it."""

    clean_from: float = 0.7
    mixup_alpha: float = 4.0
    temperature: float = 0.85
    n_warmup_epochs: int = 4
    n_ramp_epochs: int = 10


def train_paper(context: TrainingContext) -> Trained:
    """Train by FreeAL's recipe (arXiv 2311.15614, section 3.3).

    After a warm-up on all labels, a mixture of two Gaussians splits the texts by their loss before
    each epoch; the clean ones teach by cross-entropy, on the text, on its second view and on
    mixtures of output states, the noisy ones only by the agreement of their two views.

    **Deviations** from the published code, each because the code's way fails or harms: a batch
    without clean texts has no clean term (its mean of nothing was NaN); the divergence of the
    two views is a mean over texts, not a sum that grows with the noise; the mixture is seeded
    and equal losses count as clean; abstained texts take part in the views' agreement instead
    of in nothing; human labels are always clean and never in the mixture; the dead dropout flag
    is gone; warm-up and ramp (4 and 10 of 50 epochs) are at most a third and a half of the
    epochs; states are mixed before the head's last layer, which every architecture has, where
    the code mixed RoBERTa's first token one layer earlier; without a back-translation the
    second view hides a run of tokens. **Kept**: one global mixture per epoch, threshold 0.7,
    Beta(4, 4), temperature 0.85 on the student, last epoch's weights, no early stopping.
    Cost: two passes forward and back per epoch and one reading, about 2.3 plain fine-tunes.
    """
    model = context.fresh()
    tokens = context.tokens(model)
    objective = _PaperObjective(context, model, tokens, PaperOptions())
    rows = np.arange(len(context.data.pool))
    stage = Stage(
        "paper",
        rows,
        context.seed,
        context.optimisation,
        content=fingerprint("paper", context.data.targets),
    )
    with context.clock("paper"):
        train(model, tokens, objective, stage, context.hooks)
    with context.clock("read"):
        answers = context.answers(model)
    found = in_sample_quality(context, answers)
    clean = np.where(context.data.has_label, objective.label_quality_score(), 0.5)
    nothing_held_out = np.zeros(0, dtype=np.int64)
    return Trained(model, LabelQuality(answers, found.posterior, clean), nothing_held_out, {})


class _PaperObjective:
    def __init__(
        self, context: TrainingContext, model: TextClassifier, tokens: Tokens, options: PaperOptions
    ) -> None:
        data = context.data
        self._context = context
        self._model = model
        self._tokens = tokens
        self._options = options
        self._rng = np.random.default_rng(context.seed)
        self._views = SecondViews(model, data.pool, data.views)
        self._targets = torch.as_tensor(
            given_targets(data, soft=False), dtype=torch.float32, device=model.device
        )
        self._is_clean = torch.as_tensor(data.has_label, device=model.device)
        self._head = output_layer(model.model, len(data.labels))
        n_epochs = context.recipe.n_epochs
        self._n_warmup = max(1, min(options.n_warmup_epochs, -(-n_epochs // 3)))
        self._n_ramp = min(options.n_ramp_epochs, n_epochs / 2)

    def before_epoch(self, epoch: int) -> None:
        """Split clean from noisy by this epoch's losses; during warm-up all labels are clean."""
        self._rng = np.random.default_rng([self._context.seed, epoch])
        if epoch < self._n_warmup:
            return
        data = self._context.data
        is_clean = data.has_label & (self.label_quality_score() > self._options.clean_from)
        self._is_clean = torch.as_tensor(is_clean | data.is_human, device=self._model.device)

    def label_quality_score(self) -> Floats:
        """Return the mixture's posterior of the small-loss component, 1 for human labels."""
        data: TrainingSet = self._context.data
        judged = in_sample_quality(self._context, self._context.answers(self._model))
        clean: Floats = np.where(data.has_label, judged.clean, 0.0)
        return clean

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return FreeAL's total loss of a batch (section 3.3, eq. 3 to 7)."""
        rows = torch.as_tensor(step.rows, device=self._model.device)
        is_clean, targets = self._is_clean[rows], self._targets[rows]
        kind = self._model.spec.kind
        with self._states() as states:
            logits: Tensor = self._model.model(**inputs).logits.float()
        state = states[-1]
        seen = self._model.model(**self._views.of(step.rows)).logits.float()
        total = logits.sum() * 0.0
        ramp = min(1.0, step.epochs_done / self._n_ramp)
        if bool(is_clean.any()):
            total = total + label_loss(logits[is_clean], targets[is_clean], kind).mean()
            total = total + ramp * label_loss(seen[is_clean], targets[is_clean], kind).mean()
            total = total + ramp * self._mixup(state[is_clean], targets[is_clean])
        if not bool(is_clean.all()):
            gap = two_way_divergence(
                logits[~is_clean], seen[~is_clean], temperature=self._options.temperature
            )
            total = total + ramp * gap.mean()
        return total

    def _mixup(self, state: Tensor, targets: Tensor) -> Tensor:
        alpha = self._options.mixup_alpha
        share = float(self._rng.beta(alpha, alpha))
        share = max(share, 1 - share)
        order = torch.as_tensor(self._rng.permutation(len(state)), device=state.device)
        mixed = share * state + (1 - share) * state[order]
        goal = share * targets + (1 - share) * targets[order]
        logits: Tensor = self._head(mixed)
        return label_loss(logits.float(), goal, self._model.spec.kind).mean()

    @contextmanager
    def _states(self) -> Iterator[list[Tensor]]:
        """Collect what enters the head's last layer."""
        states: list[Tensor] = []

        def keep(module: Any, arguments: tuple[Tensor, ...]) -> None:
            states.append(arguments[0])

        handle = self._head.register_forward_pre_hook(keep)
        try:
            yield states
        finally:
            handle.remove()
