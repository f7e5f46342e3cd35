"""Measure what many projects cost: the routes, the worker's pass, and invented projects.

Label Studio is in memory, so that all time is the backend's own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from flask.testing import FlaskClient
from rich.console import Console

from backend.domain.labels import WeakLabel
from backend.domain.projects import Prediction, ProjectId
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from backend.store import tables as t
from backend.store.database import now
from backend.web.app import build_app
from backend.worker import Dispatcher
from benchmarks.report import Report, percentile
from model import FreeALBackend
from tests.fakes import OWN_ADDRESS, FakePlatform

_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="mood" toName="text">'
    '<Choice value="Good"/><Choice value="Bad"/></Choices></View>'
)
_REGION = {
    "id": "a1b2c3d4e5",
    "from_name": "mood",
    "to_name": "text",
    "type": "choices",
    "value": {"choices": ["Good"]},
}
_N_REPEATS = 5
_FIRST_INVENTED = 1_000_000
_FORGOTTEN_AFTER = timedelta(days=1, minutes=1)


@dataclass(frozen=True, slots=True)
class ManyProjectsRun:
    """Parameters of one run.

    Args:
        n_projects: Projects that Label Studio has and that list this backend.
        n_tasks: Labeled tasks in each.
        n_invented: Projects that somebody names at /setup and that do not exist.
    """

    n_projects: int = 200
    n_tasks: int = 100
    n_invented: int = 2_000


class _NoJobs:
    """Takes no job: only what is due is measured."""

    def submit(self, project_id: ProjectId, kind: str) -> bool:
        return False


@dataclass
class _Deployment:
    """A backend with its Label Studio."""

    platform: FakePlatform
    services: Services
    client: FlaskClient
    figures: dict[str, float] = field(default_factory=dict)

    def connect(self, project_id: str) -> bool:
        """Name a project at /setup; return whether it was taken."""
        body = {"project": project_id, "schema": _CONFIG}
        return self.client.post("/setup", json=body).status_code == 200

    def add_project(self, n_tasks: int) -> None:
        """Make a project in Label Studio, connect, list and label it."""
        number = self.platform.create_project(_CONFIG)
        texts = [{"text": f"a film like {at} others"} for at in range(n_tasks)]
        task_ids = self.platform.import_tasks(number, texts)
        project_id = self.platform.projects[number].info.id
        self.connect(project_id)
        self.services.round_steps.prelabel.synchronizer.sync(project_id)
        project = self.services.stores.projects.get(project_id)
        if project is None:
            raise RuntimeError("/setup did not take a project")
        labels = [WeakLabel(i, "mood", "made up", "v1", (0.9, 0.1)) for i in task_ids]
        predictions = [Prediction(i, "", (_REGION,), 0.9) for i in task_ids]
        self.services.stores.labels.save(project, labels, predictions)

    def pass_once(self) -> None:
        """Look at every project, as the worker does at each sync interval."""
        Dispatcher(self.services, _NoJobs()).request_due_jobs()

    def measure(self, name: str) -> None:
        """Note seconds of the routes and of the worker's pass under this name."""
        for route in ("health", "metrics"):
            seconds = [_seconds(lambda: self.client.get(f"/{route}")) for _ in range(_N_REPEATS)]  # noqa: B023
            self.figures[f"{route}_{name}_s"] = round(percentile(seconds, 50), 4)
        self.figures[f"pass_{name}_s"] = round(_seconds(self.pass_once), 3)

    def n_connected(self) -> int:
        """Return the number of projects that are worked for."""
        return sum(project.is_connected for project in self.services.stores.projects.all())

    def pass_a_day(self) -> None:
        """Set the clocks of disconnected projects back, and delete what is past its time."""
        column = t.projects.c.disconnected_at
        earlier = sa.update(t.projects).where(column.is_not(None))
        self.services.database.execute(earlier.values(disconnected_at=now() - _FORGOTTEN_AFTER))
        self.services.housekeeper.run()


def run(report: Report, config: ManyProjectsRun, *, console: Console) -> None:
    """Measure with real projects alone, after the invented ones came, and a day later."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder),
            backend_url=OWN_ADDRESS,
            log_level="ERROR",
            max_projects=config.n_projects + min(config.n_invented, config.n_projects),
        )
        platform = FakePlatform()
        services = build_services(settings, Adapters(platform))
        FreeALBackend.services = services
        try:
            client = build_app(services, FreeALBackend).test_client()
            _measure(report, config, _Deployment(platform, services, client), console)
        finally:
            services.close()


def _measure(
    report: Report, config: ManyProjectsRun, deployment: _Deployment, console: Console
) -> None:
    for number in range(config.n_projects):
        deployment.add_project(config.n_tasks)
        if (number + 1) % 50 == 0:
            console.print(f"{number + 1} projects")
    deployment.measure("real")
    names = [f"{_FIRST_INVENTED + at}.1795215594" for at in range(config.n_invented)]
    n_admitted = _count(deployment.connect, names)
    n_connected = deployment.n_connected()
    deployment.measure("invented")
    deployment.figures["pass_after_s"] = round(_seconds(deployment.pass_once), 3)
    n_after = deployment.n_connected()
    deployment.pass_a_day()
    report.results |= deployment.figures | {
        "n_invented_admitted": n_admitted,
        "n_connected_before_the_pass": n_connected,
        "n_connected_after_the_pass": n_after,
        "n_stored_after_a_day": len(deployment.services.stores.projects.all()),
    }


def _count(connect: Callable[[str], bool], names: Sequence[str]) -> int:
    return sum(connect(name) for name in names)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
