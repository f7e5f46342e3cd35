"""The training loop: seeded, cancellable, and resumable after each epoch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.domain.student import Recipe, TrainingHooks, TrainingProgress
from backend.errors import TrainingDiverged
from backend.self_training.checkpoint import Checkpoint, WeightAverager, fingerprint, set_weights
from backend.self_training.pretrained import PretrainedModel
from backend.self_training.tokens import Tokens, training_batches

_BASE_WIDTH, _BASE_LEARNING_RATE, _MAX_LEARNING_RATE = 768, 5e-5, 5e-4
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE, _MIN_STEPS = 8, 32, 150
_WEIGHT_DECAY = 0.01
_NO_DECAY = ("bias", "LayerNorm.weight", "norm.weight")
_WARMUP_SHARE = 0.1
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The batch's rows of the pool, and how many epochs are done, fractions included."""

    rows: NDArray[np.integer]
    epochs_done: float


class Objective(ABC):
    """Computes the loss of a batch."""

    def before_epoch(self, epoch: int) -> None:  # noqa: B027
        """Prepare an epoch, counted from 0; the present weights are all that it may read."""

    @abstractmethod
    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the batch's loss, a scalar."""


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """One training of several.

    Args:
        name: shown as progress; seeds the training together with `seed`.
        rows: (m,), rows of the pool to train on.
        seed: of the batches' order and of dropout.
        recipe: gives epochs, batch size, learning rate and the averaging of weights.
        validate: scores the model after each epoch; the best epoch's weights are kept.
        content: digest of targets and weights; a checkpoint of other ones is not used.
    """

    name: str
    rows: NDArray[np.integer]
    seed: int
    recipe: Recipe
    validate: Callable[[], float] | None = None
    content: str = ""


@dataclass
class TrainingLoop:
    """Trains a model in place with AdamW under a linear warm-up and decay.

    Each epoch starts from a seed of its own, so that a training resumed from `hooks.checkpoints`
    ends at the very weights of one that was never stopped.
    """

    model: PretrainedModel[Any]
    tokens: Tokens
    objective: Objective
    stage: TrainingStage
    hooks: TrainingHooks

    def __post_init__(self) -> None:
        stage, recipe = self.stage, self.stage.recipe
        self._model = self.model.model
        n_texts_read = len(stage.rows) * recipe.n_epochs
        self._batch_size = recipe.batch_size or default_batch_size(n_texts_read)
        self._steps_per_epoch = -(-len(stage.rows) // self._batch_size)
        width = self._model.config.hidden_size
        self._learning_rate = recipe.learning_rate or default_learning_rate(width)
        self._optimizer = _optimizer(self._model, self._learning_rate)
        self._averager = WeightAverager()
        self._checkpoint = None
        if self.hooks.checkpoints is not None:
            options = (recipe.n_epochs, recipe.batch_size, recipe.learning_rate, recipe.ema_decay)
            course = (stage.name, stage.seed, stage.content, options)
            digest = fingerprint(course, stage.rows, self.tokens.lengths, self.tokens.digest)
            self._checkpoint = Checkpoint(self.hooks.checkpoints, stage.name, digest)

    def run(self) -> None:
        """Train, and set the best epoch's or the averaged weights, if there are any.

        Raises:
            TrainingCancelled: between two batches.
            TrainingDiverged: the loss is no finite number.
        """
        n_done = 0
        if self._checkpoint is not None:
            n_done = self._checkpoint.restore(self._model, self._optimizer, self._averager)
        self._n_steps_done = n_done * self._steps_per_epoch
        for epoch in range(n_done, self.stage.recipe.n_epochs):
            self._run_epoch(epoch)
        if chosen := self._averager.best or self._averager.average:
            set_weights(self._model, chosen)

    def _run_epoch(self, epoch: int) -> None:
        stage, n_epochs = self.stage, self.stage.recipe.n_epochs
        self.objective.before_epoch(epoch)
        digest = hashlib.sha256(f"{stage.seed}/{stage.name}/{epoch}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        torch.manual_seed(seed)
        rng, lengths = np.random.default_rng(seed), self.tokens.lengths
        batches = training_batches(stage.rows, lengths, batch_size=self._batch_size, rng=rng)
        self._model.train()
        for number, rows in enumerate(batches):
            self.hooks.raise_if_cancelled()
            loss = self._step(TrainingStep(rows, epoch + number / len(batches)))
            self.hooks.on_progress(TrainingProgress(stage.name, epoch + 1, n_epochs, loss))
        if stage.validate is not None:
            self._averager.keep_best(stage.validate(), self._model)
        if self._checkpoint is not None:
            self._checkpoint.save(epoch + 1, self._model, self._optimizer, self._averager)

    def _step(self, step: TrainingStep) -> float:
        recipe = self.stage.recipe
        inputs = self.tokens.collate(step.rows, self.model.device)
        with self.model.autocast():
            loss = self.objective.loss(inputs, step)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingDiverged(
                f"{self.stage.name}: the loss is {value} after {step.epochs_done:.2f} epochs; "
                f"expected a finite number. Try another seed or a learning rate below "
                f"{self._learning_rate:g}"
            )
        factor = learning_rate_factor(self._n_steps_done, self._steps_per_epoch * recipe.n_epochs)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * factor
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._n_steps_done += 1
        if recipe.ema_decay is not None:
            self._averager.update(self._model, recipe.ema_decay)
        return value


def learning_rate_factor(step: int, n_steps: int, warmup_share: float = _WARMUP_SHARE) -> float:
    """Return the share of the full learning rate at a step counted from 0: up, then down to 0."""
    n_warmup = max(1, round(n_steps * warmup_share))
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def default_learning_rate(width: int) -> float:
    """Return the learning rate for an encoder of this width: 5e-5 at 768, falling with its square.

    So 2e-4 at the embedded encoder's 384, which at 5e-5 learns nothing from a few hundred texts.
    """
    return min(_MAX_LEARNING_RATE, _BASE_LEARNING_RATE * (_BASE_WIDTH / width) ** 2)


def default_batch_size(n_texts_read: int) -> int:
    """Return the batch size for so many texts read in all epochs together: 32, less for 150 steps.

    At least 8: smaller batches cost more time than they give steps.
    """
    return int(np.clip(n_texts_read // _MIN_STEPS, _MIN_BATCH_SIZE, _MAX_BATCH_SIZE))


def _optimizer(model: Any, learning_rate: float) -> torch.optim.AdamW:
    parameters = list(model.named_parameters())
    groups = [
        {
            "params": [p for name, p in parameters if name.endswith(_NO_DECAY) != has_decay],
            "weight_decay": _WEIGHT_DECAY if has_decay else 0.0,
        }
        for has_decay in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
