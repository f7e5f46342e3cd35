"""Data, options and tokens that the stages of one training share, and held-out rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backend.domain.ports import Encoder
from backend.domain.student import Recipe, StudentPrediction, TrainingHooks, TrainingSet
from backend.self_training.checkpoint import fingerprint
from backend.self_training.classifier import ClassifierSpec, TextClassifier, predicted_labels
from backend.self_training.embedding_probe import fit_probes
from backend.self_training.losses import ConsistencyObjective, SecondViews, SupervisedObjective
from backend.self_training.noise import Floats
from backend.self_training.tokens import Tokens
from backend.self_training.trainer import Objective, TrainingLoop, TrainingStage

Rows = NDArray[np.int64]

_HELD_OUT_SHARE = 0.1
_MAX_HELD_OUT = 500
_MIN_TO_HOLD_OUT = 100
_MIN_SCALE = 1e-9


@dataclass(frozen=True, slots=True)
class TrainingTargets:
    """Rows to train on (m,), and soft targets (n, K) and weights (n,) of all rows of the pool."""

    rows: Rows
    targets: Floats
    weights: Floats


@dataclass(slots=True)
class TrainingContext:
    """One training's data and options; `seconds` fills with the duration of each stage."""

    data: TrainingSet
    recipe: Recipe
    base: str
    seed: int
    hooks: TrainingHooks
    encoder: Encoder | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _tokens: Tokens | None = None
    _head_states: tuple[Floats, float] | None = None

    @property
    def spec(self) -> ClassifierSpec:
        """Return the classifier's labels, base model and truncation."""
        return ClassifierSpec(
            self.data.labels, self.data.kind, self.base, max_tokens=self.recipe.max_tokens
        )

    @property
    def given_weights(self) -> Floats:
        """Return the weight of each text's given label, (n,); 0 where there is none."""
        weights = np.where(self.data.is_human, self.recipe.human_weight, 1.0)
        return np.asarray(self.data.has_label * weights)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time within to the seconds of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def new_model(self) -> TextClassifier:
        """Return the base model with a new head; all of a training's are alike."""
        return TextClassifier.create(
            self.spec, seed=self.seed, mean_pooling=self.recipe.mean_pooling
        )

    def tokens(self, model: TextClassifier) -> Tokens:
        """Return the pool's tokens, made once for all models of this training."""
        if self._tokens is None:
            self._tokens = model.tokenize(self.data.pool)
        return self._tokens

    def predict(self, model: TextClassifier, rows: Rows | None = None) -> StudentPrediction:
        """Return a model's predictions for rows of the pool, for all by default."""
        tokens = self.tokens(model) if rows is None else self.tokens(model).subset(rows)
        return model.predict_tokens(tokens, before_batch=self.hooks.raise_if_cancelled)

    def fine_tune(
        self,
        name: str,
        targets: TrainingTargets,
        *,
        validate: Callable[[TextClassifier], float] | None = None,
    ) -> TextClassifier:
        """Return a new model trained on targets; the best epoch's by `validate` if given.

        Where several labels may hold the head always starts as a probe: most labels do not hold,
        and from a random head a few hundred texts teach each one's frequency and no more.
        """
        model = self.new_model()
        if self.recipe.init_head_from_probe or self.data.kind.is_multilabel:
            self._init_head(model, targets)
        weight = self.recipe.consistency_weight
        stage = TrainingStage(
            name,
            targets.rows,
            self.seed,
            self.recipe,
            validate=partial(validate, model) if validate else None,
            content=fingerprint((self.spec, weight), targets.targets, targets.weights),
        )
        supervised = SupervisedObjective(model, targets.targets, targets.weights)
        objective: Objective = supervised
        if weight:
            views = SecondViews(model, self.data.pool, self.data.views)
            objective = ConsistencyObjective(supervised, model, views, weight)
        TrainingLoop(model, self.tokens(model), objective, stage, self.hooks).run()
        return model

    def _init_head(self, model: TextClassifier, targets: TrainingTargets) -> None:
        """Start a new model's head as a probe on the targets; the pool is read once for all."""
        with self.timed("init head"):
            if self._head_states is None:
                states = model.head_states(
                    self.tokens(model), before_batch=self.hooks.raise_if_cancelled
                )
                scale = max(float(np.sqrt((states**2).sum(axis=1).mean())), _MIN_SCALE)
                self._head_states = states / scale, scale
            weights = np.zeros(len(self.data.pool))
            weights[targets.rows] = targets.weights[targets.rows]
            states, scale = self._head_states
            probes = fit_probes(states, targets.targets, weights, self.data.kind)
            model.init_head_from_probe(probes, scale=scale)


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


def label_agreement(probabilities: Floats, data: TrainingSet, rows: Rows) -> Floats:
    """Return how well each row's prediction agrees with its label, shape (m,), in [0, 1].

    The probability that the label's posterior gives to the predicted label; for multiple choice
    the F1 of the text's labels, 1 where there are none on either side: of fifty labels nearly all
    are alike also where every one that holds is missing. `probabilities`, (m, K), are predictions
    for `rows`, (m,).
    """
    targets = data.targets[rows]
    if not data.kind.is_exclusive:
        predicted_sets, given = probabilities > 0.5, targets > 0.5
        n_both = (predicted_sets & given).sum(axis=1)
        n_all = predicted_sets.sum(axis=1) + given.sum(axis=1)
        return np.asarray(np.where(n_all > 0, 2 * n_both / np.maximum(n_all, 1), 1.0))
    predicted = predicted_labels(probabilities, data.kind)
    return np.asarray(targets[np.arange(len(rows)), predicted])
