"""Label tasks with all annotators, and answer /predict: from the store, else live, else empty."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.domain.labels import AnnotatorKind, Example, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import JobKind, Prediction, Project, Task
from backend.domain.rounds import RoundRecipeName
from backend.domain.student import FittedStudent, PoolTexts
from backend.errors import BackendError, LanguageModelError
from backend.label_model.labels_matrix import LabelsMatrix
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Guidelines, GuidelinesReader, Pool, round_question
from backend.pipeline.release import (
    LABELS_FROM,
    MODEL_FROM,
    RECIPE,
    queue_score,
    valid_prediction,
)
from backend.pipeline.rounds.context import RoundArtifacts, StudentFactory, student_name
from backend.pipeline.status import read_queue
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_RECIPE: RoundRecipeName = "default"
LANGUAGE_MODEL = "llm"
"""Source of problems with the LLM."""


class Labeler:
    """Turns tasks into weak labels and predictions, for the worker and for /predict.

    The worker's has a `student` too, the one of an earlier round; it takes seconds to load.
    """

    def __init__(
        self,
        ensemble: AnnotatorEnsemble,
        guidelines: GuidelinesReader,
        config: ConfigReader,
        stores: Stores,
        student: StudentPredictor | None = None,
    ) -> None:
        self._ensemble = ensemble
        self._guidelines = guidelines
        self._config = config
        self._stores = stores
        self._student = student

    def label(
        self,
        project: Project,
        tasks: Sequence[Task],
        *,
        deadline_s: float | None = None,
        not_sampled: Collection[int] = (),
    ) -> tuple[list[WeakLabel], list[Prediction]]:
        """Answer every question about every task.

        Args:
            project: The project that asks.
            tasks: The tasks, in any order.
            deadline_s: Seconds after which the LLM's answer is not waited for.
            not_sampled: Ids of tasks that the LLM is not asked about.

        Returns:
            All weak labels, abstentions included, and one valid prediction for each task with a
            label. Where the queue is ordered, its score is the task's place in it.

        Raises:
            LanguageModelError: The LLM cannot be reached and no other annotator can answer.
            UnsupportedLabelConfig: The label config asks nothing that can be labeled.
        """
        guidelines = self._guidelines.read(project)
        examples = self._guidelines.examples(guidelines, tasks)
        labels = self._ensemble.collect(
            project, guidelines, examples, deadline_s=deadline_s, not_sampled=not_sampled
        )
        if self._student is not None:
            labels += self._student.weak_labels(project, guidelines, examples)
        pool = Pool(project, guidelines, tasks, examples).with_weak_labels(labels)
        aggregated = self._ensemble.aggregate(pool).labels
        queue = read_queue(self._stores, project)
        predictions = []
        n_questions = len(pool.questions)
        for at, task in enumerate(tasks):
            of_task = aggregated[at * n_questions : (at + 1) * n_questions]
            prediction = valid_prediction(self._config, pool, task, of_task)
            if prediction is not None:
                score = prediction.score if queue is None else queue_score(queue, of_task)
                predictions.append(replace(prediction, score=score))
        return [*labels, *aggregated], predictions


class StudentPredictor:
    """Labels texts with the student that the served version was made with; keeps it loaded."""

    def __init__(self, stores: Stores, folder: Path, make: StudentFactory) -> None:
        self._stores = stores
        self._folder = folder
        self._make = make
        self._loaded: tuple[Path, FittedStudent] | None = None

    def weak_labels(
        self, project: Project, guidelines: Guidelines, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return the student's labels of texts that it was not trained on.

        Empty where the served labels come from no round, since the label model knows no student
        then; where its files cannot be read any more; and after a round of the paper's recipe,
        which has no label model.
        """
        provenance = self._stores.releases.provenance(project.id, project.model_version)
        question = round_question(guidelines.schema)
        is_known = provenance.get(RECIPE) == _RECIPE and {LABELS_FROM, MODEL_FROM} <= set(
            provenance
        )
        if not is_known or question is None or not examples:
            return []
        number, cycle = provenance[MODEL_FROM]
        folder = RoundArtifacts(self._folder / project.id / str(number)).model(cycle)
        try:
            student = self._load(folder)
        except (BackendError, OSError) as exc:
            _LOG.warning("project=%s the student of round %s: %s", project.id, number, exc)
            return []
        if student.labels != tuple(label.value for label in question.labels):
            return []
        ids = tuple(example.id for example in examples)
        texts = PoolTexts(ids, tuple(example.text_of(question) for example in examples))
        matrix = LabelsMatrix(np.array(ids, dtype=np.int64), len(question.labels)).with_annotator(
            student_name(_RECIPE),
            student.predict(texts).probabilities,
            AnnotatorKind.STUDENT,
            f"round {number}",
        )
        return matrix.weak_labels(question)

    def _load(self, folder: Path) -> FittedStudent:
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # two models at a time would be one too many on a small machine
            self._loaded = (folder, self._make(_RECIPE).load(folder))
        return self._loaded[1]


class PredictionService:
    """Answers /predict: one answer per task, in order; an answer may be None."""

    def __init__(
        self,
        labeler: Callable[[], Labeler],
        stores: Stores,
        *,
        deadline_s: float,
        live_limit: int,
    ) -> None:
        self._labeler = labeler
        self._stores = stores
        self._deadline_s = deadline_s
        self._live_limit = live_limit

    def predict(self, project: Project, tasks: Sequence[Task]) -> list[Prediction | None]:
        """Return each task's prediction under the project's version, None where there is none.

        Tasks left without one are given to the worker.
        """
        found = self._stores.labels.predictions(project, tasks)
        missing = [task for task in tasks if task.id not in found]
        if missing:
            found |= self._predict_live(project, missing)
        return [found.get(task.id) for task in tasks]

    def _predict_live(self, project: Project, missing: Sequence[Task]) -> dict[int, Prediction]:
        started = time.monotonic()
        self._stores.tasks.save(project.id, missing)
        predictions = self._label(project, missing[: self._live_limit])
        if len(predictions) < len(missing):
            self._stores.jobs.request_job(project.id, JobKind.PRELABEL, "asked for by /predict")
        _LOG.info(
            "project=%s live n_tasks=%d n_labelled=%d seconds=%.2f",
            project.id,
            len(missing),
            len(predictions),
            time.monotonic() - started,
        )
        return predictions

    def _label(self, project: Project, tasks: Sequence[Task]) -> dict[int, Prediction]:
        """Label tasks now; leave out what the worker has sent to Label Studio meanwhile."""
        try:
            with track_usage(project.id, "predict"):
                weak_labels, predictions = self._labeler().label(
                    project, tasks, deadline_s=self._deadline_s
                )
        except LanguageModelError as exc:
            self._stores.jobs.note_problem(project.id, LANGUAGE_MODEL, str(exc))
            return {}
        lasting = [
            label
            for label in weak_labels
            if label.abstention is None or not label.abstention.reason.is_transient
        ]
        self._stores.labels.save(project, lasting, predictions)
        ours = self._stores.labels.offer(project, [p.task_id for p in predictions])
        return {p.task_id: p for p in predictions if p.task_id in ours}
