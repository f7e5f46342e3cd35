"""The training loop: seeded, cancellable, resumable after each epoch; what to learn is given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.domain.student import TrainingHooks, TrainingProgress
from backend.errors import TrainingCancelled, TrainingDiverged
from backend.self_training.batches import Tokens, training_batches
from backend.self_training.checkpoint import Checkpoint, WeightAverager, fingerprint, put_back

_WIDTH, _RATE_AT_WIDTH, _HIGHEST_RATE = 768, 5e-5, 5e-4
_SMALLEST_BATCH, _LARGEST_BATCH, _MIN_STEPS = 8, 32, 150
_NO_DECAY = ("bias", "LayerNorm.weight", "norm.weight")


@dataclass(frozen=True, slots=True)
class Optimisation:
    """AdamW with a linear warm-up and decay; `ema_decay` per step, None for no averaging.

    `learning_rate` None is the one that suits the encoder's width, `batch_size` None the one that
    suits the number of texts.
    """

    n_epochs: int = 3
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    largest_gradient: float = 1.0
    ema_decay: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Where a training is when it asks for a loss: the batch's rows, and the epochs so far."""

    rows: NDArray[np.integer]
    epochs_done: float


class Trainable(Protocol):
    """What the loop needs of a model around a transformer."""

    model: Any
    device: torch.device

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes."""
        ...


class Objective(Protocol):
    """What is learned."""

    def before_epoch(self, epoch: int) -> None:
        """Prepare an epoch, counted from 0; the present weights are all that it may read."""
        ...

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the batch's loss, a scalar."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of several: its name, seed and the rows that it learns from.

    `judge` scores the model after each epoch; with it, the best epoch's weights are the result.
    `content` is a digest of what the rows are to teach; a checkpoint of another is not used.
    """

    name: str
    rows: NDArray[np.integer]
    seed: int
    optimisation: Optimisation = field(default_factory=Optimisation)
    judge: Callable[[], float] | None = None
    content: str = ""


def train(
    learner: Trainable, tokens: Tokens, objective: Objective, stage: Stage, hooks: TrainingHooks
) -> None:
    """Train in place.

    Each epoch starts from a seed of its own, so that a training resumed from `hooks.checkpoints`
    ends at the very weights of one that was never stopped. Raises TrainingCancelled between two
    batches, TrainingDiverged at a loss that is no finite number.
    """
    run = _Run(learner, tokens, objective, stage, hooks)
    for epoch in range(run.resume(), stage.optimisation.n_epochs):
        run.epoch(epoch)
    run.finish()


class _Run:
    def __init__(
        self,
        learner: Trainable,
        tokens: Tokens,
        objective: Objective,
        stage: Stage,
        hooks: TrainingHooks,
    ) -> None:
        self._learner = learner
        self._tokens = tokens
        self._objective = objective
        self._stage = stage
        self._hooks = hooks
        self._plan = stage.optimisation
        n_passes = len(stage.rows) * self._plan.n_epochs
        self._batch_size = self._plan.batch_size or suited_batch_size(n_passes)
        self._n_steps = -(-len(stage.rows) // self._batch_size)
        self._n_done = 0
        self._rate = self._plan.learning_rate or suited_learning_rate(
            learner.model.config.hidden_size
        )
        self._optimizer = _optimizer(learner.model, self._plan, self._rate)
        self._memory = WeightAverager()
        self._checkpoint = None
        if hooks.checkpoints is not None:
            seal = fingerprint(
                (stage.name, stage.seed, stage.content, self._plan),
                stage.rows,
                tokens.lengths,
                tokens.digest,
            )
            self._checkpoint = Checkpoint(hooks.checkpoints, stage.name, seal)

    def resume(self) -> int:
        """Return the number of epochs that were done before a restart."""
        if self._checkpoint is None:
            return 0
        n_epochs = self._checkpoint.restore(self._learner.model, self._optimizer, self._memory)
        self._n_done = n_epochs * self._n_steps
        return n_epochs

    def epoch(self, epoch: int) -> None:
        """Go through the rows once."""
        self._objective.before_epoch(epoch)
        seed = _seed(self._stage, epoch)
        torch.manual_seed(seed)
        batches = training_batches(
            self._stage.rows,
            self._tokens.lengths,
            batch_size=self._batch_size,
            rng=np.random.default_rng(seed),
        )
        self._learner.model.train()
        for number, rows in enumerate(batches, start=1):
            if self._hooks.should_stop():
                raise TrainingCancelled(f"stopped in {self._stage.name}, epoch {epoch + 1}")
            value = self._step(TrainingStep(rows, epoch + (number - 1) / len(batches)))
            self._hooks.on_progress(
                TrainingProgress(
                    self._stage.name, epoch + 1, self._plan.n_epochs, number, len(batches), value
                )
            )
        if self._stage.judge is not None:
            self._memory.keep_best(self._stage.judge(), self._learner.model)
        if self._checkpoint is not None:
            self._checkpoint.keep(epoch + 1, self._learner.model, self._optimizer, self._memory)

    def finish(self) -> None:
        """Put the averaged or the best weights in, if there are any."""
        chosen = self._memory.best or self._memory.average
        if chosen:
            put_back(self._learner.model, chosen)

    def _step(self, step: TrainingStep) -> float:
        model = self._learner.model
        inputs = self._tokens.collate(step.rows, self._learner.device)
        with self._learner.autocast():
            loss = self._objective.loss(inputs, step)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingDiverged(
                f"{self._stage.name}: the loss is {value} after {step.epochs_done:.2f} epochs; "
                f"expected a finite number. Try another seed or a learning rate below "
                f"{self._rate:g}"
            )
        rate = self._rate * learning_rate_share(
            self._n_done, self._n_steps * self._plan.n_epochs, self._plan.warmup_share
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), self._plan.largest_gradient)
        self._optimizer.step()
        self._n_done += 1
        if self._plan.ema_decay is not None:
            self._memory.average_in(model, self._plan.ema_decay)
        return value


def learning_rate_share(step: int, n_steps: int, warmup_share: float) -> float:
    """Return the share of the full learning rate at a step counted from 0: up, then down to 0."""
    n_warmup = max(1, round(n_steps * warmup_share)) if warmup_share else 0
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def suited_learning_rate(width: int) -> float:
    """Return the learning rate for an encoder of this width: 5e-5 at 768, falling with its square.

    So 2e-4 at the embedded encoder's 384: at 5e-5 it learns nothing from a few hundred texts. At
    most 5e-4.
    """
    return min(_HIGHEST_RATE, _RATE_AT_WIDTH * (_WIDTH / width) ** 2)


def suited_batch_size(n_passes: int) -> int:
    """Return the batch size for so many texts read in all epochs together: 32, less for 150 steps.

    At least 8: smaller batches cost more time than they give steps.
    """
    return int(np.clip(n_passes // _MIN_STEPS, _SMALLEST_BATCH, _LARGEST_BATCH))


def _optimizer(model: Any, plan: Optimisation, rate: float) -> torch.optim.AdamW:
    named = list(model.named_parameters())
    plain = [tensor for name, tensor in named if name.endswith(_NO_DECAY)]
    decayed = [tensor for name, tensor in named if not name.endswith(_NO_DECAY)]
    groups = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def _seed(stage: Stage, epoch: int) -> int:
    text = f"{stage.seed}/{stage.name}/{epoch}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class Supervised:
    """A loss against soft targets, weighted by text.

    `targets` (n, K) and `weights` (n,) follow the tokens' rows; `per_text` gives one loss per text.
    """

    def __init__(
        self,
        learner: Trainable,
        targets: NDArray[np.floating],
        weights: NDArray[np.floating],
        per_text: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._learner = learner
        self._targets = torch.as_tensor(targets, dtype=torch.float32, device=learner.device)
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=learner.device)
        self._per_text = per_text

    def before_epoch(self, epoch: int) -> None:
        """Leave everything as it is: nothing changes between epochs."""

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the weighted mean over the batch; 0 when all weights are."""
        rows = torch.as_tensor(step.rows, device=self._learner.device)
        logits = self._learner.model(**inputs).logits.float()
        losses = self._per_text(logits, self._targets[rows])
        weights = self._weights[rows]
        return (weights * losses).sum() / weights.sum().clamp(min=1e-6)
