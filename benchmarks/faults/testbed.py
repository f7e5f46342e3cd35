"""Set up the testbed of the fault cases: Label Studio, LLM server, proxies and snapshots.

All cases start from the same two databases, so that ids and therefore seeds are the same.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from rich.console import Console

from backend.labelstudio.admin import LabelStudioAdmin
from backend.launcher.child_process import ChildProcess, Command
from backend.launcher.embedded_models import SMOLLM2
from backend.launcher.environments import PROJECT_FOLDER
from backend.launcher.label_studio_server import LabelStudioServer, start_label_studio
from backend.launcher.processes import Processes
from backend.launcher.vllm_server import start_language_model
from backend.services import build_services
from backend.setting_values import Secret
from backend.settings import Settings
from backend.supervise import web_command
from benchmarks.faults.checks import HumanLabels
from benchmarks.faults.llm_proxy import LLMProxy
from benchmarks.faults.platform_proxy import PlatformProxy
from benchmarks.faults.project_kinds import AnsweredText, ProjectKind, answer_of
from benchmarks.faults.webhook_proxy import WebhookProxy

LLM_PORT, WEBHOOK_PORT, WEB_PORT, LABEL_STUDIO_PORT, VLLM_PORT = 18611, 18612, 18613, 18614, 18615
PLATFORM_PORT = 18616
WEB_URL = f"http://127.0.0.1:{WEB_PORT}"
UNLABELED, LABELED = "unlabeled", "labeled"
SCRIPTED, EMBEDDED = "scripted", "embedded"
N_SUBMITTED, N_CHANGED, N_DELETED = 12, 2, 1
"""Human labels: submitted first, then changed, then deleted ones among them."""
_POLL_S = 0.2
_READY_S = 180.0
_HALF_REQUEST = b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"


@dataclass(slots=True)
class Testbed:
    """The servers, settings and snapshots that all cases share."""

    folder: Path
    console: Console
    processes: Processes
    label_studio: LabelStudioServer
    llm: LLMProxy
    webhooks: WebhookProxy
    platform: PlatformProxy
    settings: Settings
    kind: ProjectKind
    texts: Sequence[AnsweredText]
    owns_vllm: bool = False
    vllm: ChildProcess | None = None
    project: int = 0

    @property
    def database(self) -> Path:
        """Return Label Studio's own database."""
        return next((self.folder / "label-studio").glob("*.sqlite3"))

    def snapshot(self, name: str) -> Path:
        """Return the folder of a snapshot."""
        return self.folder / "snapshots" / name

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call Label Studio's API; return its JSON, None when there is none."""
        headers = {"Authorization": f"Token {self.label_studio.credentials.token}"}
        url = self.label_studio.url + path
        response = requests.request(method, url, headers=headers, timeout=120, **options)
        response.raise_for_status()
        return response.json() if response.content else None

    def tasks(self) -> list[dict[str, Any]]:
        """Return all tasks from Label Studio, with predictions and annotations, by id."""
        query = {"project": self.project, "fields": "all", "page_size": 2000}
        found = self.call("GET", "/api/tasks", params=query)["tasks"]
        return sorted(found, key=lambda task: int(task["id"]))

    def submit_human_labels(self) -> None:
        """Submit gold labels of the first tasks, change some and delete some."""
        numbers = [self.submit(task) for task in self.tasks()[:N_SUBMITTED]]
        for number in numbers[:N_CHANGED]:
            self.change(number)
        for number in numbers[-N_DELETED:]:
            self.call("DELETE", f"/api/annotations/{number}/")

    def submit(self, task: Mapping[str, Any]) -> int:
        """Submit a task's gold label; return the annotation's number."""
        gold = next(each.gold for each in self.texts if each.text == task["data"]["text"])
        path = f"/api/tasks/{task['id']}/annotations/"
        return int(self.call("POST", path, json={"result": gold})["id"])

    def change(self, number: int) -> None:
        """Change an annotation to another label."""
        path = f"/api/annotations/{number}/"
        before = self.call("GET", path)["result"]
        self.call("PATCH", path, json={"result": self.kind.altered(before)})

    def human_labels(self) -> HumanLabels:
        """Return the annotations that Label Studio holds now."""
        return {
            int(annotation["id"]): (int(task["id"]), answer_of(annotation["result"]))
            for task in self.tasks()
            for annotation in task["annotations"]
            if not annotation["was_cancelled"]
        }

    def stop_label_studio(self) -> None:
        """Kill Label Studio."""
        kill(descendants(self.label_studio.child.pid))
        self.processes.stop(self.label_studio.child)

    def start_label_studio(self) -> None:
        """Start Label Studio at the same URL, and wait until it answers."""
        self.label_studio = start_label_studio(self.processes, port=LABEL_STUDIO_PORT)
        self.label_studio.wait(self.processes)

    def start_vllm(self) -> None:
        """Start vLLM with the embedded model behind the proxy, and wait until it answers."""
        server = start_language_model(self.processes, model=SMOLLM2.name, port=VLLM_PORT)
        server.wait(self.processes)
        self.vllm, self.llm.upstream = server.child, server.base_url

    def stop_vllm(self) -> None:
        """Kill the vLLM that the testbed started, if any."""
        if self.vllm is not None:
            kill(descendants(self.vllm.pid))
            self.processes.stop(self.vllm)
            self.vllm = None


@contextmanager
def open_testbed(
    folder: Path, console: Console, *, kind: ProjectKind, n_texts: int, llm: str
) -> Iterator[Testbed]:
    """Start Label Studio and both proxies in a folder that may have been used before.

    Args:
        folder: Keeps Label Studio, snapshots and the LLM's recorded answers.
        console: Shows the servers' progress.
        kind: The project's config and texts.
        n_texts: Number of texts in the project.
        llm: URL of a running LLM server; SCRIPTED: a scripted one; EMBEDDED: a vLLM to start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _link_environments(folder)
    texts = kind.texts(n_texts)
    recording = folder / "answers.json"
    proxy = LLMProxy(port=LLM_PORT, recording=recording, label_config=kind.config)
    webhooks = WebhookProxy(port=WEBHOOK_PORT, web_url=WEB_URL)
    scripted = kind.scripted_llm(texts) if llm == SCRIPTED else None
    proxy.upstream = scripted.url if scripted else llm
    platform = PlatformProxy(port=PLATFORM_PORT)
    with (
        closing(proxy),
        closing(webhooks),
        closing(platform),
        Processes(home=folder, console=console) as processes,
    ):
        label_studio = start_label_studio(processes, port=LABEL_STUDIO_PORT)
        label_studio.wait(processes)
        platform.upstream, platform.token = label_studio.url, label_studio.credentials.token
        testbed = Testbed(
            folder,
            console,
            processes,
            label_studio,
            proxy,
            webhooks,
            platform,
            _settings((proxy, webhooks, platform), student_model=_encoder(folder, kind, texts)),
            kind,
            texts,
        )
        if llm == EMBEDDED:
            testbed.owns_vllm = True
            testbed.start_vllm()
        _prepare(testbed)
        yield testbed


def _settings(
    proxies: tuple[LLMProxy, WebhookProxy, PlatformProxy], *, student_model: str
) -> Settings:
    """Return the settings of a backend behind the proxies."""
    llm, webhooks, platform = proxies
    return Settings(
        port=WEB_PORT,
        backend_url=webhooks.url,
        label_studio_url=platform.url,
        label_studio_api_key=Secret(platform.token),
        llm_base_url=llm.base_url,
        round_every=0,
        student_model=student_model,
        student_recipe="probe",
        sync_interval_s=1.0,
        annotate_chunk=16,
        publish_chunk=16,
    )


def _encoder(folder: Path, kind: ProjectKind, texts: Sequence[AnsweredText]) -> str:
    """Return the folder of the encoder that rounds fine-tune, "" where they fine-tune none."""
    if kind.save_encoder is None:
        return ""
    encoder = folder / "encoder"
    if not encoder.exists():
        kind.save_encoder(encoder, [each.text for each in texts])
    return str(encoder)


def _link_environments(folder: Path) -> None:
    """Link the environments and models of FREEAL_HOME, and none of its data."""
    lasting = Settings.from_env().home.absolute()
    (folder / "models").mkdir(exist_ok=True)
    links = [
        Path("envs"),
        *(Path("models") / p.name for p in (lasting / "models").glob(SMOLLM2.folder_name)),
    ]
    for link in links:
        if not (folder / link).exists():
            (folder / link).symlink_to(lasting / link)


def _prepare(testbed: Testbed) -> None:
    """Create the project and both snapshots, unless an earlier run did."""
    known = testbed.folder / "testbed.json"
    if known.exists():
        testbed.project = int(json.loads(known.read_text(encoding="utf-8"))["project"])
        return
    home = testbed.folder / "preparing"
    shutil.rmtree(home, ignore_errors=True)
    settings = replace(testbed.settings, home=home)
    build_services(settings).close()
    web = testbed.processes.start(web_command(settings))
    testbed.processes.wait_ready(web, url=f"{WEB_URL}/health", deadline_s=_READY_S)
    token = testbed.label_studio.credentials.token
    with closing(LabelStudioAdmin(testbed.label_studio.url, token)) as admin:
        testbed.project = admin.create_project("Faults", testbed.kind.config)
        admin.connect_backend(testbed.project, testbed.webhooks.url, "FreeAL")
        admin.import_tasks(testbed.project, [{"text": each.text} for each in testbed.texts])
    _save_snapshot(testbed, home, UNLABELED)
    testbed.submit_human_labels()
    time.sleep(2.0)  # for the last webhooks
    testbed.processes.stop(web)
    _save_snapshot(testbed, home, LABELED)
    known.write_text(json.dumps({"project": testbed.project}), encoding="utf-8")


def _save_snapshot(testbed: Testbed, home: Path, name: str) -> None:
    folder = testbed.snapshot(name)
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(2.0)  # for webhooks that are under way
    copy_database(testbed.database, folder / "label-studio.db")
    copy_database(home / "freeal.db", folder / "freeal.db")


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database over another one, also while programs have them open."""
    with (
        closing(sqlite3.connect(source, timeout=60)) as from_there,
        closing(sqlite3.connect(target, timeout=60)) as to_here,
    ):
        from_there.backup(to_here)


def serve_command(settings: Settings) -> Command:
    """Return the command that a user starts web and worker with."""
    return Command(
        "serve",
        (sys.executable, "-m", "backend", "serve"),
        folder=PROJECT_FOLDER,
        environment=replace(settings, home=settings.home.absolute()).to_env(),
    )


def wait_for(condition: Callable[[], bool], *, within_s: float) -> bool:
    """Wait until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's descendants, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(after_name[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def kill(pids: Sequence[int]) -> None:
    """Kill processes; skip those already gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def fill(file: Path) -> None:
    """Write a file until the disk is full."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(b"\0" * 4096)


@contextmanager
def half_requests(url: str, n: int) -> Iterator[None]:
    """Hold connections to a web process open, each with half of a request sent."""
    parts = urlsplit(url)
    with ExitStack() as stack:
        for _ in range(n):
            address = (parts.hostname or "", parts.port or 0)
            opened = stack.enter_context(socket.create_connection(address, timeout=10))
            opened.sendall(_HALF_REQUEST)
        yield
