"""Train the span tagger robustly: cross-fitted tag probabilities assess the given tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from backend.domain.labels import Span
from backend.domain.student import Recipe, TrainingHooks
from backend.errors import InvalidRequest
from backend.self_training import noise
from backend.self_training.checkpoint import fingerprint
from backend.self_training.noise import Floats
from backend.self_training.tagger import SpanTagger, TaggerSpec, Words, tag_words
from backend.self_training.trainer import TrainingStage, TrainingStep, train

_MIN_WEIGHT = 0.05
_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class SpanTrainingSet:
    """Texts with spans: None where nobody labelled the text, empty where it has none."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    spans: tuple[tuple[Span, ...] | None, ...]
    is_human: NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.texts), len(self.spans), len(self.is_human)}
        if len(lengths) > 1:
            raise InvalidRequest(f"ids, texts, spans and is_human differ in length: {lengths}")
        if not self.labels or all(spans is None for spans in self.spans):
            raise InvalidRequest("nothing to learn from: no text has spans; label some first")


@dataclass(frozen=True, slots=True)
class SpanOutput:
    """Predicted spans of a pool, and the quality of the given ones.

    Args:
        predicted: spans by the finished model.
        label_quality_score: (n,), probability of a text's spans being right as a whole.
        label_issues: rows with spans given, the likeliest errors first.
    """

    predicted: tuple[tuple[Span, ...], ...]
    label_quality_score: Floats
    label_issues: NDArray[np.int64]


class SpanTrainer:
    """Trains span taggers; `base` "" is the embedded encoder."""

    def __init__(self, base: str = "", *, recipe: Recipe | None = None) -> None:
        self._base = base
        self._recipe = recipe or Recipe()

    def fit(
        self, data: SpanTrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[SpanTagger, SpanOutput]:
        """Train on spans that may be missing, mistyped or invented.

        The design of the text classifier at the level of words: cross-fitted tag probabilities and
        the given tags are combined under the estimated noise of the tags, the final model learns
        the posterior, each word weighted by its confidence. A text is assessed by its span words,
        given or predicted, and by its least likely other word, because a mean over all words drowns
        in easy O's. FreeAL's own variant was never published: this one is ours (confident learning
        on tokens: Wang and Mueller 2022, arXiv 2210.03920).

        Raises like `Student.fit`. Cost: `n_folds` trainings (one, without folds).
        """
        spec = TaggerSpec(data.labels, self._base, self._recipe.max_tokens)
        training = _SpanTraining(data, self._recipe, spec, seed, hooks or TrainingHooks())
        if self._recipe.n_folds == 0:
            targets, weights = training.given, training.given_weights()
        else:
            targets = training.posterior(training.cross_fit())
            weights = training.confidence_weights(targets)
        model = training.fine_tune("spans", targets, weights)
        probabilities = training.predict(model)
        words = training.words
        predicted = tuple(model.decode(*pair) for pair in zip(words, probabilities, strict=True))
        score = training.quality_score(targets if self._recipe.n_folds else probabilities)
        issues = noise.label_issues(score, training.has_spans, data.ids)
        return model, SpanOutput(predicted, score, issues)

    def load(self, folder: Path) -> SpanTagger:
        """Read what `SpanTagger.save` wrote; raises InvalidRequest."""
        return SpanTagger.load(folder)


class _SpanTraining:
    """One training's data as words and tags."""

    def __init__(
        self,
        data: SpanTrainingSet,
        recipe: Recipe,
        spec: TaggerSpec,
        seed: int,
        hooks: TrainingHooks,
    ) -> None:
        self._data = data
        self._recipe = recipe
        self._spec = spec
        self._seed = seed
        self._hooks = hooks
        self.tokens, self.words = SpanTagger.create(spec, seed=seed).tokenize(data.texts)
        self.has_spans = np.array([spans is not None for spans in data.spans])
        one_hot = np.eye(len(spec.tags))
        self.given = [
            one_hot[tag_words(words, spans or (), data.labels)]
            for words, spans in zip(self.words, data.spans, strict=True)
        ]

    def given_weights(self) -> list[Floats]:
        """Return weight 1 for each word of a labelled text, 0 for the others."""
        return [
            np.full(len(tags), float(is_given))
            for tags, is_given in zip(self.given, self.has_spans, strict=True)
        ]

    def confidence_weights(self, posterior: Sequence[Floats]) -> list[Floats]:
        """Return each word's weight: its posterior's lead over a uniform one; people's fixed."""
        uniform = 1 / len(self._spec.tags)
        weights = []
        for row, tags in enumerate(posterior):
            lead = np.clip((tags.max(axis=1, initial=uniform) - uniform) / (1 - uniform), 0, 1)
            lead = np.maximum(lead, _MIN_WEIGHT)
            if self._data.is_human[row]:
                lead = np.full(len(tags), self._recipe.human_weight)
            is_used = self.has_spans[row] or self._recipe.keep_abstained
            weights.append(lead * float(is_used))
        return weights

    def fine_tune(
        self,
        name: str,
        targets: Sequence[Floats],
        weights: Sequence[Floats],
        rows: NDArray[np.int64] | None = None,
    ) -> SpanTagger:
        """Return a tagger trained on soft tags (w, tags) and weights (w,) of each text's words."""
        if rows is None:
            rows = np.flatnonzero([bool((each > 0).any()) for each in weights])
        model = SpanTagger.create(self._spec, seed=self._seed)
        content = fingerprint(self._spec, *targets, *weights)
        stage = TrainingStage(name, rows, self._seed, self._recipe, content=content)
        objective = _TagObjective(model, self.words, targets, weights)
        train(model, self.tokens, objective, stage, self._hooks)
        return model

    def predict(self, model: SpanTagger, rows: NDArray[np.int64] | None = None) -> list[Floats]:
        """Return a model's tag probabilities for every word of these texts, of all by default."""
        tokens, words = self.tokens, self.words
        if rows is not None:
            tokens, words = tokens.subset(rows), [words[row] for row in rows]
        return model.predict_tags(tokens, words, before_batch=self._hooks.raise_if_cancelled)

    def cross_fit(self) -> list[Floats]:
        """Return tag probabilities by models that did not see the text."""
        n_folds = self._recipe.n_folds
        n_spans = np.array([len(spans or ()) for spans in self._data.spans])
        rng = np.random.default_rng(self._seed)
        folds = noise.assign_folds(self._data.texts, n_spans, n_folds=n_folds, rng=rng)
        out = list(self.given)
        weights = self.given_weights()
        for fold in range(n_folds):
            rows = np.flatnonzero(self.has_spans & (folds != fold))
            if len(rows) == 0:
                continue
            model = self.fine_tune(f"spans fold {fold + 1}", self.given, weights, rows)
            held_out = np.flatnonzero(folds == fold)
            for row, tags in zip(held_out, self.predict(model, held_out), strict=True):
                out[row] = tags
        return out

    def posterior(self, cross_fitted: Sequence[Floats]) -> list[Floats]:
        """Return the posterior of each word's tag; people's spans stay as they are."""
        is_weak = self.has_spans & ~self._data.is_human
        matrix = self._transition_matrix(cross_fitted, np.flatnonzero(is_weak))
        out = []
        for row, (given, predicted) in enumerate(zip(self.given, cross_fitted, strict=True)):
            if self._data.is_human[row] and self.has_spans[row]:
                out.append(given)
            elif not self.has_spans[row] or matrix is None:
                out.append(predicted)
            else:
                joint = matrix[:, given.argmax(axis=1)].T * predicted
                total = np.maximum(joint.sum(axis=1, keepdims=True), _MIN_PROBABILITY)
                out.append(joint / total)
        return out

    def _transition_matrix(
        self, cross_fitted: Sequence[Floats], weak: NDArray[np.int64]
    ) -> Floats | None:
        """Return the noise of the tags given in `weak` rows, None where these have no words."""
        labels = [self.given[row].argmax(axis=1) for row in weak]
        if not sum(map(len, labels)):
            return None
        predicted = np.concatenate([cross_fitted[row] for row in weak])
        return noise.transition_matrix(np.concatenate(labels), predicted)

    def quality_score(self, posterior: Sequence[Floats]) -> Floats:
        """Return the probability of each text's spans: mean over span words, least other word."""
        out = np.full(len(self.given), 0.5)
        for row in np.flatnonzero(self.has_spans):
            given = self.given[row]
            support = (given * posterior[row]).sum(axis=1)
            is_span = given.argmax(axis=1) > 0
            inside = support[is_span].mean() if is_span.any() else 1.0
            outside = support[~is_span].min(initial=1.0)
            out[row] = min(inside, outside)
        return out


class _TagObjective:
    """Soft cross-entropy over words, weighted by word."""

    def __init__(
        self,
        model: SpanTagger,
        words: Sequence[Words],
        targets: Sequence[Floats],
        weights: Sequence[Floats],
    ) -> None:
        self._model = model
        self._words = words
        self._targets = targets
        self._weights = weights

    def before_epoch(self, epoch: int) -> None:
        """Do nothing: targets and weights stay the same."""

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the weighted mean over the batch's words; 0 when there are none."""
        logits: Tensor = self._model.model(**inputs).logits.float()
        positions = [self._words[row].positions for row in step.rows]
        texts = np.repeat(np.arange(len(positions)), [len(each) for each in positions])
        chosen = logits[torch.as_tensor(texts), torch.as_tensor(np.concatenate(positions))]
        targets, weights = (
            torch.as_tensor(
                np.concatenate([values[row] for row in step.rows]),
                dtype=torch.float32,
                device=logits.device,
            )
            for values in (self._targets, self._weights)
        )
        losses = functional.cross_entropy(chosen, targets, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp(min=1e-6) + logits.sum() * 0.0
