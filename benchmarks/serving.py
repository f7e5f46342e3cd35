"""Measure the routes' latency and the labeling rate relative to the LLM server's own rate.

What is compared runs in one call on one machine: ratios carry over to other machines, single
figures hardly do.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
from rich.console import Console

from backend.domain.chunks import Chunk
from backend.domain.labels import WeakLabel
from backend.domain.projects import Prediction, Project, ProjectId, Task
from backend.factories import connect_language_model
from backend.launcher.child_process import Command
from backend.launcher.processes import Processes, answers, free_port
from backend.launcher.vllm_server import start_language_model
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from backend.supervise import web_command
from benchmarks.datasets import read_rows
from benchmarks.language_models import DirectClient, RecordingLanguageModel
from benchmarks.report import Report, percentile

CONFIG = (
    Path(__file__).resolve().parent.parent / "backend/launcher/sample/reviews.xml"
).read_text()
ROOT = Path(__file__).resolve().parent.parent
STORED = ProjectId("999.1795215594")
N_STORED = 1_500
N_SINGLE = 400
N_BULK = 15
N_REPEATS = 2
N_WARM_UP = 128


@dataclass(frozen=True, slots=True)
class Servers:
    """The web process, the baseline beside it, and what is sent to both."""

    web_url: str
    bare_url: str
    texts: list[str]


def run(report: Report, *, console: Console, data: Path | None, n_texts: int) -> None:
    """Measure labeling and /predict with servers started on free ports."""
    base = Settings.from_env()
    split = None if data is None else "train"
    texts = distinct_texts([str(row["text"]) for row in read_rows(data, split=split)], n_texts)
    with (
        tempfile.TemporaryDirectory() as folder,
        Processes(home=base.home, console=console) as processes,
    ):
        llm_url = _language_model(processes, base)
        settings = replace(
            base,
            home=Path(folder),
            port=free_port(9190, name="web", console=console),
            llm_base_url=llm_url,
            label_studio_url="http://127.0.0.1:9",
            log_level="WARNING",
        )
        _measure_labeling(report, settings, texts)
        services = build_services(settings)
        fill_stored(services, texts)
        _measure_predict(report, start_servers(processes, settings, texts, console))
        services.close()


def _language_model(processes: Processes, settings: Settings) -> str:
    """Return the URL of the user's server, or start the embedded one."""
    if answers(settings.llm_base_url + "/models"):
        return settings.llm_base_url
    server = start_language_model(processes, model=settings.llm_model)
    server.wait(processes)
    return server.base_url


def distinct_texts(texts: Sequence[str], n: int) -> list[str]:
    """Return n distinct texts, repeated ones with a number in front."""
    return [
        texts[i] if i < len(texts) else f"({i // len(texts)}) {texts[i % len(texts)]}"
        for i in range(n)
    ]


def task(number: int, texts: Sequence[str]) -> dict[str, Any]:
    """Return a stored task as Label Studio sends it; numbers start at 1."""
    return {"id": number, "data": {"text": texts[number - 1]}, "project": 1, "annotations": []}


def _measure_labeling(report: Report, settings: Settings, texts: Sequence[str]) -> None:
    """Label the same texts through the worker's whole path and directly at the server, in turn.

    Each repeat has a home and texts of its own, so that no answer comes from a cache. No label
    model is fitted before, so the LLM is the only annotator.
    """
    ours: list[float] = []
    ceiling: list[float] = []
    for number in range(N_REPEATS + 1):
        some = [f"({number}) {text}" for text in (texts if number else texts[:N_WARM_UP])]
        with tempfile.TemporaryDirectory() as folder:
            own = replace(settings, home=Path(folder))
            server = connect_language_model(own)
            recorder = RecordingLanguageModel(server)
            services = build_services(own, Adapters(language_model=recorder))
            seconds = _label_all(services, some)
            calls = recorder.calls
            name = services.language_model.describe().name
            services.close()
            direct_s = DirectClient(own, server).batched_seconds(calls)
            server.close()
        if not calls:
            raise RuntimeError("nothing was sent to the LLM")
        if number > 0:
            ours.append(len(texts) / seconds)
            ceiling.append(len(texts) / direct_s)
    report.results |= {
        "annotate_labels_per_s": round(percentile(ours, 50), 2),
        "annotate_ratio": round(percentile(ours, 50) / percentile(ceiling, 50), 3),
    }
    report.notes |= {
        "ceiling_labels_per_s": round(percentile(ceiling, 50), 2),
        "annotate_rounds": [round(rate, 2) for rate in ours],
        "ceiling_rounds": [round(rate, 2) for rate in ceiling],
        "model": name,
    }


def _label_all(services: Services, texts: Sequence[str]) -> float:
    project = services.events.connect(STORED, CONFIG)
    tasks = [Task(n, {"text": text}) for n, text in enumerate(texts, start=1)]
    services.stores.tasks.save(STORED, tasks)
    services.language_model.describe()
    started = time.perf_counter()
    annotator, after = services.round_steps.prelabel.annotator, 0
    size = services.settings.annotate_chunk
    while (planned := annotator.plan_chunk(STORED, after=after, size=size))["n_tasks"]:
        annotator.annotate_chunk(STORED, chunk=Chunk(after, planned["through"]))
        after = planned["through"]
    seconds = time.perf_counter() - started
    if services.stores.labels.progress(project).n_labelled != len(texts):
        raise RuntimeError("not every text got a label")
    return seconds


def fill_stored(services: Services, texts: Sequence[str]) -> Project:
    """Store a labeled and published project."""
    project = services.events.connect(STORED, CONFIG)
    stored = distinct_texts(texts, N_STORED)
    tasks = [Task(n, {"text": text}) for n, text in enumerate(stored, start=1)]
    services.stores.tasks.save(STORED, tasks)
    schema = services.config.read_schema(CONFIG)
    weak = [WeakLabel(t.id, "sentiment", "llm:bench", "v1", (0.9, 0.1)) for t in tasks]
    converted = [services.config.write_prediction(schema, [w], project.model_version) for w in weak]
    predictions: list[Prediction] = [p for p in converted if p is not None]
    services.stores.labels.save(project, weak, predictions)
    services.stores.publication.note_published(project, [t.id for t in tasks])
    return project


def start_servers(
    processes: Processes, settings: Settings, texts: list[str], console: Console
) -> Servers:
    web = processes.start(web_command(settings))
    port = free_port(9290, name="bare", console=console)
    bare_home = settings.home / "bare"
    bare_home.mkdir()
    bare = processes.start(
        Command(
            name="bare",
            argv=(sys.executable, "-m", "benchmarks.constant_backend", str(port)),
            folder=ROOT,
            environment={"MODEL_DIR": str(bare_home)},
        )
    )
    web_url, bare_url = f"http://127.0.0.1:{settings.port}", f"http://127.0.0.1:{port}"
    processes.wait_ready(web, url=f"{web_url}/health", deadline_s=60)
    processes.wait_ready(bare, url=f"{bare_url}/health", deadline_s=60)
    for url in (web_url, bare_url):
        setup = {"project": STORED, "schema": CONFIG, "hostname": "", "access_token": ""}
        requests.post(f"{url}/setup", json=setup, timeout=30).raise_for_status()
    return Servers(web_url, bare_url, distinct_texts(texts, N_STORED))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def predict(url: str, tasks: Sequence[dict[str, Any]], n_expected: int) -> None:
    """Call /predict over a connection of its own, as Label Studio does."""
    payload = {
        "tasks": list(tasks),
        "project": STORED,
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }
    answer = requests.post(f"{url}/predict", json=payload, timeout=60)
    answer.raise_for_status()
    results = answer.json()["results"]
    if len(results) != n_expected or not all(result.get("result") for result in results):
        raise RuntimeError(f"{url} did not answer {n_expected} predictions from the store")


def _measure_predict(report: Report, servers: Servers) -> None:
    tasks = [task(n, servers.texts) for n in range(1, N_STORED + 1)]
    ours: list[float] = []
    bare: list[float] = []
    for i in range(N_SINGLE + 20):
        one = [tasks[i % N_STORED]]
        for url, durations in ((servers.web_url, ours), (servers.bare_url, bare)):
            durations.append(_seconds(lambda url=url, one=one: predict(url, one, 1)))  # type: ignore[misc]
    ours, bare = ours[20:], bare[20:]
    bulk, bare_bulk = (
        [_seconds(lambda url=url: predict(url, tasks, N_STORED)) for _ in range(N_BULK)]  # type: ignore[misc]
        for url in (servers.web_url, servers.bare_url)
    )
    report.results |= {
        "predict_1_p50_ms": round(1000 * percentile(ours, 50), 2),
        "predict_1_p99_ms": round(1000 * percentile(ours, 99), 2),
        "predict_1_ratio": round(percentile(ours, 50) / percentile(bare, 50), 3),
        "predict_1500_p50_s": round(percentile(bulk, 50), 4),
        "predict_1500_p99_s": round(percentile(bulk, 99), 4),
    }
    report.notes |= {
        "bare_predict_1_p50_ms": round(1000 * percentile(bare, 50), 2),
        "bare_predict_1_p99_ms": round(1000 * percentile(bare, 99), 2),
        "bare_predict_1500_p50_s": round(percentile(bare_bulk, 50), 4),
    }
