"""The ML backend class: read a request, call one use case, write the answer."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

try:
    from backend.domain.projects import (
        Prediction,
        Project,
        ProjectId,
        Task,
        is_project_id,
        is_row_id,
    )
except ModuleNotFoundError as exc:
    raise ImportError(
        "model.py is a part of FreeAL and needs the folder `backend` beside it, which "
        "`label-studio-ml create --script` does not copy: start it from the checkout instead "
        "(`label-studio-ml start .`), or put the checkout into PYTHONPATH"
    ) from exc
from backend.errors import InvalidRequest, PlatformError
from backend.labelstudio.events import read_event, read_task
from backend.labelstudio.sdk_views import label_interface, parsed_label_config
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
_KEPT = ("label_config", "extra_params", "project_id")


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
    extra_params: Any = None
    train_output: dict[str, Any] = {}
    _label_studio_client: Any = None  # the base class of 2.x keeps its SDK client here

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
        self, tasks: Sequence[Any], context: Any = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return one dict per task, in order; an empty one says: no prediction for this task.

        A task without an id is labeled and nothing of it is stored; its dict can be an "error".
        """
        with _refusals(is_answered_here=context is None and not kwargs):
            return self._predict(tasks)

    def _predict(self, tasks: Sequence[Any]) -> list[dict[str, Any]]:
        parsed = [_read_task(task, at) for at, task in enumerate(tasks)]
        readable = [task for task in parsed if task is not None]
        if not readable:
            return [{} for _ in tasks]
        services = self._services()
        project = self._project(tasks, services.events.recent)
        if project is None:  # its new questions are not asked yet
            return [{} for _ in tasks]
        stored = [task for task in readable if task.id > 0]
        unnamed = [task for task in readable if task.id <= 0]
        found: list[Prediction | str | None] = []
        found += services.prediction.predict(project, stored) if stored else []
        found += services.prediction.label(project, unnamed) if unnamed else []
        by_id = {task.id: one for task, one in zip([*stored, *unnamed], found, strict=True)}
        return [{} if task is None else _as_json(by_id[task.id]) for task in parsed]

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Take an event: `fit(event, data)` from 2.x, `fit((), event=..., data=...)` from 1.0.9."""
        event = kwargs.get("event") or next((arg for arg in args if isinstance(arg, str)), "")
        data = kwargs.get("data") or next((arg for arg in args if isinstance(arg, dict)), {})
        is_ours = "only_connected" in kwargs
        try:
            read = read_event({**data, "action": event})
        except InvalidRequest as exc:
            if is_ours:  # our own route answers with 400
                raise
            return {"taken": False, "error": str(exc)}
        only_connected = bool(kwargs.get("only_connected"))
        return {"taken": self._services().events.receive(read, only_connected=only_connected)}

    def process_event(
        self, event: str, data: dict[str, Any], job_id: str, additional_params: dict[str, Any]
    ) -> dict[str, Any]:
        """Take every event; 1.0.9 would pass on only three of them."""
        return self.fit(event=event, data=data)

    @property
    def model_version(self) -> str:
        """The version that the project serves."""
        return self.connect()

    @property
    def label_interface(self) -> Any:
        """Return the SDK's view of the label config, as 2.x offers it."""
        return label_interface(self.label_config)

    @property
    def parsed_label_config(self) -> dict[str, Any]:
        """Return the label config's control tags by name, as the base class offers them."""
        return parsed_label_config(self.label_config)

    def use_label_config(self, label_config: str) -> None:
        """Take another label config; it is read when it is used."""
        self.label_config = label_config

    def get(self, key: str) -> Any:
        """Return the model version, at 2.x's /setup, or what 2.x keeps in its cache."""
        if key != "model_version":
            return getattr(self, key, None) if key in _KEPT else None
        with _refusals(is_answered_here=False):
            return self.model_version

    def set(self, key: str, value: Any) -> None:
        """Keep nothing: 2.x would write it to a file of its own."""

    def has(self, key: str) -> bool:
        """Return whether `get` returns anything."""
        return self.get(key) is not None

    def set_extra_params(self, extra_params: Any) -> None:
        """Accept any extra parameters, an object or a string; none is needed."""
        self.extra_params = extra_params

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
        return connect(known.id if known else self._new_id(tasks), self.label_config)

    def _new_id(self, tasks: Sequence[Any]) -> ProjectId:
        """Return the id of a project that only its number is known of, as Label Studio tells it.

        2.x cuts the creation time off, without which a number that is used again would go on as
        the project before it.
        """
        number = self._platform_id(tasks)
        try:
            return self._services().platform.project(number).id
        except PlatformError:
            return ProjectId(f"{number}.0")

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


def _as_json(prediction: Prediction | str | None) -> dict[str, Any]:
    """Return a prediction as Label Studio stores it, or the reason for whoever asks by hand."""
    if prediction is None:
        return {}
    if isinstance(prediction, str):
        return {"error": prediction}
    return {
        "result": list(prediction.result),
        "score": prediction.score,
        "model_version": prediction.model_version,
    }


def _read_task(task: Any, at: int) -> Task | None:
    """Return a task; one without an id gets a number below 1 of its own."""
    is_named = isinstance(task, dict) and "id" in task
    try:
        read = read_task(task if is_named else {**task, "id": 1})
    except (InvalidRequest, TypeError):
        return None
    return read if is_named else replace(read, id=-at)


@contextmanager
def _refusals(*, is_answered_here: bool) -> Iterator[None]:
    """Have label-studio-ml answer a caller's mistake with 400 and words, not with 500."""
    try:
        yield
    except InvalidRequest as exc:
        if is_answered_here:
            raise
        from label_studio_ml.exceptions import AnswerException

        raise AnswerException(400, str(exc), {}) from exc
