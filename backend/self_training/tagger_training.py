"""Robust training of the tagger: words judged by models that did not see their tags."""

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
from backend.errors import InvalidRequest, TrainingCancelled
from backend.self_training import noise
from backend.self_training.checkpoint import fingerprint
from backend.self_training.tagger import SpanTagger, TaggerSpec, Words, tag_words
from backend.self_training.trainer import Optimisation, Stage, TrainingStep, train

Floats = NDArray[np.float64]
_SMALLEST_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class SpanTrainingSet:
    """Texts with spans; None where nobody said anything, empty for "there is none"."""

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
    """What the tagger says of its pool.

    `predicted` spans by the finished model; `label_quality_score` (n,): probability of the spans of
    a text being right as a whole; `label_issues` are rows with spans given, likeliest errors first.
    """

    predicted: tuple[tuple[Span, ...], ...]
    label_quality_score: Floats
    label_issues: NDArray[np.int64]


class SpanModel:
    """The small model for spans; `base` "" is the embedded encoder."""

    def __init__(self, base: str = "", *, recipe: Recipe | None = None) -> None:
        self._base = base
        self._recipe = recipe or Recipe()

    def fit(
        self, data: SpanTrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[SpanTagger, SpanOutput]:
        """Train on spans that may be missing, mistyped or invented.

        The design of the text classifier at the level of words: cross-fitted tag probabilities and
        the given tags are joined by the estimated noise of the tags, the final model learns the
        joined posterior, each word weighted by how sure it is. A text is judged by its words that
        someone or something holds to be in a span, and by its least likely other word, because a
        mean over all words drowns in easy O's. FreeAL's own variant was never published: this one
        is ours (confident learning on tokens: Wang and Mueller 2022, arXiv 2210.03920).

        Raises like `Student.fit`. Cost: `n_folds` trainings (one, without folds).
        """
        work = _SpanWork(data, self._recipe, self._base, seed, hooks or TrainingHooks())
        if self._recipe.n_folds == 0:
            final, posterior = work.fit("spans", work.given, work.even_weights()), work.given
        else:
            crossed = work.cross_fit()
            posterior = work.join(crossed)
            final = work.fit("spans", posterior, work.weights(posterior))
        answers = work.read(final)
        clean = work.clean(posterior if self._recipe.n_folds else answers)
        predicted = tuple(final.decode(*pair) for pair in zip(work.words, answers, strict=True))
        label_issues = noise.label_issues(clean, work.has_spans, data.ids)
        return final, SpanOutput(predicted, clean, label_issues)

    def load(self, folder: Path) -> SpanTagger:
        """Read what `SpanTagger.save` wrote; raises InvalidRequest."""
        return SpanTagger.load(folder)


class _SpanWork:
    def __init__(
        self, data: SpanTrainingSet, recipe: Recipe, base: str, seed: int, hooks: TrainingHooks
    ) -> None:
        self._data = data
        self._recipe = recipe
        self._seed = seed
        self._hooks = hooks
        self._spec = TaggerSpec(data.labels, base, recipe.max_tokens)
        self.tokens, self.words = SpanTagger.create(self._spec, seed=seed).tokenize(data.texts)
        self.has_spans = np.array([spans is not None for spans in data.spans])
        eye = np.eye(len(self._spec.tags))
        self.given = [
            eye[tag_words(words, spans or (), data.labels)]
            for words, spans in zip(self.words, data.spans, strict=True)
        ]

    def even_weights(self) -> list[Floats]:
        """Return weight 1 for each word of a labelled text, 0 for the others."""
        return [
            np.full(len(tags), float(is_given))
            for tags, is_given in zip(self.given, self.has_spans, strict=True)
        ]

    def weights(self, posterior: Sequence[Floats]) -> list[Floats]:
        """Return each word's weight: its posterior's lead over an even guess, people's fixed."""
        even = 1 / len(self._spec.tags)
        weights = []
        for row, tags in enumerate(posterior):
            lead = np.clip((tags.max(axis=1, initial=even) - even) / (1 - even), 0, 1)
            lead = np.maximum(lead, _SMALLEST_WEIGHT)
            if self._data.is_human[row]:
                lead = np.full(len(tags), self._recipe.human_weight)
            is_used = self.has_spans[row] or self._recipe.keep_abstained
            weights.append(lead * float(is_used))
        return weights

    def fit(
        self,
        name: str,
        targets: Sequence[Floats],
        weights: Sequence[Floats],
        rows: NDArray[np.int64] | None = None,
    ) -> SpanTagger:
        """Return a tagger that learned these tags."""
        if rows is None:
            rows = np.flatnonzero([bool((each > 0).any()) for each in weights])
        model = SpanTagger.create(self._spec, seed=self._seed)
        recipe = self._recipe
        plan = Optimisation(
            n_epochs=recipe.n_epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            ema_decay=recipe.ema_decay,
        )
        content = fingerprint(self._spec, *targets, *weights)
        objective = _TagObjective(model, self.words, targets, weights)
        train(
            model,
            self.tokens,
            objective,
            Stage(name, rows, self._seed, plan, content=content),
            self._hooks,
        )
        return model

    def read(self, model: SpanTagger) -> list[Floats]:
        """Return a model's tag probabilities for every word."""
        return model.read(self.tokens, self.words, between=self._check)

    def cross_fit(self) -> list[Floats]:
        """Return tag probabilities by models that did not see the text."""
        n_folds = self._recipe.n_folds
        labels = np.array([len(spans or ()) for spans in self._data.spans])
        rng = np.random.default_rng(self._seed)
        folds = noise.assign_folds(self._data.texts, labels, n_folds=n_folds, rng=rng)
        out = list(self.given)
        weights = self.even_weights()
        for fold in range(n_folds):
            rows = np.flatnonzero(self.has_spans & (folds != fold))
            if len(rows) == 0:
                continue
            model = self.fit(f"spans fold {fold + 1}", self.given, weights, rows)
            mine = np.flatnonzero(folds == fold)
            answers = model.read(
                self.tokens.subset(mine), [self.words[row] for row in mine], between=self._check
            )
            for row, answer in zip(mine, answers, strict=True):
                out[row] = answer
        return out

    def join(self, crossed: Sequence[Floats]) -> list[Floats]:
        """Return the posterior of each word's tag; people's spans stay as they are."""
        weak = np.flatnonzero(self.has_spans & ~self._data.is_human)
        if len(weak) == 0:
            return [
                given if known else answer
                for given, answer, known in zip(self.given, crossed, self.has_spans, strict=True)
            ]
        labels = np.concatenate([self.given[row].argmax(axis=1) for row in weak])
        answers = np.concatenate([crossed[row] for row in weak])
        matrix = noise.transition_matrix(labels, answers) if len(labels) else None
        out = []
        for row, given in enumerate(self.given):
            if self._data.is_human[row]:
                out.append(given)
            elif not self.has_spans[row] or matrix is None:
                out.append(crossed[row])
            else:
                likelihood = matrix[:, given.argmax(axis=1)].T
                joined = likelihood * crossed[row]
                total = np.maximum(joined.sum(axis=1, keepdims=True), 1e-12)
                out.append(joined / total)
        return out

    def clean(self, posterior: Sequence[Floats]) -> Floats:
        """Return the probability of each text's spans: mean over span words, least other word."""
        out = np.full(len(self.given), 0.5)
        for row in np.flatnonzero(self.has_spans):
            given, joined = self.given[row], posterior[row]
            if len(given) == 0:
                out[row] = 1.0
                continue
            support = (given * joined).sum(axis=1)
            is_span = given.argmax(axis=1) > 0
            inside = support[is_span].mean() if is_span.any() else 1.0
            outside = support[~is_span].min() if (~is_span).any() else 1.0
            out[row] = min(inside, outside)
        return out

    def _check(self) -> None:
        if self._hooks.should_stop():
            raise TrainingCancelled("stopped between two batches")


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
        """Leave everything as it is."""

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the weighted mean over the batch's words; 0 when there are none."""
        logits: Tensor = self._model.model(**inputs).logits.float()
        device = logits.device
        lines = np.concatenate(
            [np.full(len(self._words[row].positions), n) for n, row in enumerate(step.rows)]
        ).astype(np.int64)
        places = np.concatenate([self._words[row].positions for row in step.rows])
        targets = np.concatenate([self._targets[row] for row in step.rows])
        weights = np.concatenate([self._weights[row] for row in step.rows])
        chosen = logits[torch.as_tensor(lines), torch.as_tensor(places)]
        losses = functional.cross_entropy(
            chosen,
            torch.as_tensor(targets, dtype=torch.float32, device=device),
            reduction="none",
        )
        scale = torch.as_tensor(weights, dtype=torch.float32, device=device)
        return (losses * scale).sum() / scale.sum().clamp(min=1e-6) + logits.sum() * 0.0
