"""Train the span tagger robustly: cross-fitted tag probabilities assess the given tags."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from backend.domain.labels import Span
from backend.domain.span_student import SpanOutput, SpanTrainingSet
from backend.domain.student import Recipe, TrainingHooks, TrainingReport
from backend.self_training import noise
from backend.self_training.checkpoint import fingerprint
from backend.self_training.encoder_files import base_name
from backend.self_training.noise import Floats
from backend.self_training.tagger import SpanTagger, TaggerSpec, Words, tag_words
from backend.self_training.trainer import Objective, TrainingLoop, TrainingStage, TrainingStep

_MIN_WEIGHT = 0.05
_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class SpanTrainer:
    """Trains span taggers; `base` "" is the embedded encoder."""

    base: str = ""
    recipe: Recipe = Recipe()

    def fit(
        self, data: SpanTrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[SpanTagger, SpanOutput]:
        """Train on spans that may be missing, mistyped or invented.

        The design of the text classifier at the level of words: cross-fitted tag probabilities and
        the given tags are combined under the estimated noise of the tags, the final model learns
        the posterior, each word weighted by its confidence. A text is assessed by its span words,
        given or predicted, and by its least likely other word, because a mean over all words drowns
        in easy O's. FreeAL's own variant was never published; this is a new one (confident learning
        on tokens: Wang and Mueller 2022, arXiv 2210.03920).

        A text that is too long for the model is learned in pieces, all in one fold.

        Raises like `Student.fit`. Cost: `n_folds` trainings (one, without folds).
        """
        spec = TaggerSpec(data.labels, self.base, self.recipe.max_tokens)
        started = time.perf_counter()
        tagger = SpanTagger.create(spec, seed=seed)
        pieces = tagger.cut(data.texts)
        keys = tuple(data.texts[row] for row in pieces.rows)
        options = _Options(self.recipe, spec, seed, hooks or TrainingHooks())
        training = _SpanTraining(pieces.of(data), keys, options, tagger)
        targets, weights = training.given, training.given_weights
        held_out = None
        if self.recipe.n_folds:
            held_out = training.cross_fit()
            targets = training.posterior(held_out)
            weights = training.confidence_weights(targets)
        crossed_at = time.perf_counter()
        model = training.fine_tune("spans", targets, weights)
        probabilities = training.predict(model)
        predicted = pieces.joined(training.decode(model, probabilities))
        crossed = predicted
        if held_out is not None:
            crossed = pieces.joined(training.decode(model, held_out))
        score = pieces.least(training.quality_score(probabilities if held_out is None else targets))
        has_spans = np.array([spans is not None for spans in data.spans])
        issues = noise.label_issues(score, has_spans, data.ids)
        seconds = {"cross-fit": crossed_at - started, "final": time.perf_counter() - crossed_at}
        report = TrainingReport(self.recipe.name, seconds, base=base_name(self.base))
        return model, SpanOutput(predicted, crossed, score, issues, report)

    def load(self, folder: Path) -> SpanTagger:
        """Read what `SpanTagger.save` wrote; raises InvalidRequest."""
        return SpanTagger.load(folder)


@dataclass(frozen=True, slots=True)
class _Options:
    """Options of one training."""

    recipe: Recipe
    spec: TaggerSpec
    seed: int
    hooks: TrainingHooks


@dataclass
class _SpanTraining:
    """One training's data as w words of all texts in a row, with one-hot tags (w, tags).

    `keys` are equal for texts that share a fold; `tagger` splits texts into words.
    """

    data: SpanTrainingSet
    keys: tuple[str, ...]
    options: _Options
    tagger: InitVar[SpanTagger]

    def __post_init__(self, tagger: SpanTagger) -> None:
        data, options = self.data, self.options
        self.recipe, self.spec = options.recipe, options.spec
        self.seed, self.hooks = options.seed, options.hooks
        self.tokens, self.words = tagger.tokenize(data.texts)
        self.has_spans = np.array([spans is not None for spans in data.spans])
        tags = [
            tag_words(words, spans or (), data.labels)
            for words, spans in zip(self.words, data.spans, strict=True)
        ]
        self.given = np.eye(len(self.spec.tags))[np.concatenate(tags)]
        self.first_word = np.cumsum([0, *map(len, tags)])
        self._text_of_word = np.repeat(np.arange(len(tags)), np.diff(self.first_word))

    @property
    def given_weights(self) -> Floats:
        """Return weight 1 for each word of a labelled text, 0 for the others, shape (w,)."""
        return self.has_spans[self._text_of_word].astype(np.float64)

    def confidence_weights(self, posterior: Floats) -> Floats:
        """Return each word's weight: its posterior's lead over a uniform one; people's fixed."""
        uniform = 1 / len(self.spec.tags)
        lead = np.clip((posterior.max(axis=1) - uniform) / (1 - uniform), _MIN_WEIGHT, 1)
        is_human = self.data.is_human[self._text_of_word]
        is_used = (self.has_spans | self.recipe.keep_abstained)[self._text_of_word]
        return np.asarray(is_used * np.where(is_human, self.recipe.human_weight, lead))

    def fine_tune(
        self, name: str, targets: Floats, weights: Floats, rows: NDArray[np.int64] | None = None
    ) -> SpanTagger:
        """Return a tagger trained on soft tags (w, tags) and weights (w,); `rows` are texts."""
        if rows is None:
            rows = np.unique(self._text_of_word[weights > 0])
        model = SpanTagger.create(self.spec, seed=self.seed)
        content = fingerprint(self.spec, targets, weights)
        stage = TrainingStage(name, rows, self.seed, self.recipe, content=content)
        objective = _TagObjective(model, self.words, targets, weights)
        TrainingLoop(model, self.tokens, objective, stage, self.hooks).run()
        return model

    def predict(self, model: SpanTagger, rows: NDArray[np.int64] | None = None) -> Floats:
        """Return a model's tag probabilities for every word of these texts, of all by default."""
        rows = np.arange(len(self.words)) if rows is None else rows
        words, check = [self.words[row] for row in rows], self.hooks.raise_if_cancelled
        return np.concatenate(model.predict_tags(self.tokens.subset(rows), words, check))

    def decode(self, model: SpanTagger, probabilities: Floats) -> tuple[tuple[Span, ...], ...]:
        """Return the spans of each text by the tag probabilities (w, tags) of all words."""
        by_text = np.split(probabilities, self.first_word[1:-1])
        return tuple(starmap(model.decode, zip(self.words, by_text, strict=True)))

    def cross_fit(self) -> Floats:
        """Return tag probabilities by models that did not see the text, shape (w, tags)."""
        n_folds = self.recipe.n_folds
        n_spans = np.array([len(spans or ()) for spans in self.data.spans])
        rng = np.random.default_rng(self.seed)
        folds = noise.assign_folds(self.keys, n_spans, n_folds=n_folds, rng=rng)
        out = self.given.copy()
        for fold in range(n_folds):
            rows = np.flatnonzero(self.has_spans & (folds != fold))
            held_out = np.flatnonzero(folds == fold)
            if len(rows) and len(held_out):
                name = f"spans fold {fold + 1}"
                model = self.fine_tune(name, self.given, self.given_weights, rows)
                out[folds[self._text_of_word] == fold] = self.predict(model, held_out)
        return out

    def posterior(self, cross_fitted: Floats) -> Floats:
        """Return the posterior of each word's tag, (w, tags); people's spans stay as they are."""
        has_spans = self.has_spans[self._text_of_word]
        is_human = has_spans & self.data.is_human[self._text_of_word]
        out = np.where(is_human[:, None], self.given, cross_fitted)
        is_weak = has_spans & ~is_human
        if is_weak.any():
            tags, predicted = self.given[is_weak].argmax(axis=1), cross_fitted[is_weak]
            joint = noise.transition_matrix(tags, predicted)[:, tags].T * predicted
            out[is_weak] = joint / np.maximum(joint.sum(axis=1, keepdims=True), _MIN_PROBABILITY)
        return out

    def quality_score(self, posterior: Floats) -> Floats:
        """Return the probability of each text's spans: mean over span words, least other word."""
        support = (self.given * posterior).sum(axis=1)
        is_span = self.given.argmax(axis=1) > 0
        out = np.full(len(self.words), 0.5)
        for row in np.flatnonzero(self.has_spans):
            words = slice(*self.first_word[row : row + 2])
            inside, outside = support[words][is_span[words]], support[words][~is_span[words]]
            out[row] = min(inside.mean() if len(inside) else 1.0, outside.min(initial=1.0))
        return out


class _TagObjective(Objective):
    """Soft cross-entropy over words, weighted by word."""

    def __init__(
        self, model: SpanTagger, words: Sequence[Words], targets: Floats, weights: Floats
    ) -> None:
        self._model = model
        self._positions = [each.positions for each in words]
        self._first_word = np.cumsum([0, *map(len, self._positions)])
        self._targets = torch.as_tensor(targets, dtype=torch.float32, device=model.device)
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=model.device)

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the weighted mean over the batch's words; 0 when there are none."""
        logits: Tensor = self._model.model(**inputs).logits.float()
        positions = [self._positions[row] for row in step.rows]
        texts = np.repeat(np.arange(len(positions)), [len(each) for each in positions])
        chosen = logits[torch.as_tensor(texts), torch.as_tensor(np.concatenate(positions))]
        ranges = [np.arange(*self._first_word[row : row + 2]) for row in step.rows]
        words = torch.as_tensor(np.concatenate(ranges), device=logits.device)
        losses = functional.cross_entropy(chosen, self._targets[words], reduction="none")
        weights = self._weights[words]
        return (losses * weights).sum() / weights.sum().clamp(min=1e-6) + logits.sum() * 0.0
