"""Simulate one Label Studio project in memory, with annotators who give gold labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from backend.domain.labels import HumanLabel, Region
from backend.domain.projects import AcceptedLabel, Prediction, ProjectId, ProjectInfo, Task

PLATFORM_ID = 1
BACKEND_URL = "http://127.0.0.1:9090"
"""The address under which the project lists this backend."""


class SimulatedPlatform:
    """A `LabelingPlatform` of one project; `annotate` submits a human label."""

    def __init__(self, label_config: str, instruction: str, tasks: Sequence[Task]) -> None:
        self._info = ProjectInfo(
            ProjectId(f"{PLATFORM_ID}.1795215594"), label_config, "benchmark", instruction
        )
        self._tasks: Mapping[int, Task] = {task.id: task for task in tasks}
        self._annotations: dict[int, HumanLabel] = {}
        self._predictions: dict[int, Prediction] = {}
        self._numbers = count(1)

    @property
    def project_id(self) -> ProjectId:
        """Return the project's id."""
        return self._info.id

    def annotate(self, task_id: int, result: Sequence[Region]) -> None:
        """Submit an annotation."""
        number = next(self._numbers)
        self._annotations[number] = HumanLabel(
            number, task_id, 1, tuple(result), False, False, datetime.now(UTC)
        )

    def predictions(self) -> list[Prediction]:
        """Return all stored predictions."""
        return list(self._predictions.values())

    def project(self, platform_id: int) -> ProjectInfo:
        """Return the project's description."""
        return replace(
            self._info,
            n_tasks=len(self._tasks),
            n_annotations=len(self._annotations),
            n_predictions=len(self._predictions),
        )

    def backends(self, platform_id: int) -> list[str]:
        """Return this backend's address by default."""
        return [BACKEND_URL]

    def tasks(self, platform_id: int, *, updated_since: datetime | None = None) -> Iterator[Task]:
        """Yield every task with its annotations and predictions; none is ever edited."""
        if updated_since is not None:
            return
        annotations: dict[int, list[HumanLabel]] = {}
        for label in self._annotations.values():
            annotations.setdefault(label.task_id, []).append(label)
        predicted: dict[int, dict[str, tuple[int, ...]]] = {}
        for number, row in self._predictions.items():
            versions = predicted.setdefault(row.task_id, {})
            versions[row.model_version] = (*versions.get(row.model_version, ()), number)
        for task in self._tasks.values():
            yield replace(
                task,
                annotations=tuple(annotations.get(task.id, ())),
                prediction_ids=predicted.get(task.id, {}),
            )

    def import_predictions(self, platform_id: int, predictions: Sequence[Prediction]) -> int:
        """Store predictions."""
        for prediction in predictions:
            self._predictions[next(self._numbers)] = prediction
        return len(predictions)

    def predicted_task_ids(
        self, platform_id: int, task_ids: Sequence[int], model_version: str
    ) -> set[int]:
        """Return the ids of tasks with a prediction of this version."""
        versions = (row for row in self._predictions.values() if row.model_version == model_version)
        return {row.task_id for row in versions} & set(task_ids)

    def accept_predictions(
        self, platform_id: int, labels: Sequence[AcceptedLabel]
    ) -> dict[int, int]:
        """Accept nothing: no benchmark of rounds asks for it."""
        return {}

    def take_back(self, labels: Sequence[AcceptedLabel]) -> set[int]:
        """Take nothing back."""
        return set()

    def delete_predictions(self, prediction_ids: Sequence[int]) -> None:
        """Delete single predictions."""
        for number in prediction_ids:
            self._predictions.pop(number, None)

    def delete_model_version(self, platform_id: int, model_version: str) -> None:
        """Delete a version's predictions."""
        self._predictions = {
            number: row
            for number, row in self._predictions.items()
            if row.model_version != model_version
        }

    def serve_model_version(self, platform_id: int, model_version: str) -> None:
        """Show a version."""
        self._info = replace(
            self._info, model_version=model_version, sampling="Uncertainty sampling"
        )

    def restore_queue(
        self, platform_id: int, *, model_version: str | None, sampling: str | None
    ) -> None:
        """Set model version and sampling."""
        self._info = replace(self._info, model_version=model_version, sampling=sampling)
