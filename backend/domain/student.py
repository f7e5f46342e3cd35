"""What the small model learns from, how, what it gives back, and the port behind which it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import QuestionKind
from backend.errors import InvalidRequest

RecipeName = Literal["plain", "paper", "default", "probe"]
"""`plain`: an ordinary fine-tune; `paper`: FreeAL as published; `default`: the best measured."""


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

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, rows: Sequence[int] | NDArray[np.integer]) -> PoolTexts:
        """Return the texts at these positions, in the order given."""
        chosen = [int(row) for row in rows]
        return PoolTexts(
            tuple(self.ids[row] for row in chosen),
            tuple(self.texts[row] for row in chosen),
            tuple(self.pairs[row] for row in chosen) if self.pairs else None,
        )


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Texts of a pool with what is believed of their labels.

    `targets` has shape (n, K): the annotator's posterior, or a person's label as 0 and 1. Rows sum
    to 1 for an exclusive question; each value is a probability for multiple choice. Where
    `has_label` is False the annotator abstained, and the row's targets are not read. `is_human`
    marks labels by people. `views` are second wordings (a back-translation, a paraphrase) where
    there is one.
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
        labels: NDArray[np.int64] = self.targets.argmax(axis=1)
        return labels


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; every part of self-training is one option, so that it can be left out.

    `learning_rate`: None for the one that suits the encoder's width. `batch_size`: None for 32,
    less where texts are few. `soft_targets`: learn from the annotator's posterior, not from its
    likeliest label alone. `n_folds`: cross-fit that many models to judge the labels, 0 for none;
    `n_rounds`: how often, each time with other folds and on what the last round made of the labels,
    where at least 300 labels are one-hot and most are, else once. `join_strength`: the say of
    cross-fitted predictions beside the label's posterior. `n_neighbours`: labels of that many
    nearest texts in the frozen encoder's space speak too, and a probe on it; 0 for neither.
    `estimate_noise`: a one-hot label's posterior comes from the estimated noise matrix;
    `deconvolve_noise`: predictions made of such labels are taken back through it.
    `weigh_by_clean`: a text counts by the confidence in its refined label. `keep_abstained`:
    texts without a label learn from what cross-fitted models say. `ema_decay`: average the
    weights over the last steps, None for none. `consistency`: weight of the agreement of two
    views.
    `compare_with_plain`: where the final model agrees clearly less with held-out labels than the
    fold models do, train the plain recipe too, and ship it when it is better. `human_weight`: how
    many texts one human label counts for. `reads_all_tokens`: the head reads the mean of all tokens
    instead of the first alone. `start_from_probe`: it starts as a probe on what it reads, instead
    of at random.
    """

    name: RecipeName = "default"
    n_epochs: int = 3
    batch_size: int | None = None
    learning_rate: float | None = None
    max_tokens: int = 256
    soft_targets: bool = True
    n_folds: int = 2
    n_rounds: int = 2
    join_strength: float = 1.0
    n_neighbours: int = 30
    estimate_noise: bool = True
    deconvolve_noise: bool = True
    weigh_by_clean: bool = True
    keep_abstained: bool = True
    ema_decay: float | None = 0.99
    consistency: float = 0.0
    compare_with_plain: bool = True
    human_weight: float = 2.0
    reads_all_tokens: bool = True
    start_from_probe: bool = False

    def __post_init__(self) -> None:
        if self.n_folds == 1 or self.n_folds < 0:
            raise InvalidRequest(f"n_folds={self.n_folds}; expected 0 (none) or at least 2")
        if self.n_epochs < 1 or self.n_rounds < 1 or (self.batch_size or 1) < 1:
            raise InvalidRequest("n_epochs, batch_size and n_rounds must be at least 1")


PLAIN = Recipe(
    name="plain",
    soft_targets=False,
    n_folds=0,
    n_neighbours=0,
    estimate_noise=False,
    weigh_by_clean=False,
    keep_abstained=False,
    ema_decay=None,
    compare_with_plain=False,
    human_weight=1.0,
    reads_all_tokens=False,
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
    """How far a training is: `stage` of several, `epoch` and `step` counted from 1."""

    stage: str
    epoch: int
    n_epochs: int
    step: int
    n_steps: int
    loss: float


def _nobody_listens(progress: TrainingProgress) -> None:
    del progress


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class TrainingHooks:
    """What a training reports to and asks of its caller between two batches.

    With `checkpoints`, a folder, a training that was killed goes on after its last whole epoch.
    """

    on_progress: Callable[[TrainingProgress], None] = _nobody_listens
    should_stop: Callable[[], bool] = _never
    checkpoints: Path | None = None


@dataclass(frozen=True, slots=True)
class StudentPrediction:
    """For each text: label probabilities (n, K) and a unit vector (n, d)."""

    probabilities: NDArray[np.float64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training did: seconds by stage, figures by name, and what was chosen and why.

    `base` is the name of the encoder that it began with.
    """

    recipe: str
    seconds: Mapping[str, float]
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True, slots=True)
class StudentOutput:
    """What the small model says of every text of its pool.

    `prediction` is the finished model's; `cross_fitted` (n, K) comes from models that did not see
    the text's label, so that it can speak against it; `label_quality_score` (n,) is the probability
    of the label
    given being right (0.5 where there is none); `posterior` (n, K) joins label and cross-fitted
    prediction; `label_issues` lists labelled rows, the likeliest errors first, people's included.
    """

    prediction: StudentPrediction
    cross_fitted: NDArray[np.float64]
    label_quality_score: NDArray[np.float64]
    posterior: NDArray[np.float64]
    label_issues: NDArray[np.int64]
    report: TrainingReport


class FittedStudent(Protocol):
    """A small model that can answer."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label space that probabilities follow."""
        ...

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        """Answer for each text, in order."""
        ...

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write the model; a folder that is there is replaced as a whole."""
        ...


class Student(Protocol):
    """Learns a project's labels."""

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedStudent, StudentOutput]:
        """Train on `data`.

        Raises InvalidRequest when there is nothing to learn from, TrainingCancelled when
        `hooks.should_stop` said so, TrainingDiverged when the loss is no number.
        """
        ...

    def load(self, folder: Path) -> FittedStudent:
        """Read what `FittedStudent.save` wrote; raises InvalidRequest."""
        ...
