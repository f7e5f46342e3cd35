"""Label the next tasks of a project and keep what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby

from backend.core.ports import Annotator, ConfigReader
from backend.core.stores import LabelStore, ProjectStore, WorkStore
from backend.core.types import Prediction, Project, ProjectId, Task, WeakLabel
from backend.errors import LanguageModelError, UnsupportedLabelConfig

_LOG = logging.getLogger(__name__)
LANGUAGE_MODEL = "llm"


class Labelling:
    """From tasks to weak labels and predictions; what the worker and /predict share."""

    def __init__(self, annotator: Annotator, config: ConfigReader) -> None:
        self._annotator = annotator
        self._config = config

    def label(
        self, project: Project, tasks: Sequence[Task], *, deadline_s: float | None = None
    ) -> tuple[list[WeakLabel], list[Prediction]]:
        """Answer every question about every task.

        Returns all weak labels, abstentions included, and one valid prediction for each task
        that got at least one label. Raises LanguageModelError and UnsupportedLabelConfig.
        """
        schema = self._config.read_schema(project.label_config)
        examples = [self._config.read_example(schema, task) for task in tasks]
        weak_labels = self._annotator.annotate(
            schema, project.instruction, examples, deadline_s=deadline_s
        )
        predictions = []
        for _, group in groupby(weak_labels, key=lambda label: label.example_id):
            prediction = self._config.write_prediction(schema, list(group), project.model_version)
            if prediction is not None and self._fits(project, prediction):
                predictions.append(prediction)
        return weak_labels, predictions

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
    """The worker's side: chunk after chunk, each saved in one transaction."""

    def __init__(
        self,
        labelling: Labelling,
        stores: tuple[ProjectStore, LabelStore, WorkStore],
        *,
        chunk: int,
        retry_abstentions_s: float,
    ) -> None:
        self._labelling = labelling
        self._projects, self._labels, self._work = stores
        self._chunk = chunk
        self._retry_abstentions_s = retry_abstentions_s

    def reopen(self, project_id: ProjectId) -> dict[str, int]:
        """Ask again where an earlier answer could not be read; a step."""
        project = self._projects.get(project_id)
        if project is None:
            return {"n_reopened": 0}
        n = self._labels.reopen_passing_abstentions(project, self._retry_abstentions_s)
        return {"n_reopened": n}

    def annotate_chunk(self, project_id: ProjectId) -> dict[str, int]:
        """Label the next chunk; a step. `is_done`: nothing more can be labelled now."""
        project = self._projects.get(project_id)
        if project is None or not project.is_connected:
            return {"n_labelled": 0, "is_done": 1}
        tasks = self._labels.next_unlabelled(project, self._chunk)
        if not tasks:
            return {"n_labelled": 0, "is_done": 1}
        try:
            weak_labels, predictions = self._labelling.label(project, tasks)
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self._work.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            _LOG.warning("project=%s cannot label: %s", project_id, exc)
            return {"n_labelled": 0, "is_done": 1}
        self._labels.save(project, weak_labels, predictions)
        self._work.clear_problem(project_id, LANGUAGE_MODEL)
        return {"n_labelled": len(predictions), "is_done": int(len(tasks) < self._chunk)}
