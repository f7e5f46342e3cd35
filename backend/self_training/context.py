"""What the stages of one training share: data tokenized once, options, held-out rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backend.domain.student import Recipe, TrainingHooks, TrainingSet
from backend.errors import TrainingCancelled
from backend.self_training import noise
from backend.self_training.batches import Tokens, tokenize
from backend.self_training.checkpoint import fingerprint
from backend.self_training.classifier import ClassifierSpec, TextClassifier, decide
from backend.self_training.consistency import SecondViews, WithAgreement
from backend.self_training.linear_heads import fit_probes
from backend.self_training.losses import label_loss
from backend.self_training.trainer import Objective, Optimisation, Stage, Supervised, train

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_HELD_OUT_SHARE = 0.1
_MAX_HELD_OUT = 500
_MIN_TO_HOLD_OUT = 100
_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class TrainingTargets:
    """What to learn: rows of the pool, soft targets (n, K) and weights (n,) of all rows."""

    rows: Rows
    targets: Floats
    weights: Floats


@dataclass(frozen=True, slots=True)
class _States:
    """What a fresh model's last layer reads, divided by its mean size, so that probes fit it."""

    units: Floats
    size: float


@dataclass(slots=True)
class TrainingContext:
    """One training's data and options; `seconds` fills with what each stage took."""

    data: TrainingSet
    recipe: Recipe
    base: str
    seed: int
    hooks: TrainingHooks
    seconds: dict[str, float] = field(default_factory=dict)
    _tokens: Tokens | None = None
    _states: _States | None = None

    @property
    def spec(self) -> ClassifierSpec:
        """Return what is asked of the base model."""
        return ClassifierSpec(
            self.data.labels, self.data.kind, self.base, max_tokens=self.recipe.max_tokens
        )

    @property
    def optimisation(self) -> Optimisation:
        """Return the recipe's options for one training."""
        return Optimisation(
            n_epochs=self.recipe.n_epochs,
            batch_size=self.recipe.batch_size,
            learning_rate=self.recipe.learning_rate,
            ema_decay=self.recipe.ema_decay,
        )

    def fresh(self) -> TextClassifier:
        """Return the base model under a new head."""
        return TextClassifier.create(
            self.spec, seed=self.seed, reads_all_tokens=self.recipe.reads_all_tokens
        )

    def tokens(self, model: TextClassifier) -> Tokens:
        """Return the pool's tokens, made once for all models of this training."""
        if self._tokens is None:
            self._tokens = tokenize(
                model.tokenizer, self.data.pool, max_tokens=self.recipe.max_tokens
            )
        return self._tokens

    def check(self) -> None:
        """Raise TrainingCancelled if the caller wants an end."""
        if self.hooks.should_stop():
            raise TrainingCancelled("stopped between two batches")

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the time within to the seconds of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def fit(
        self,
        name: str,
        targets_: TrainingTargets,
        *,
        judge: Callable[[TextClassifier], float] | None = None,
    ) -> TextClassifier:
        """Return a fresh model that learned a lesson; the best epoch's by `judge` if given."""
        model = self.fresh()
        if self.recipe.start_from_probe:
            self._start(model, targets_)
        stage = Stage(
            name,
            targets_.rows,
            self.seed,
            self.optimisation,
            judge=partial(judge, model) if judge else None,
            content=fingerprint(
                (self.spec, self.recipe.consistency), targets_.targets, targets_.weights
            ),
        )
        objective = self._objective(model, targets_)
        train(model, self.tokens(model), objective, stage, self.hooks)
        return model

    def _start(self, model: TextClassifier, targets_: TrainingTargets) -> None:
        """Put into a fresh model's head what a probe learns from the lesson.

        All fresh models are alike, so that the pool is read once for all.
        """
        if self._states is None:
            with self.clock("start"):
                states = model.head_states(self.tokens(model), between=self.check)
                size = max(float(np.sqrt((states**2).sum(axis=1).mean())), _SMALLEST)
                self._states = _States(states / size, size)
        weights = np.zeros(len(self.data.pool))
        weights[targets_.rows] = targets_.weights[targets_.rows]
        with self.clock("start"):
            probes = fit_probes(self._states.units, targets_.targets, weights, self.data.kind)
            model.start_from(probes, size=self._states.size)

    def _objective(self, model: TextClassifier, targets_: TrainingTargets) -> Objective:
        objective = supervised(model, targets_)
        if not self.recipe.consistency:
            return objective
        views = SecondViews(model, self.data.pool, self.data.views)
        return WithAgreement(objective, model, views, share=self.recipe.consistency)

    def answers(self, model: TextClassifier, rows: Rows | None = None) -> Floats:
        """Return a model's label probabilities for rows of the pool, all if none are named."""
        tokens = self.tokens(model)
        if rows is not None:
            tokens = tokens.subset(rows)
        return model.read(tokens, between=self.check).probabilities


def supervised(model: TextClassifier, targets_: TrainingTargets) -> Supervised:
    """Return the objective that learns soft targets for the model's kind of question."""
    per_text = partial(label_loss, kind=model.spec.kind)
    return Supervised(model, targets_.targets, targets_.weights, per_text)


def hold_out(data: TrainingSet, rng: np.random.Generator) -> Rows:
    """Return labelled rows that no compared model may learn from: a tenth, at most 500.

    A tenth of the human labels and a tenth of the others; none when fewer than 100 are labelled.
    """
    labelled = np.flatnonzero(data.has_label)
    if len(labelled) < _MIN_TO_HOLD_OUT:
        return np.zeros(0, dtype=np.int64)
    parts = [labelled[data.is_human[labelled]], labelled[~data.is_human[labelled]]]
    chosen = [rng.permutation(part)[: round(len(part) * _HELD_OUT_SHARE)] for part in parts]
    return np.sort(np.concatenate(chosen)[:_MAX_HELD_OUT])


def assign_folds(data: TrainingSet, n_folds: int, rng: np.random.Generator) -> Rows:
    """Return a fold number for each text, shape (n,); equal texts share theirs."""
    keys = list(zip(data.pool.texts, data.pool.pairs or data.pool.texts, strict=True))
    return noise.assign_folds(keys, data.hard_labels, n_folds=n_folds, rng=rng).astype(np.int64)


def given_targets(data: TrainingSet, *, soft: bool) -> Floats:
    """Return the labels as given, (n, K), soft or rounded; zeros where there is none."""
    known = np.where(data.has_label[:, None], data.targets, 0.0)
    if soft:
        return known
    if not data.kind.is_exclusive:
        return (known > 0.5).astype(np.float64)
    rounded: Floats = np.eye(len(data.labels))[data.hard_labels] * data.has_label[:, None]
    return rounded


def agreement(probabilities: Floats, data: TrainingSet, rows: Rows) -> Floats:
    """Return for each row how well a prediction agrees with its label, shape (n,), in [0, 1].

    The probability that the label's posterior gives to the predicted label; for multiple choice
    the share of labels on which both say the same.
    """
    targets = data.targets[rows]
    if not data.kind.is_exclusive:
        same: Floats = ((probabilities > 0.5) == (targets > 0.5)).mean(axis=1)
        return same
    agreed: Floats = targets[np.arange(len(rows)), decide(probabilities, data.kind)]
    return agreed
