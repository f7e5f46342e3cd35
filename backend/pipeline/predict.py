"""Label tasks with all annotators, and answer /predict: from the store, else live, else empty."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.domain.labels import AnnotatorKind, Example, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import JobKind, Prediction, Project, Task
from backend.domain.questions import Question
from backend.domain.rounds import RoundRecipeName
from backend.errors import (
    BackendError,
    EmbeddedModelError,
    LanguageModelError,
    StoreUnavailable,
)
from backend.label_model.labels_matrix import LabelsMatrix
from backend.pipeline.ensemble import AnnotatorEnsemble, llm_unreachable
from backend.pipeline.pool import Guidelines, GuidelinesReader, Pool
from backend.pipeline.release import (
    LABELS_FROM,
    MODEL_FROM,
    RECIPE,
    learned_from,
    queue_score,
    valid_prediction,
)
from backend.pipeline.rounds.context import artifacts, student_name
from backend.pipeline.rounds.students import StudentTrainers
from backend.pipeline.status import read_queue
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_RECIPE: RoundRecipeName = "default"
_MAX_LOADED = 4
_MAX_WRITE_WAIT_S = 1.0
LANGUAGE_MODEL = "llm"
"""Source of problems with the LLM."""


@dataclass(frozen=True)
class Labeler:
    """Turns tasks into weak labels and predictions, for the worker and for /predict.

    `student` is that of an earlier round; it takes seconds to load, and milliseconds to answer.
    """

    ensemble: AnnotatorEnsemble
    guidelines: GuidelinesReader
    config: ConfigReader
    stores: Stores
    student: StudentPredictor | None = None

    def label(
        self,
        project: Project,
        tasks: Sequence[Task],
        *,
        deadline_s: float | None = None,
        not_sampled: Collection[int] = (),
        at_once: bool = False,
    ) -> tuple[list[WeakLabel], list[Prediction]]:
        """Answer every question about every task.

        Args:
            deadline_s: Seconds after which the LLM's answer is not waited for.
            not_sampled: Ids of tasks that the LLM is not asked about.
            at_once: Whether to leave the LLM to a later call where students answer all questions.

        Returns:
            All weak labels, abstentions included, and one valid prediction for each task with a
            label. Where the queue is ordered, its score is the task's place in it.

        Raises:
            LanguageModelError: The LLM cannot be reached and no other annotator can answer.
            UnsupportedLabelConfig: The label config asks nothing that can be labeled.
        """
        guidelines = self.guidelines.read(project)
        examples = self.guidelines.examples(guidelines, tasks)
        student = self.student.weak_labels(project, guidelines, examples) if self.student else []
        is_enough = {q.name for q in guidelines.schema.questions} <= {v.question for v in student}
        try:
            if at_once and is_enough:
                labels = self.ensemble.label_by_similarity(project, guidelines, examples)
            else:
                labels = self.ensemble.collect(
                    project, guidelines, examples, deadline_s=deadline_s, not_sampled=not_sampled
                )
        except LanguageModelError as exc:
            if not student:
                raise
            labels = llm_unreachable(guidelines, examples, exc)
        labels += student
        pool = Pool(project, guidelines, tasks, examples).with_weak_labels(labels)
        aggregated = self.ensemble.aggregate(pool).labels
        queue = read_queue(self.stores, project)
        positions = self.stores.releases.positions(project, [task.id for task in tasks])
        predictions = []
        n_questions = len(pool.questions)
        for at, task in enumerate(tasks):
            of_task = aggregated[at * n_questions : (at + 1) * n_questions]
            prediction = valid_prediction(self.config, pool, task, of_task)
            if prediction is not None:
                score = prediction.score
                if queue is not None:
                    score = queue_score(queue, of_task, positions.get(task.id))
                predictions.append(replace(prediction, score=score))
        return [*labels, *aggregated], predictions


@dataclass
class StudentPredictor:
    """Labels texts with the students that the served version was made with.

    The last ones used stay loaded, some hundred MB each.
    """

    stores: Stores
    folder: Path
    trainers: StudentTrainers
    _loaded: dict[Path, Any] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def weak_labels(
        self, project: Project, guidelines: Guidelines, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return the students' labels of texts that they were not trained on.

        None of a question whose served labels come from no round, since the label model knows no
        student then; of one whose files cannot be read any more; and after a round of the paper's
        recipe, which has no label model.
        """
        if not examples:
            return []
        found = {}
        for question in guidelines.schema.learned:
            source = learned_from(self.stores, project, question)
            if source.get(RECIPE) == _RECIPE and {LABELS_FROM, MODEL_FROM} <= set(source):
                number, cycle = source[MODEL_FROM]
                files = artifacts(self.folder / project.id / str(number), question)
                found[question.name] = (question, number, files.model(cycle))
        labels: list[WeakLabel] = []
        with self._lock:  # the web process has several threads
            for question, number, folder in found.values():
                try:
                    labels += self._predicted(question, number, folder, examples)
                except (BackendError, OSError) as exc:
                    line = "project=%s question=%s the student of round %s: %s"
                    _LOG.warning(line, project.id, question.name, number, exc)
        return labels

    def _predicted(
        self, question: Question, number: int, folder: Path, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        trainer = self.trainers.of(question)
        student = self._loaded.pop(folder, None) or trainer.load(_RECIPE, folder)
        self._loaded[folder] = student  # the last one used is the last in the dict
        for oldest in list(self._loaded)[:-_MAX_LOADED]:
            del self._loaded[oldest]
        table = trainer.predict(student, question, examples)
        if table is None:
            return []
        matrix = table.joined_to(
            LabelsMatrix(table.ids, len(question.labels)),
            student_name(_RECIPE),
            AnnotatorKind.STUDENT,
            f"round {number}",
        )
        return matrix.weak_labels(question)


@dataclass(frozen=True)
class PredictionService:
    """Answers /predict: one answer per task, in order; an answer may be None.

    At most `max_parallel` calls wait for the LLM at a time: the others leave their tasks to the
    worker, so that the process has threads left for what is stored. So do calls that find the
    database locked.
    After a round whose labels are served its students answer at once, without the LLM. Its answer
    is then the worker's to get: it is in the next release of the labels.
    """

    labeler: Callable[[], Labeler]
    stores: Stores
    deadline_s: float
    live_limit: int
    max_parallel: int = 4
    _slots: threading.Semaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_slots", threading.BoundedSemaphore(self.max_parallel))

    def predict(self, project: Project, tasks: Sequence[Task]) -> list[Prediction | None]:
        """Return each task's prediction under the project's version, None where there is none.

        Tasks left without one are given to the worker, and so are those whose text has changed: a
        live label of the new text is returned, and nothing is stored under the old one.
        """
        with self.stores.waiting_at_most(_MAX_WRITE_WAIT_S):
            found = self.stores.publication.predictions(project, tasks)
            missing = [task for task in tasks if task.id not in found]
            if missing:
                found |= self._live(project, missing)
        return [found.get(task.id) for task in tasks]

    def _live(self, project: Project, missing: Sequence[Task]) -> dict[int, Prediction]:
        """Label the first tasks now and request a job for the others."""
        started = time.monotonic()
        live: dict[int, Prediction] = {}
        has_slot = self._slots.acquire(blocking=False)
        try:
            changed = self.stores.tasks.save(project.id, missing)
            if has_slot:
                live = self._label(project, missing[: self.live_limit], changed)
            if len(live) < len(missing) or changed:
                self.stores.jobs.request_job(project.id, JobKind.PRELABEL, "asked for by /predict")
        except StoreUnavailable as exc:
            _LOG.warning("project=%s no live labels: %s", project.id, exc)
        finally:
            if has_slot:
                self._slots.release()
        line = "project=%s live n_tasks=%d n_labelled=%d seconds=%.2f"
        _LOG.info(line, project.id, len(missing), len(live), time.monotonic() - started)
        return live

    def label(self, project: Project, tasks: Sequence[Task]) -> list[Prediction | str]:
        """Return live predictions of texts that belong to no task, or why there is none.

        Somebody has sent them by hand; nothing is stored.
        """
        tasks, n_left = tasks[: self.live_limit], len(tasks[self.live_limit :])
        try:
            with track_usage(project.id, "predict"):
                labels, predictions = self.labeler().label(
                    project, tasks, deadline_s=self.deadline_s
                )
        except (LanguageModelError, EmbeddedModelError) as exc:
            return [str(exc)] * (len(tasks) + n_left)
        found = {prediction.task_id: prediction for prediction in predictions}
        reasons = {w.example_id: w.abstention.detail for w in labels if w.abstention is not None}
        answers = [found.get(task.id) or reasons.get(task.id) or "no label" for task in tasks]
        return [*answers, *["too many texts at once; see LIVE_PREDICT_LIMIT"] * n_left]

    def _label(
        self, project: Project, tasks: Sequence[Task], changed: Collection[int]
    ) -> dict[int, Prediction]:
        """Label tasks now; leave out what the worker has sent to Label Studio meanwhile."""
        try:
            with track_usage(project.id, "predict"):
                weak_labels, predictions = self.labeler().label(
                    project, tasks, deadline_s=self.deadline_s, at_once=True
                )
        except LanguageModelError as exc:
            self.stores.jobs.note_problem(project.id, LANGUAGE_MODEL, str(exc))
            return {}
        except EmbeddedModelError as exc:
            _LOG.info("project=%s %s", project.id, exc)
            return {}
        lasting = [
            label
            for label in weak_labels
            if label.abstention is None or not label.abstention.reason.is_transient
        ]
        self.stores.labels.save(project, lasting, predictions, tasks=tasks)
        if not any(label.annotator_kind is AnnotatorKind.LLM for label in lasting):
            self.stores.jobs.request_job(project.id, JobKind.PRELABEL, "the LLM is to be asked")
        current = self.stores.projects.get(project.id)
        if current is None or current.model_version != project.model_version:
            return {}  # a newer version is on its way to Label Studio: this one would be a double
        stored = [p.task_id for p in predictions if p.task_id not in changed]
        ours = {*self.stores.publication.offer(project, stored), *changed}
        return {p.task_id: p for p in predictions if p.task_id in ours}
