"""Annotate without an LLM: compare texts with label definitions in the embedding space."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, ndtri, softmax

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    Example,
    PromptContext,
    WeakLabel,
)
from backend.domain.ports import Encoder
from backend.domain.questions import LabelDefinition, Question, TaskSchema
from backend.label_model.calibration import BatchCalibrator
from backend.label_model.latent_class import Floats
from backend.label_model.linear_probe import LinearProbe, fit_probe

_VERSION = "definitions-1"
_INVERSE_TEMPERATURE = 20.0
"""Cosines differ by hundredths; the calibration finds the true scale."""
_MULTILABEL_INVERSE_TEMPERATURE = 2.0
_N_PSEUDO_LABELS = 50
_MAX_TEXTS = 4000
_WORD = re.compile(r"[^\W\d_]{2}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Two letters, or one character of a script that writes words with one."""


@dataclass(frozen=True, slots=True)
class SimilarityFit:
    """Parameters fitted to a pool for one question, kept as JSON.

    A calibrator for an exclusive question; for multiple choice the mean and standard deviation of
    each label's cosine; a probe on the texts' vectors, once there are human labels.
    """

    calibrator: BatchCalibrator | None = None
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    probe: LinearProbe | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same fit."""
        return {
            "calibrator": self.calibrator.to_json() if self.calibrator else None,
            "mean": list(self.mean),
            "spread": list(self.spread),
            "probe": self.probe.to_json() if self.probe else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SimilarityFit:
        """Read what `to_json` wrote."""
        calibrator, probe = data["calibrator"], data["probe"]
        return cls(
            BatchCalibrator.from_json(calibrator) if calibrator else None,
            tuple(data["mean"]),
            tuple(data["spread"]),
            LinearProbe.from_json(probe) if probe else None,
        )


@dataclass(frozen=True, slots=True)
class SimilarityAnnotator:
    """The `Annotator` port over an encoder: no LLM, no prompt, 860 short texts a second on 2 cores.

    A text's cosine to each label's definition becomes a posterior by `BatchCalibrator`, which
    takes out that some definitions lie near every text (hubs) and finds the scale. A question that
    is not in `fits` is calibrated on the batch at hand.
    """

    encoder: Encoder
    fits: Mapping[str, SimilarityFit] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the annotator's name in weak labels."""
        return f"similarity:{self.encoder.name}"

    def can_answer(self, question: Question) -> bool:
        """Return whether the labels mean something by themselves, each and every one.

        Values of a scale and the sides of a comparison do not: what lies near "5" or near a column
        titled "right" says nothing about a text. Nor do labels without a word in name and hint.
        """
        kind = question.kind
        if not kind.has_posterior or kind.is_ordinal or kind.compares_texts:
            return False
        texts = [definition_text(label) for label in question.labels]
        return bool(texts) and all(_WORD.search(text) for text in texts)

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Label every example for every question, example by example in the given order.

        Abstains on what `can_answer` says no to.
        """
        columns = [self._annotate(question, examples) for question in schema.questions]
        return [weak for row in zip(*columns, strict=True) for weak in row]

    def fit(
        self, question: Question, examples: Sequence[Example], human: Mapping[int, int]
    ) -> SimilarityFit:
        """Fit a question's scales to pool texts, and a probe if there are human labels.

        At most 4,000 texts without a human label are used, evenly spread over `examples`. `human`
        holds the class index by example id, for exclusive questions only.
        """
        usable = [example for example in examples if example.text_of(question)]
        labelled = [example for example in usable if example.id in human]
        others = [example for example in usable if example.id not in human]
        others = others[:: max(1, -(-len(others) // _MAX_TEXTS))]
        vectors = self._vectors(question, [*labelled, *others])
        cosines = vectors @ self._definitions(question).T
        if not question.kind.is_exclusive:
            return _fit_multilabel(cosines)
        posteriors = softmax(_INVERSE_TEMPERATURE * cosines, axis=1)
        calibrator = BatchCalibrator.fit(posteriors)
        if not labelled:
            return SimilarityFit(calibrator)
        classes = np.array([human[example.id] for example in labelled])
        targets = calibrator.apply(posteriors)
        targets[: len(classes)] = np.eye(len(question.labels))[classes]
        weights = np.full(len(targets), _N_PSEUDO_LABELS / max(1, len(others)))
        weights[: len(classes)] = 1.0
        return SimilarityFit(calibrator, probe=fit_probe(vectors, targets, weights))

    def learn(
        self, question: Question, examples: Sequence[Example], human: Mapping[int, int]
    ) -> dict[str, Any]:
        """Return `fit` as JSON; empty for questions that it cannot answer."""
        has_text = any(example.text_of(question) for example in examples)
        is_answered = has_text and self.can_answer(question)
        return self.fit(question, examples, human).to_json() if is_answered else {}

    def recall(self, learned: Mapping[str, Mapping[str, Any]]) -> SimilarityAnnotator:
        """Return an annotator over the same encoder with what `learn` returned, by question."""
        fits = {name: SimilarityFit.from_json(fit) for name, fit in learned.items() if fit}
        return SimilarityAnnotator(self.encoder, fits)

    def shortlist(
        self, question: Question, examples: Sequence[Example], n: int
    ) -> list[tuple[int, ...]]:
        """Return for each example the positions of its n nearest labels, nearest first.

        For label spaces that fit in no prompt. Each label's mean cosine over the examples is
        subtracted first; ties and missing texts keep the label space's order.
        """
        n = min(n, len(question.labels))
        present = [i for i, example in enumerate(examples) if example.text_of(question)]
        nearest = [tuple(range(n))] * len(examples)
        if not present or n == 0:
            return nearest
        vectors = self._vectors(question, [examples[i] for i in present])
        cosines = vectors @ self._definitions(question).T
        weight = len(present) / (len(present) + len(question.labels))
        order = np.argsort(-(cosines - weight * cosines.mean(axis=0)), axis=1, kind="stable")
        for row, i in enumerate(present):
            nearest[i] = tuple(int(label) for label in order[row, :n])
        return nearest

    def _annotate(self, question: Question, examples: Sequence[Example]) -> list[WeakLabel]:
        is_asked = self.can_answer(question)
        present = [
            i for i, example in enumerate(examples) if is_asked and example.text_of(question)
        ]
        posteriors = self._posteriors(question, [examples[i] for i in present])
        row_of = {i: row for row, i in enumerate(present)}
        return [
            WeakLabel(
                example.id,
                question.name,
                self.name,
                _VERSION,
                probabilities=tuple(posteriors[row_of[i]].tolist()) if i in row_of else (),
                abstention=None if i in row_of else _reason(question, example),
                annotator_kind=AnnotatorKind.SIMILARITY,
            )
            for i, example in enumerate(examples)
        ]

    def _posteriors(self, question: Question, examples: Sequence[Example]) -> Floats:
        if not examples:
            return np.empty((0, len(question.labels)))
        vectors = self._vectors(question, examples)
        fit = self.fits.get(question.name)
        if fit and fit.probe:
            return fit.probe.posterior(vectors)
        cosines = vectors @ self._definitions(question).T
        if not question.kind.is_exclusive:
            fit = fit or _fit_multilabel(cosines)
            deviations = (cosines - np.asarray(fit.mean)) / np.asarray(fit.spread)
            share = 1 / (cosines.shape[1] + 1)  # each label as likely as each other one and as none
            return np.asarray(expit(_MULTILABEL_INVERSE_TEMPERATURE * (deviations + ndtri(share))))
        raw = softmax(_INVERSE_TEMPERATURE * cosines, axis=1)
        calibrator = fit.calibrator if fit else None
        return (calibrator or BatchCalibrator.fit(raw)).apply(raw)

    def _vectors(self, question: Question, examples: Sequence[Example]) -> Floats:
        texts = [example.text_of(question) for example in examples]
        return self.encoder.embed(texts).astype(float)

    def _definitions(self, question: Question) -> Floats:
        texts = [definition_text(label) for label in question.labels]
        return self.encoder.embed(texts).astype(float)


def definition_text(label: LabelDefinition) -> str:
    """Return a label as it is embedded: its name, with its path, and its hint if there is one."""
    name = ", ".join(label.path) or label.name
    return f"{name}: {label.hint}" if label.hint else name


def _fit_multilabel(cosines: Floats) -> SimilarityFit:
    if len(cosines) == 0:
        cosines = np.zeros((1, cosines.shape[1]))
    spread = np.where(cosines.std(axis=0) > 0, cosines.std(axis=0), 1.0)
    return SimilarityFit(mean=tuple(cosines.mean(axis=0)), spread=tuple(spread))


def _reason(question: Question, example: Example) -> Abstention:
    why = example.why_not_asked(question)
    if why is not None:
        return why
    return Abstention(
        AbstentionReason.REJECTED, "the labels say nothing that a text could be similar to"
    )
