"""Answer /predict: from the store, else live within a deadline, else nothing for that task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from backend.domain.labels import WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.projects import Prediction, Project, Task
from backend.errors import LanguageModelError
from backend.pipeline.annotation import LANGUAGE_MODEL, Labelling
from backend.pipeline.prelabel import PRELABEL
from backend.store import Stores

_LOG = logging.getLogger(__name__)


class PredictionService:
    """One answer per task, in order; an answer may be None."""

    def __init__(
        self,
        labelling: Callable[[], Labelling],
        stores: Stores,
        *,
        deadline_s: float,
        live_limit: int,
    ) -> None:
        self._labelling = labelling
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
            found |= self._live(project, missing)
        return [found.get(task.id) for task in tasks]

    def _live(self, project: Project, missing: Sequence[Task]) -> dict[int, Prediction]:
        started = time.monotonic()
        self._stores.tasks.save(project.id, missing)
        given = self._label(project, missing[: self._live_limit])
        if len(given) < len(missing):
            self._stores.jobs.request_job(project.id, PRELABEL, "asked for by /predict")
        _LOG.info(
            "project=%s live n_tasks=%d n_labelled=%d seconds=%.2f",
            project.id,
            len(missing),
            len(given),
            time.monotonic() - started,
        )
        return given

    def _label(self, project: Project, tasks: Sequence[Task]) -> dict[int, Prediction]:
        """Label tasks now; return what may be given away.

        What the worker has sent to Label Studio meanwhile is not given a second time.
        """
        try:
            with track_usage(project.id, "predict"):
                weak_labels, predictions = self._labelling().label(
                    project, tasks, deadline_s=self._deadline_s
                )
        except LanguageModelError as exc:
            self._stores.jobs.note_problem(project.id, LANGUAGE_MODEL, str(exc))
            return {}
        answered = [label for label in weak_labels if not _is_passing(label)]
        self._stores.labels.save(project, answered, predictions)
        ours = self._stores.labels.offer(
            project, [prediction.task_id for prediction in predictions]
        )
        return {p.task_id: p for p in predictions if p.task_id in ours}


def _is_passing(label: WeakLabel) -> bool:
    return label.abstention is not None and label.abstention.reason.is_transient
