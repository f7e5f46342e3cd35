"""Train the student of a question on a round's labels, a classifier or a span tagger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from backend.domain.labels import Example
from backend.domain.ports import Encoder
from backend.domain.questions import Question
from backend.domain.rounds import RoundRecipeName
from backend.domain.span_student import FittedTagger, SpanStudent, SpanTrainingSet
from backend.domain.student import FittedStudent, PoolTexts, Student, TrainingHooks, TrainingSet
from backend.label_model.label_tables import LabelTable, Posteriors, SpanTable, as_spans, read_table
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.context import ActiveRound, Arrays
from backend.pipeline.rounds.model_card import TrainedOn, model_card
from backend.pipeline.rounds.recipes import StudentTargets

StudentFactory = Callable[[RoundRecipeName], Student]
TaggerFactory = Callable[[RoundRecipeName], SpanStudent]
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training within a round: where its model goes, its hooks, and second views of texts."""

    seed: int
    folder: Path
    hooks: TrainingHooks
    views: tuple[str | None, ...] | None = None


class StudentTrainer(Protocol[S]):
    """Trains, loads and uses the students of a kind of question."""

    def train(
        self, active: ActiveRound, pool: Pool, targets: StudentTargets, job: TrainingJob
    ) -> Arrays:
        """Train and save the student; return its labels of the pool as arrays.

        Arrays: `ids`; the contents of the tables `targets`, `cross_fitted` and `prediction`;
        `clean` (n,), the probability that a text's label is right; `embeddings` (n, d).
        """

    def load(self, recipe: RoundRecipeName, folder: Path) -> S:
        """Return a saved student; raises InvalidRequest."""

    def predict(
        self, student: S, question: Question, examples: Sequence[Example]
    ) -> LabelTable | None:
        """Return a student's labels of texts; None where it has learned other labels."""


@dataclass(frozen=True)
class ClassifierTrainer:
    """Learns questions about whole texts with a classifier."""

    make_student: StudentFactory

    def train(
        self, active: ActiveRound, pool: Pool, targets: StudentTargets, job: TrainingJob
    ) -> Arrays:
        """Train a classifier on posteriors; see the port."""
        question, labels = active.question, targets.labels
        has_label = labels.has_label
        data = TrainingSet(
            pool=PoolTexts.of(question, pool.examples),
            labels=tuple(label.value for label in question.labels),
            targets=np.where(has_label[:, None], labels.content, 0.0),
            has_label=has_label,
            is_human=targets.is_human,
            kind=question.kind,
            views=job.views,
        )
        student = self.make_student(active.round.recipe)
        model, output = student.fit(data, seed=job.seed, hooks=job.hooks)
        trained_on = TrainedOn(question, has_label, targets.is_human, active.round.number)
        model.save(job.folder, card=model_card(trained_on, output.report))
        return {
            "ids": pool.example_ids,
            "targets": labels.content,
            "cross_fitted": output.cross_fitted,
            "prediction": output.prediction.probabilities,
            "clean": output.label_quality_score,
            "embeddings": output.prediction.embeddings,
        }

    def load(self, recipe: RoundRecipeName, folder: Path) -> FittedStudent:
        """Return a saved classifier; raises InvalidRequest."""
        return self.make_student(recipe).load(folder)

    def predict(
        self, student: FittedStudent, question: Question, examples: Sequence[Example]
    ) -> LabelTable | None:
        """Return a classifier's posteriors of texts."""
        if student.labels != tuple(label.value for label in question.labels):
            return None
        texts = PoolTexts.of(question, examples)
        ids = np.array(texts.ids, dtype=np.int64)
        probabilities = student.predict(texts).probabilities
        return Posteriors(ids, probabilities, question.kind.is_exclusive)


@dataclass(frozen=True)
class TaggerTrainer:
    """Learns questions about pieces of a text with a tagger of its words."""

    make_student: TaggerFactory
    encoder: Encoder

    def train(
        self, active: ActiveRound, pool: Pool, targets: StudentTargets, job: TrainingJob
    ) -> Arrays:
        """Train a tagger on spans; see the port. The vectors are those of the encoder."""
        question, labels = active.question, targets.labels
        ids, texts = pool.example_ids, _span_texts(question, pool.examples)
        has_text = np.array([bool(text.strip()) for text in texts], dtype=np.bool_)
        labels = labels.without(~has_text)
        data = SpanTrainingSet(
            ids=tuple(ids.tolist()),
            texts=texts,
            labels=tuple(label.value for label in question.labels),
            spans=as_spans(labels),
            is_human=targets.is_human,
        )
        student = self.make_student(active.round.recipe)
        model, output = student.fit(data, seed=job.seed, hooks=job.hooks)
        trained_on = TrainedOn(question, labels.has_label, targets.is_human, active.round.number)
        model.save(job.folder, card=model_card(trained_on, output.report))
        return {
            "ids": ids,
            "targets": labels.content,
            "cross_fitted": SpanTable(ids, output.cross_fitted).without(~has_text).content,
            "prediction": SpanTable(ids, output.predicted).without(~has_text).content,
            "clean": output.label_quality_score,
            "embeddings": self.encoder.embed([e.text_of(question) for e in pool.examples]),
        }

    def load(self, recipe: RoundRecipeName, folder: Path) -> FittedTagger:
        """Return a saved tagger; raises InvalidRequest."""
        return self.make_student(recipe).load(folder)

    def predict(
        self, student: FittedTagger, question: Question, examples: Sequence[Example]
    ) -> LabelTable | None:
        """Return a tagger's spans of texts."""
        if student.labels != tuple(label.value for label in question.labels):
            return None
        ids = np.array([example.id for example in examples], dtype=np.int64)
        texts = _span_texts(question, examples)
        has_text = np.array([bool(text.strip()) for text in texts], dtype=np.bool_)
        return SpanTable(ids, tuple(student.predict(texts))).without(~has_text)


@dataclass(frozen=True)
class StudentTrainers:
    """The trainers by kind of question."""

    classifier: StudentTrainer[FittedStudent]
    tagger: StudentTrainer[FittedTagger]

    def of(self, question: Question) -> StudentTrainer[Any]:
        """Return the trainer of a question's student."""
        return self.tagger if question.kind.has_spans else self.classifier


def _span_texts(question: Question, examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the texts that spans are counted in."""
    return tuple(example.texts.get(question.field.name, "") for example in examples)


def trained_table(question: Question, trained: Arrays, key: str) -> LabelTable:
    """Return a table of those that a training has written."""
    return read_table(question, trained["ids"], trained[key])
