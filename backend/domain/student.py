"""Training data, recipes and results of the student, and the port that trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Example
from backend.domain.questions import Question, QuestionKind
from backend.errors import InvalidRequest, TrainingCancelled

RecipeName = Literal["plain", "paper", "default", "probe"]
"""`plain`: a fine-tune; `paper`: FreeAL as published; `default`: self-training; `probe`: linear."""


@dataclass(frozen=True, slots=True)
class PoolTexts:
    """Texts in the order of their ids; `pairs` holds each one's second text, if there are two."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.texts)} | ({len(self.pairs)} if self.pairs else set())
        if len(lengths) > 1:
            raise InvalidRequest(f"ids, texts and pairs have different lengths: {sorted(lengths)}")

    @classmethod
    def of(cls, question: Question, examples: Sequence[Example]) -> PoolTexts:
        """Return the texts that a question is about, in order.

        Of several fields the first is the text and the others, one below the other, its second one.
        """
        ids = tuple(example.id for example in examples)
        if len(question.fields) < 2:
            return cls(ids, tuple(example.text_of(question) for example in examples))
        first, others = replace(question, fields=question.fields[:1]), question.fields[1:]
        texts = tuple(example.text_of(first) for example in examples)
        seconds = tuple(
            "\n".join(filter(None, (e.texts.get(f.name, "").strip() for f in others)))
            for e in examples
        )
        return cls(ids, texts, seconds)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Return what is equal for duplicates: each text with its second one."""
        return list(zip(self.texts, self.pairs or self.texts, strict=True))

    def subset(self, rows: Sequence[int] | NDArray[np.integer]) -> PoolTexts:
        """Return the texts of these rows, in the order given."""
        return PoolTexts(
            tuple(self.ids[row] for row in rows),
            tuple(self.texts[row] for row in rows),
            tuple(self.pairs[row] for row in rows) if self.pairs else None,
        )


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Texts of a pool with soft labels, of which some are wrong and some are missing.

    Args:
        targets: (n, K), the annotators' posterior, or a person's label as 0 and 1; rows sum to 1
            unless several labels may hold. Not read where `has_label` is False.
        has_label: (n,), False where the annotators abstained.
        is_human: (n,), True where a person gave the label.
        views: paraphrases or back-translations of the texts, where there are any.
    """

    pool: PoolTexts
    labels: tuple[str, ...]
    targets: NDArray[np.float64]
    has_label: NDArray[np.bool_]
    is_human: NDArray[np.bool_]
    kind: QuestionKind = QuestionKind.SINGLE_CHOICE
    views: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        n_texts, n_labels = len(self.pool), len(self.labels)
        if self.targets.shape != (n_texts, n_labels):
            raise InvalidRequest(
                f"targets have shape {self.targets.shape}; expected ({n_texts}, {n_labels}): one "
                "row per text, one column per label"
            )
        if len(self.has_label) != n_texts or len(self.is_human) != n_texts:
            raise InvalidRequest(
                f"has_label and is_human need one value for each of {n_texts} texts"
            )
        if not np.isfinite(self.targets[self.has_label]).all():
            raise InvalidRequest("targets hold values that are not numbers; drop those labels")
        if n_labels == 0 or n_texts == 0 or not self.has_label.any():
            raise InvalidRequest(
                f"nothing to learn from: {n_texts} texts, {n_labels} labels, "
                f"{int(self.has_label.sum())} labelled texts; label some texts first"
            )

    @property
    def hard_labels(self) -> NDArray[np.int64]:
        """Return each row's likeliest label; meaningless where there is none."""
        return np.asarray(self.targets.argmax(axis=1))

    def given_targets(self, *, soft: bool) -> NDArray[np.float64]:
        """Return the targets, (n, K), soft or rounded to 0 and 1; zeros where there is no label."""
        targets = np.where(self.has_label[:, None], self.targets, 0.0)
        if soft:
            return targets
        if not self.kind.is_exclusive:
            return (targets > 0.5).astype(np.float64)
        return np.asarray(np.eye(len(self.labels))[self.hard_labels] * self.has_label[:, None])


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; every part of self-training is an option, so that an ablation can omit it.

    Args:
        n_epochs: epochs of each training.
        batch_size: None for 32, less where texts are few.
        learning_rate: None for the one that suits the encoder's width.
        max_tokens: texts are truncated to so many tokens.
        soft_targets: learn the annotators' posteriors, not their likeliest labels.
        n_folds: folds of the cross-fitting that assesses the labels, 0 for none.
        n_repeats: cross-fits, each on the labels that the last one refined; one alone where under
            300 labels, or under half of them, are one-hot.
        cross_fitted_weight: exponent of the cross-fitted predictions in the posterior.
        n_neighbors: assess labels also by those of so many nearest texts and by a linear probe,
            both on the frozen encoder's vectors; 0 for neither.
        estimate_noise: turn one-hot labels into posteriors by an estimated transition matrix.
        deconvolve_noise: take predictions learned from one-hot labels back through that matrix.
        weight_by_confidence: weight each text by the confidence in its refined label.
        keep_abstained: train also on texts without a label, by their cross-fitted predictions.
        ema_decay: average the weights over the last steps with this decay, None for no average.
        consistency_weight: weight of the consistency loss between two views of a text.
        compare_with_plain: ship a plain fine-tune where it is better on held-out labels.
        human_weight: for how many texts one human label counts.
        mean_pooling: let the head read the mean of all tokens, not the first token.
        init_head_from_probe: start the head as a linear probe, not at random; always so where
            several labels may hold, but for `paper`, which stays as published.
    """

    name: RecipeName = "default"
    n_epochs: int = 3
    batch_size: int | None = None
    learning_rate: float | None = None
    max_tokens: int = 256
    soft_targets: bool = True
    n_folds: int = 2
    n_repeats: int = 2
    cross_fitted_weight: float = 1.0
    n_neighbors: int = 30
    estimate_noise: bool = True
    deconvolve_noise: bool = True
    weight_by_confidence: bool = True
    keep_abstained: bool = True
    ema_decay: float | None = 0.99
    consistency_weight: float = 0.0
    compare_with_plain: bool = True
    human_weight: float = 2.0
    mean_pooling: bool = True
    init_head_from_probe: bool = False

    def __post_init__(self) -> None:
        if self.n_folds == 1 or self.n_folds < 0:
            raise InvalidRequest(f"n_folds={self.n_folds}; expected 0 (none) or at least 2")
        if self.n_epochs < 1 or self.n_repeats < 1 or (self.batch_size or 1) < 1:
            raise InvalidRequest("n_epochs, batch_size and n_repeats must be at least 1")


PLAIN = Recipe(
    name="plain",
    soft_targets=False,
    n_folds=0,
    n_neighbors=0,
    estimate_noise=False,
    weight_by_confidence=False,
    keep_abstained=False,
    ema_decay=None,
    compare_with_plain=False,
    human_weight=1.0,
    mean_pooling=False,
)
"""An ordinary fine-tune on the likeliest labels."""

RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(),
    "plain": PLAIN,
    "paper": replace(PLAIN, name="paper"),
    "probe": Recipe(name="probe"),
}


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is: its stage, and the epoch of that stage, counted from 1."""

    stage: str
    epoch: int
    n_epochs: int
    loss: float


@dataclass(frozen=True, slots=True)
class TrainingHooks:
    """Callbacks between two batches; from `checkpoints` a killed training resumes at its epoch."""

    on_progress: Callable[[TrainingProgress], None] = field(default=lambda progress: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)
    checkpoints: Path | None = None

    def raise_if_cancelled(self) -> None:
        """Raise TrainingCancelled if `should_stop` says so."""
        if self.should_stop():
            raise TrainingCancelled("stopped between two batches")


@dataclass(frozen=True, slots=True)
class StudentPrediction:
    """Label probabilities (n, K) and unit vectors (n, d) of n texts."""

    probabilities: NDArray[np.float64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training did, for the model card: seconds by stage, and why which model was chosen."""

    recipe: str
    seconds: Mapping[str, float]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True)
class StudentOutput:
    """Predictions of the finished model for all texts of a pool, and the quality of its labels.

    Args:
        cross_fitted: (n, K), predictions by models that did not see the text's label.
        label_quality_score: (n,), probability of the given label being right; 0.5 without a label.
        posterior: (n, K), of the true label, given its label and the cross-fitted prediction.
        label_issues: rows with a label, the likeliest errors first, people's included.
    """

    prediction: StudentPrediction
    cross_fitted: NDArray[np.float64]
    label_quality_score: NDArray[np.float64]
    posterior: NDArray[np.float64]
    label_issues: NDArray[np.int64]
    report: TrainingReport


class FittedStudent(Protocol):
    """A trained student."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels in the order of the probabilities' columns."""

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        """Predict the labels of each text, in order."""

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write the model and its card's sections by title; an existing folder is replaced."""


class Student(Protocol):
    """Trains and loads students."""

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedStudent, StudentOutput]:
        """Train on `data`.

        Raises:
            InvalidRequest: there is nothing to learn from.
            TrainingCancelled: `hooks.should_stop` said so.
            TrainingDiverged: the loss is no finite number.
        """

    def load(self, folder: Path) -> FittedStudent:
        """Read what `FittedStudent.save` wrote; raises InvalidRequest."""
