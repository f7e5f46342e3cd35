"""Label the next tasks of a project and keep what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from backend.domain.labels import WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.ports import ConfigReader
from backend.domain.projects import Prediction, Project, ProjectId, Task
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.batch_size import AdaptiveBatchSize
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.guidelines import GuidelinesReader
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.release import ReleaseBuilder, slot_score
from backend.pipeline.student_predictor import StudentPredictor
from backend.pipeline.sync import PrelabelPlan
from backend.store import Stores

_LOG = logging.getLogger(__name__)
LANGUAGE_MODEL = "llm"


class Labelling:
    """From tasks to weak labels and predictions; what the worker and /predict share.

    The worker's has a `voice`, with which the small model of an earlier round is heard too; it
    takes seconds to load, for which nobody waits there.
    """

    def __init__(
        self,
        ensemble: AnnotatorEnsemble,
        guidelines_reader: GuidelinesReader,
        config: ConfigReader,
        releaser: ReleaseBuilder,
        student_predictor: StudentPredictor | None = None,
    ) -> None:
        self._ensemble = ensemble
        self._guidelines_reader = guidelines_reader
        self._config = config
        self._releaser = releaser
        self._student_predictor = student_predictor

    def label(
        self,
        project: Project,
        tasks: Sequence[Task],
        *,
        deadline_s: float | None = None,
        unasked: Collection[int] = (),
    ) -> tuple[list[WeakLabel], list[Prediction]]:
        """Answer every question about every task, those in `unasked` without the LLM.

        Returns all weak labels, abstentions included, and one valid prediction for each task
        that got at least one label; where the queue is ordered, its score is the task's place in
        it. Raises LanguageModelError and UnsupportedLabelConfig.
        """
        guidelines = self._guidelines_reader.read(project)
        examples = self._guidelines_reader.examples(guidelines, tasks)
        votes = self._ensemble.collect(
            project, guidelines, examples, deadline_s=deadline_s, unasked=unasked
        )
        if self._student_predictor is not None:
            votes += self._student_predictor.votes(project, guidelines, examples)
        labels_out = self._ensemble.fuse(project, guidelines, examples, votes)
        queue = self._releaser.queue(project)
        predictions = []
        n_questions = len(guidelines.schema.questions)
        for at, task in enumerate(tasks):
            group = labels_out[at * n_questions : (at + 1) * n_questions]
            prediction = self._config.write_prediction(
                guidelines.schema, group, project.model_version, task
            )
            if prediction is not None and self._fits(project, prediction):
                score = prediction.score if queue is None else slot_score(queue, group)
                predictions.append(replace(prediction, score=score))
        return [*votes, *labels_out], predictions

    def _fits(self, project: Project, prediction: Prediction) -> bool:
        errors = self._config.errors(project.label_config, prediction)
        if errors:
            _LOG.error(
                "project=%s task=%d prediction does not fit the label config: %s",
                project.id,
                prediction.task_id,
                "; ".join(errors),
            )
        return not errors


class PreAnnotator:
    """The worker's side: chunk after chunk, each saved in one transaction.

    At most `annotate_chunk` tasks are labelled at once, fewer where they take over a minute.
    """

    def __init__(
        self,
        labelling: Labelling,
        aggregator: Aggregator,
        sharer: LLMBudgetPlanner,
        stores: Stores,
        plan: PrelabelPlan,
    ) -> None:
        self._labelling = labelling
        self._aggregator = aggregator
        self._sharer = sharer
        self._stores = stores
        self._plan = plan
        self._paces: dict[ProjectId, AdaptiveBatchSize] = {}

    def fit_sample(self, project_id: ProjectId) -> dict[str, int]:
        """Get to know the project's texts and share them out before they are labelled; a step.

        They are studied once per question, and again when the pool has grown fourfold since.
        """
        project = self._stores.projects.get(project_id)
        if project is None or not project.is_connected:
            return {"is_studied": 0}
        try:
            with track_usage(project_id, "study"):
                is_studied = int(self._aggregator.study_if_due(project))
            return {"is_studied": is_studied, **self._sharer.decide(project)}
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self._stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {"is_studied": 0}

    def reopen(self, project_id: ProjectId, *, is_thorough: bool = False) -> dict[str, int]:
        """Ask again where an answer did not come or could not be read; a step.

        Only what is older than the setting says, unless `is_thorough`.
        """
        project = self._stores.projects.get(project_id)
        if project is None:
            return {"n_reopened": 0}
        older_than_s = 0.0 if is_thorough else self._plan.retry_abstentions_s
        n = self._stores.labels.reopen_transient_abstentions(project, older_than_s)
        return {"n_reopened": n}

    def annotate_chunk(self, project_id: ProjectId) -> dict[str, int]:
        """Label the next chunk; a step. `is_done`: nothing more can be labelled now."""
        project = self._stores.projects.get(project_id)
        if project is None or not project.is_connected:
            return {"n_labelled": 0, "is_done": 1}
        pace = self._paces.get(project_id, AdaptiveBatchSize(self._plan.annotate_chunk))
        tasks = self._stores.labels.next_unlabelled(project, pace.size)
        if not tasks:
            return {"n_labelled": 0, "is_done": 1}
        started_at = time.monotonic()
        try:
            with track_usage(project_id, "annotate"):
                left_out = set(self._sharer.known(project).left_out)
                weak_labels, predictions = self._labelling.label(project, tasks, unasked=left_out)
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self._stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            _LOG.warning("project=%s cannot label: %s", project_id, exc)
            return {"n_labelled": 0, "is_done": 1}
        self._stores.labels.save(project, weak_labels, predictions)
        self._paces[project_id] = pace.after(len(tasks), time.monotonic() - started_at)
        self._stores.jobs.clear_problem(project_id, LANGUAGE_MODEL)
        return {"n_labelled": len(predictions), "is_done": int(len(tasks) < pace.size)}
