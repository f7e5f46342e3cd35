"""`make demo`: all servers on one machine, and a project that fills with pre-annotations."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backend.errors import LauncherError
from backend.evaluation.metrics import share_interval
from backend.labelstudio.admin import LabelStudioAdmin
from backend.launcher.demo_settings import DEMO, remember
from backend.launcher.label_studio_server import LabelStudioServer, start_label_studio
from backend.launcher.processes import Processes, free_port
from backend.launcher.simulated_people import simulate_people
from backend.launcher.vllm_server import LanguageModelServer, start_language_model
from backend.services import Services, build_services
from backend.setting_values import Secret
from backend.settings import Settings
from backend.supervise import web_command, worker_command

_FOLDER = Path(__file__).parent / "sample"
_GOLD_KEY = "label"
_DEADLINE_S = 1800.0
_POLL_S = 1.0
_N_QUEUE_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """Task data to import, and the gold labels, which are held out."""

    title: str
    label_config: str
    rows: tuple[dict[str, Any], ...]
    gold: tuple[str | None, ...]


def read_sample(data: Path | None, config: Path | None) -> Sample:
    """Read a JSONL file (gzipped or not) and a label config; raises LauncherError."""
    data, config = data or _FOLDER / "reviews.jsonl", config or _FOLDER / "reviews.xml"
    try:
        label_config = config.read_text(encoding="utf-8")
        opener = gzip.open if data.suffix == ".gz" else open
        with opener(data, "rt", encoding="utf-8") as file:
            lines = [line for line in file if line.strip()]
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as exc:
        raise LauncherError(f"cannot read {data} with {config}: {exc}") from exc
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise LauncherError(f"{data} must hold one JSON object a line, and at least one")
    digest = hashlib.sha256((label_config + "".join(lines)).encode()).hexdigest()[:6]
    gold = tuple(None if row.get(_GOLD_KEY) is None else str(row[_GOLD_KEY]) for row in rows)
    texts = tuple({key: row[key] for key in row if key != _GOLD_KEY} for row in rows)
    return Sample(f"FreeAL demo: {data.stem} {digest}", label_config, texts, gold)


def run_demo(
    settings: Settings, *, console: Console, data: Path | None, config: Path | None, once: bool
) -> int:
    """Start everything, show the labels arrive, and stay until Ctrl-C; return the exit code."""
    sample = read_sample(data, config)
    with Processes(home=settings.home, console=console) as processes:
        label_studio = start_label_studio(processes)
        llm = start_language_model(processes, model=settings.llm_model)
        label_studio.wait(processes)
        llm.wait(processes)
        own = _own_settings(settings, label_studio, llm, console)
        remember(own)
        web = processes.start(web_command(own))
        processes.start(worker_command(own))
        processes.wait_ready(web, url=f"{own.own_url}/health", deadline_s=60)
        admin = LabelStudioAdmin(own.label_studio_url, own.label_studio_api_key.reveal())
        project = _project(admin, sample, own, console)
        try:
            _wait_for_labels(processes, admin, project, len(sample.rows))
            with closing(build_services(own)) as services:
                _relabel(processes, services, project)
                queue = _wait_for_order(processes, services, project)
                _answer_as_people(admin, services, project, sample, console)
                lines = [*_accuracy(admin, project, sample), *_cost(services, project), ""]
            lines += [f"Page   {own.own_url}/projects/{project}/", *_login(label_studio, project)]
            console.print(Panel("\n".join(lines), title=sample.title, expand=False))
            for line in queue:
                console.print(line, markup=False, soft_wrap=True)
            if not once:
                console.print(
                    "Everything runs until you press Ctrl-C; a round of training goes on, and "
                    "brings other labels and another order unless they would be worse."
                )
                processes.watch()
        except KeyboardInterrupt:
            console.print("\nStopping what the demo started.")
    return 0


def _own_settings(
    settings: Settings, label_studio: LabelStudioServer, llm: LanguageModelServer, console: Console
) -> Settings:
    """Return the settings of the demo's backend: its own database, the servers' addresses."""
    return replace(
        settings,
        home=settings.home.absolute() / DEMO,
        database_url=Secret(""),
        port=free_port(settings.port, name="the backend", console=console),
        backend_url="",
        label_studio_url=label_studio.url,
        label_studio_api_key=Secret(label_studio.credentials.token),
        llm_base_url=llm.base_url,
        llm_model=llm.model,
        sync_interval_s=5.0,
    )


def _project(admin: LabelStudioAdmin, sample: Sample, own: Settings, console: Console) -> int:
    """Return the sample's project, created unless an earlier demo did."""
    project = admin.find_project(sample.title)
    if project is None:
        project = admin.create_project(sample.title, sample.label_config)
        admin.connect_backend(project, own.own_url, "FreeAL")
        admin.import_tasks(project, sample.rows)
        admin.open_data_manager(project)
        console.print(f"Project {project} made, with {len(sample.rows)} texts.")
    elif own.own_url not in {backend.url.rstrip("/") for backend in admin.backends(project)}:
        admin.connect_backend(project, own.own_url, "FreeAL")
    return project


def _wait_for_labels(
    processes: Processes, admin: LabelStudioAdmin, project: int, n_texts: int
) -> None:
    """Wait until Label Studio shows a prediction on every task; raises LauncherError."""
    columns = (TextColumn("Pre-annotating"), BarColumn(), MofNCompleteColumn())
    deadline = time.monotonic() + _DEADLINE_S
    with Progress(*columns, TimeRemainingColumn(), console=processes.console) as progress:
        bar = progress.add_task("labels", total=n_texts)
        while True:
            n_predicted = admin.count_predicted(project)
            progress.update(bar, completed=n_predicted)
            if n_predicted >= n_texts:
                return
            processes.check()
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"only {n_predicted} of {n_texts} texts have a prediction; "
                    "`make status` and the logs in FREEAL_HOME/logs say why"
                )
            time.sleep(_POLL_S)


def _relabel(processes: Processes, services: Services, number: int) -> None:
    """Have what answers now label what an earlier demo's LLM or encoder labeled; wait for it."""
    change, deadline = services.annotator_change, time.monotonic() + _DEADLINE_S
    project = services.stores.projects.find(number)
    if project is None:
        return
    if not change.count_outdated(project):
        return
    change.ask(project, share=1.0, is_forced=True)
    with processes.console.status("Labelling anew what another LLM, encoder or prompt labelled"):
        while change.is_due(project):
            processes.check()
            if time.monotonic() > deadline:
                raise LauncherError("the logs in FREEAL_HOME/logs say why nothing is labelled anew")
            time.sleep(_POLL_S)


def _wait_for_order(processes: Processes, services: Services, number: int) -> list[str]:
    """Wait until the ordered queue is served; return lines about its first tasks."""
    deadline = time.monotonic() + _DEADLINE_S
    with processes.console.status("Ordering the queue"):
        while True:
            project = services.stores.projects.find(number)
            if project is not None and services.round_steps.prelabel.orderer.is_settled(project):
                break
            processes.check()
            if time.monotonic() > deadline:
                raise LauncherError("the queue has no order; the logs in FREEAL_HOME/logs say why")
            time.sleep(_POLL_S)
    places = services.reporter.upcoming(project, _N_QUEUE_SHOWN).places
    if not places:
        return []
    lines = [f"  {place.position + 1}. task {place.task_id}: {place.reason}" for place in places]
    return ["", '"Label All Tasks" serves first:', *lines]


def _answer_as_people(
    admin: LabelStudioAdmin, services: Services, number: int, sample: Sample, console: Console
) -> None:
    """Have simulated people answer some tasks, where the sample has gold labels."""
    project = services.stores.projects.find(number)
    if project is None:
        return
    task_ids = services.stores.tasks.ids(project.id)
    gold = {i: g for i, g in zip(task_ids, sample.gold, strict=False) if g is not None}
    with console.status("Simulated people answer the first tasks"):
        n_answers = simulate_people(admin, services, project, gold)
    if n_answers:
        console.print(
            f"{n_answers} answers were given by two simulated people, from the gold labels: "
            '"Simulated annotator one" and "two".'
        )


def _accuracy(admin: LabelStudioAdmin, project: int, sample: Sample) -> list[str]:
    """Return lines about the labels, with their accuracy if gold labels tell it."""
    choices = admin.predicted_choices(project)
    lines = [f"Every one of the {len(sample.rows)} texts carries a prediction."]
    pairs = [(g, c) for g, c in zip(sample.gold, choices, strict=False) if g is not None]
    if pairs and any(choices):
        n, n_right = len(pairs), sum(gold == choice for gold, choice in pairs)
        low, high = share_interval(n_right, n)
        lines.append(
            f"Accuracy against the gold labels: {100 * n_right / n:.1f} % of {n} "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        )
    return lines


def _cost(services: Services, number: int) -> list[str]:
    """Return a line about what the LLM was asked for the project."""
    state = services.reporter.find(str(number))
    if state is None:
        return []
    return [f"The LLM read {state['n_tokens_in']:,} tokens and wrote {state['n_tokens_out']:,}."]


def _login(label_studio: LabelStudioServer, project: int) -> list[str]:
    """Return the way to the project in Label Studio."""
    return [
        f"Open   {label_studio.url}/projects/{project}/data",
        f"Login  {label_studio.credentials.username}",
        f"Pass   {label_studio.credentials.password}",
    ]
