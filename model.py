"""The ML backend class: read a request, call one use case, write the answer."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from backend.domain.projects import Prediction, Project, ProjectId, Task, is_project_id, is_row_id
from backend.errors import InvalidRequest
from backend.labelstudio.events import read_event, read_task
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.services import Services


def _import_base_class() -> Any:
    """Import label-studio-ml's base class without torch.

    1.0.9 imports torch where it is installed, for the start method of its jobs' processes alone,
    and does without where it is not. A web process needs no torch (190 MB, 0.9 s), so it is hidden
    for that import, and the start method is set here.
    """
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from label_studio_ml.model import LabelStudioMLBase
    finally:
        if sys.modules["torch"] is None:
            del sys.modules["torch"]
    with suppress(RuntimeError):  # the process has set it already
        multiprocessing.set_start_method("spawn")
    return LabelStudioMLBase


LabelStudioMLBase = _import_base_class()


class FreeALBackend(LabelStudioMLBase):  # type: ignore[misc]
    """FreeAL as label-studio-ml knows a backend; one short-lived object per request.

    Runs under this project's own Flask app and under `label_studio_ml.api.init_app` of 1.0.9 and
    2.x. It holds no state: `services` is shared, everything else is in the database, so several
    projects can use one process.
    """

    services: ClassVar[Services | None] = None
    _services_pid: ClassVar[int] = 0

    # Plain attributes: in label-studio-ml 2.x the base class has read-only properties here.
    label_config: str | None = None
    train_output: dict[str, Any] = {}

    def __init__(
        self, project_id: str | None = None, label_config: str | None = None, **kwargs: Any
    ) -> None:
        """Accept what label-studio-ml passes.

        `project_id` is "<id>.<created>" from our own routes, "<id>" under 2.x, None under 1.0.9.
        The base class's own start is left out: it writes files and parses the config each time.
        """
        self.project_id = project_id or ""
        self.label_config = label_config
        self.hostname = str(kwargs.get("hostname") or "")
        self.access_token = str(kwargs.get("access_token") or "")

    def connect(self, address: str = "") -> str:
        """Register the project; return the model version that it serves.

        `address` is where Label Studio has reached this backend. Raises UnsupportedLabelConfig.
        """
        connect = partial(self._services().events.connect, address=address)
        project = self._project([], connect)
        return project.model_version if project else ""

    def predict(
        self,
        tasks: Sequence[Any],
        context: Any = None,
        **kwargs: Any,  # neither is needed
    ) -> list[dict[str, Any]]:
        """Return one dict per task, in order; an empty one says: no prediction for this task."""
        parsed = [_read_task(task) for task in tasks]
        readable = [task for task in parsed if task is not None]
        if not readable:
            return [{} for _ in tasks]
        services = self._services()
        project = self._project(tasks, services.events.recent)
        if project is None:  # its new questions are not asked yet
            return [{} for _ in tasks]
        predictions = iter(services.prediction.predict(project, readable))
        return [{} if task is None else _as_json(next(predictions)) for task in parsed]

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Take an event: `fit(event, data)` from 2.x, `fit((), event=..., data=...)` from 1.0.9."""
        event = kwargs.get("event") or next((arg for arg in args if isinstance(arg, str)), "")
        data = kwargs.get("data") or next((arg for arg in args if isinstance(arg, dict)), {})
        is_new = self._services().events.receive(read_event({**data, "action": event}))
        return {"taken": is_new}

    def process_event(
        self, event: str, data: dict[str, Any], job_id: str, additional_params: dict[str, Any]
    ) -> dict[str, Any]:
        """Take every event; 1.0.9 would pass on only three of them."""
        return self.fit(event=event, data=data)

    @property
    def model_version(self) -> str:
        """The version that the project serves."""
        return self.connect()

    def get(self, key: str) -> Any:
        """Answer 2.x's look-up of the model version at /setup."""
        return self.model_version if key == "model_version" else None

    def set(self, key: str, value: Any) -> None:
        """Keep nothing: 2.x would write it to a file of its own."""

    def set_extra_params(self, extra_params: Any) -> None:
        """Accept any extra parameters, an object or a string; none is needed."""

    def _services(self) -> Services:
        """Return this process's services; 1.0.9 forks, and connections must not be shared."""
        cls = type(self)
        if cls.services is None or cls._services_pid not in (0, os.getpid()):
            from backend.services import build_services  # only where label-studio-ml serves alone

            cls.services = build_services(Settings.from_env(), fetches_models=False)
        cls._services_pid = os.getpid()
        return cls.services

    def _project(
        self, tasks: Sequence[Any], connect: Callable[[ProjectId, str], Project | None]
    ) -> Project | None:
        if is_project_id(self.project_id) and self.label_config:
            return connect(ProjectId(self.project_id), self.label_config)
        known = self._known_project(tasks)
        if not self.label_config:
            if known is None:
                raise InvalidRequest("the project has no label config yet; call /setup first")
            return known
        project_id = known.id if known else ProjectId(f"{self._platform_id(tasks)}.0")
        return connect(project_id, self.label_config)

    def _known_project(self, tasks: Sequence[Any]) -> Project | None:
        projects = self._services().stores.projects
        return projects.named(self.project_id) or projects.find(self._platform_id(tasks))

    def _platform_id(self, tasks: Sequence[Any]) -> int:
        """Return Label Studio's project number: given, or on the tasks; 0 when nobody says it."""
        if is_project_id(f"{self.project_id}.0"):
            return int(self.project_id)
        numbers = [task.get("project") for task in tasks if isinstance(task, dict)]
        if not numbers or any(number != numbers[0] for number in numbers):
            return 0
        return numbers[0] if is_row_id(numbers[0]) else 0


def _as_json(prediction: Prediction | None) -> dict[str, Any]:
    if prediction is None:
        return {}
    return {
        "result": list(prediction.result),
        "score": prediction.score,
        "model_version": prediction.model_version,
    }


def _read_task(task: Any) -> Task | None:
    try:
        return read_task(task)
    except InvalidRequest:
        return None
