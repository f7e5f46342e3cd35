"""A round's training: the student learns the pool's labels and is saved with its model card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from backend.domain.labels import AnnotatorKind
from backend.domain.llm_usage import track_usage
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.domain.student import (
    PoolTexts,
    StudentOutput,
    TrainingHooks,
    TrainingProgress,
    TrainingSet,
)
from backend.label_model.labels_matrix import align_rows, has_label
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.pool import Pool, round_question
from backend.pipeline.rounds.context import (
    STOPPED,
    ActiveRound,
    RoundArtifacts,
    RoundContext,
    StudentFactory,
)
from backend.pipeline.rounds.recipes import StudentTargets

MODEL_CARD = "README.md"
_PACKAGES = ("torch", "transformers", "safetensors")
_NOTE_EVERY_S = 2.0
_NO_PARAPHRASES, _BY_LLM = "", "paraphrase"


@dataclass(frozen=True)
class TrainStep:
    """Does the `train` step."""

    context: RoundContext
    aggregator: Aggregator
    make_student: StudentFactory
    paraphrases: Paraphrases

    def train(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Train on the labels as they are in this cycle, 0 being before any relabeling; a step."""
        return self.context.run(project_id, lambda active: self._train(active, cycle))

    def _train(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        if active.files.has(f"train-{cycle}"):
            return {"is_trained": 1}
        self.context.note(active, f"train {cycle + 1}", cycle=cycle)
        pool = self.aggregator.pool(active.project, has_round_labels=False)
        question = round_question(pool.guidelines.schema)
        if question is None:
            return dict(STOPPED)
        pool = with_relabeled(pool, question, active.files, cycle)
        targets = active.recipe.targets(pool, question)
        views = self.paraphrases.of(pool, question) if active.recipe.has_views else None
        data = _training_set(pool, question, targets, views)
        student, output = self.make_student(active.round.recipe).fit(
            data, seed=100 * active.round.number + cycle, hooks=self._hooks(active, cycle)
        )
        card = model_card(data, output, question=question.name, n_round=active.round.number)
        student.save(active.files.model(cycle), card=card)
        active.files.write(
            f"train-{cycle}",
            ids=pool.example_ids,
            targets=targets.targets,
            cross_fitted=output.cross_fitted,
            clean=output.label_quality_score,
            prediction=output.prediction.probabilities,
            embeddings=output.prediction.embeddings,
        )
        return {"is_trained": 1, "n_texts": len(pool.examples)}

    def _hooks(self, active: ActiveRound, cycle: int) -> TrainingHooks:
        noted_at = 0.0

        def note(progress: TrainingProgress) -> None:
            nonlocal noted_at
            if time.monotonic() < noted_at + _NOTE_EVERY_S:
                return
            noted_at = time.monotonic()
            self.context.note(
                active,
                f"train {cycle + 1}",
                cycle=cycle,
                stage=progress.stage,
                epoch=progress.epoch,
                n_epochs=progress.n_epochs,
                loss=round(progress.loss, 4),
            )

        # what a training needs to go on after a kill
        checkpoints = active.files.folder / "checkpoints" / f"train-{cycle}"
        return TrainingHooks(on_progress=note, checkpoints=checkpoints)


@dataclass(frozen=True)
class Paraphrases:
    """Second wordings by the LLM ("paraphrase"), from a field of the tasks, or none ("")."""

    source: str
    paraphrase: Callable[[Sequence[str]], Sequence[str | None]]

    def of(self, pool: Pool, question: Question) -> tuple[str | None, ...] | None:
        """Return a second wording of each text, None for one without; None when there are none.

        Asks the LLM once in a text's life: its answers are kept. Raises LanguageModelError.
        """
        if self.source == _NO_PARAPHRASES:
            return None
        if self.source == _BY_LLM:
            texts = [example.text_of(question) for example in pool.examples]
            with track_usage(pool.project.id, "rewording"):
                return tuple(self.paraphrase(texts))
        given = [task.data.get(self.source) for task in pool.tasks]
        return tuple(view if isinstance(view, str) else None for view in given)


def with_relabeled(pool: Pool, question: Question, files: RoundArtifacts, cycle: int) -> Pool:
    """Return the pool with the LLM's labels of this cycle as those of another annotator."""
    relabeled = files.read(f"votes-{cycle}")
    if relabeled is None:
        return pool
    posteriors = align_rows(relabeled["ids"], relabeled["probabilities"], pool.example_ids)
    matrix = pool.matrices[question.name].with_annotator(
        str(relabeled["annotator"]),
        posteriors,
        AnnotatorKind.LLM_DEMONSTRATIONS,
        str(relabeled["version"]),
    )
    return pool.with_matrix(question, matrix)


def model_card(
    data: TrainingSet, output: StudentOutput, *, question: str, n_round: int
) -> Mapping[str, str]:
    """Return the sections of a model's README by title; no text of the pool is in them."""
    n_human = int((data.has_label & data.is_human).sum())
    n_labeled = int(data.has_label.sum())
    today = datetime.now(UTC).date().isoformat()
    report = output.report
    figures = {**report.figures, **{f"{k}, s": v for k, v in report.seconds.items()}}
    return {
        "What it is": (
            f"A {data.kind.value.replace('_', ' ')} classifier for the question "
            f"`{question}`, fine-tuned from `{report.base}` by the recipe "
            f"`{report.recipe}` in round {n_round}, {today}."
        ),
        "Labels": "\n".join(f"- {index}: {label}" for index, label in enumerate(data.labels)),
        "Data": (
            f"{len(data.pool)} texts: {n_human} labelled by people, {n_labeled - n_human} by an "
            f"annotator, {len(data.pool) - n_labeled} without a label."
        ),
        "Figures": "\n".join(f"- {name}: {value:.4g}" for name, value in figures.items())
        or "None were taken.",
        "Notes": "\n".join(f"- {note}" for note in report.notes) or "None.",
        "Versions": "\n".join(f"- {name} {version(name)}" for name in _PACKAGES),
        "Use": (
            "```python\nfrom transformers import pipeline\n\n"
            'classify = pipeline("text-classification", model="FOLDER", top_k=None)\n```'
        ),
    }


def round_section(metrics: Mapping[str, Any]) -> str:
    """Return a round's figures as the last section of its model's card."""
    lines = []
    for name, found in metrics.get("accuracies", {}).items():
        lines.append(
            f"- {name}: {found['value']:.3f} right, 95 % interval {found['low']:.3f} to "
            f"{found['high']:.3f}, by the audited labels of people"
        )
    reason = metrics.get("gate", {}).get("reason")
    if reason:
        lines.append(f"- {reason}")
    return "\n## In its project\n\n" + ("\n".join(lines) or "Nothing was measured.") + "\n"


def _training_set(
    pool: Pool, question: Question, labels: StudentTargets, views: tuple[str | None, ...] | None
) -> TrainingSet:
    is_labeled = has_label(labels.targets)
    ids = tuple(example.id for example in pool.examples)
    texts = PoolTexts(ids, tuple(example.text_of(question) for example in pool.examples))
    targets = np.where(is_labeled[:, None], labels.targets, 0.0)
    human = pool.human[question.name]
    rows = np.flatnonzero(labels.is_human)
    targets[rows] = np.eye(len(question.labels))[[human[ids[row]] for row in rows]]
    names = tuple(label.value for label in question.labels)
    return TrainingSet(texts, names, targets, is_labeled, labels.is_human, question.kind, views)
