"""Measure what people wait for while the worker is busy, side by side with a bare backend.

Webhooks at a fixed rate, many predictions at once, clients that send half a request, and twenty
projects that connect at the same time. Label Studio and the LLM are scripted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from rich.console import Console

from backend.domain.projects import ProjectId
from backend.launcher.embedded_models import ENCODERS
from backend.launcher.processes import Processes, free_port
from backend.settings import Settings
from backend.supervise import worker_command
from benchmarks.datasets import read_rows
from benchmarks.faults.testbed import half_requests
from benchmarks.report import Report, percentile
from benchmarks.scale import Cluster, open_cluster
from benchmarks.scripted_label_studio import CREATED_AT, CREATED_UNIX, Script
from benchmarks.serving import CONFIG, Servers, fill_stored, predict, start_servers, task

RATES_PER_S = (10, 50)
N_SIDE_BY_SIDE = 200
N_HALF_REQUESTS = 200
N_TIMED = 100
LABEL_STUDIO_TIMEOUT_S = 1.0
_BARE_S = 5
_TIMEOUT_S = 30.0
_FIRST_LABELS_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What is measured: projects at once with so many tasks each, seconds of each webhook rate."""

    n_projects: int = 20
    n_tasks: int = 2_000
    seconds: int = 30
    latency_s: float = 1.0


def run(report: Report, config: LoadRun, *, console: Console) -> None:
    """Start all servers on free ports and measure one thing after the other."""
    texts = [str(row["text"])[:300] for row in read_rows(None)]
    lasting = Settings.from_env()
    with (
        tempfile.TemporaryDirectory(prefix="freeal-load-") as folder,
        Processes(home=Path(folder), console=console) as processes,
    ):
        home = Path(folder) / "home"
        _link_encoders(lasting.home.absolute(), home)
        port = free_port(9190, name="web", console=console)
        settings = replace(Settings(), home=home, port=port, sync_interval_s=5.0)
        script = Script(CONFIG, settings.own_url, texts, config.n_tasks, config.n_projects)
        with open_cluster(processes, settings, script, latency_s=config.latency_s) as cluster:
            fill_stored(cluster.services, texts)
            servers = start_servers(processes, cluster.settings, texts, console)
            _measure_side_by_side(report, servers)
            worker = processes.start(worker_command(cluster.settings))
            _measure_projects(report, cluster, servers, config)
            _measure_webhooks(report, cluster, servers, config)
            processes.stop(worker)
            _measure_half_requests(report, servers)


def _link_encoders(lasting: Path, home: Path) -> None:
    """Link the embedded encoders that are there already, so that none is fetched."""
    (home / "models").mkdir(parents=True)
    for encoder in ENCODERS:
        if encoder.is_there(lasting):
            source = encoder.folder(lasting)
            (home / "models" / source.name).symlink_to(source)


def _measure_projects(report: Report, cluster: Cluster, servers: Servers, config: LoadRun) -> None:
    """Connect all projects at once; wait for the first labels of each."""
    numbers = range(1, config.n_projects + 1)
    started = time.time()
    with ThreadPoolExecutor(config.n_projects) as pool:
        list(pool.map(lambda number: _connect(servers.web_url, number), numbers))
    deadline = started + _FIRST_LABELS_WITHIN_S
    while time.time() < deadline:
        counts = cluster.counts()
        if len(counts["first_import_at"]) == config.n_projects:
            break
        time.sleep(0.5)
    waits = [at - started for at in counts["first_import_at"].values()]
    waits += [float("inf")] * (config.n_projects - len(waits))
    of_all = sorted(counts["n_by_project"].values())
    report.results |= {
        "first_labels_p50_s": round(percentile(waits, 50), 1),
        "first_labels_max_s": round(max(waits), 1),
    }
    report.notes |= {
        "labels_of_each_project_then": [of_all[0], of_all[-1]] if of_all else [],
        "seconds_then": round(time.time() - started, 1),
    }


def _connect(url: str, number: int) -> None:
    setup = {"project": f"{number}.{CREATED_UNIX}", "schema": CONFIG, "hostname": ""}
    answer = requests.post(f"{url}/setup", json={**setup, "access_token": ""}, timeout=_TIMEOUT_S)
    answer.raise_for_status()


def _measure_webhooks(report: Report, cluster: Cluster, servers: Servers, config: LoadRun) -> None:
    """Post annotations at each rate while the worker labels; count those that are stored."""
    stores, n_sent = cluster.services.stores, 0
    for rate in RATES_PER_S:
        n = config.seconds * rate
        n_before = cluster.counts()["n_predicted"]
        payloads = [annotation(1_000_000 + n_sent + i) for i in range(n)]
        n_sent += n
        ours, n_refused = post_at_rate(servers.web_url, payloads, rate)
        n_labeled = cluster.counts()["n_predicted"] - n_before
        some = [annotation(9_000_000 + i) for i in range(_BARE_S * rate)]
        bare, n_refused_bare = post_at_rate(
            servers.bare_url, some, rate, timeout_s=LABEL_STUDIO_TIMEOUT_S
        )
        report.results |= {
            f"webhook_{rate}_p99_ms": round(1000 * percentile(ours, 99), 1),
            f"webhook_{rate}_max_ms": round(1000 * max(ours), 1),
        }
        report.notes |= {
            f"bare_webhook_{rate}_p99_ms": round(1000 * percentile(bare, 99), 1),
            f"webhooks_refused_at_{rate}": n_refused,
            f"bare_webhooks_refused_at_{rate}": n_refused_bare,
            f"labels_per_s_at_{rate}": round(n_labeled / config.seconds, 1),
        }
    events = stores.tasks.events(ProjectId(f"1.{CREATED_UNIX}"))
    report.results["webhooks_lost"] = n_sent - events.get("ANNOTATION_CREATED", 0)
    report.notes["webhooks_sent"] = n_sent


def _measure_side_by_side(report: Report, servers: Servers) -> None:
    """Call /predict for a stored task each, all at the same moment, after one call."""
    for name, url in (("", servers.web_url), ("bare_", servers.bare_url)):
        predict(url, [task(1, servers.texts)], 1)
        with ThreadPoolExecutor(N_SIDE_BY_SIDE) as pool:
            calls = [
                lambda url=url, number=number: predict(url, [task(number, servers.texts)], 1)
                for number in range(1, N_SIDE_BY_SIDE + 1)
            ]
            seconds = list(pool.map(seconds_of, calls))
        found = {
            f"{name}predict_{N_SIDE_BY_SIDE}_p50_ms": round(1000 * percentile(seconds, 50), 1),
            f"{name}predict_{N_SIDE_BY_SIDE}_max_ms": round(1000 * max(seconds), 1),
        }
        (report.notes if name else report.results).update(found)


def _measure_half_requests(report: Report, servers: Servers) -> None:
    """Time calls while clients hold connections on which they sent half a request."""
    url = servers.web_url
    calls: dict[str, Callable[[], object]] = {
        "health": lambda: requests.get(f"{url}/health", timeout=_TIMEOUT_S).raise_for_status(),
        "predict": lambda: predict(url, [task(1, servers.texts)], 1),
        "webhook": lambda: post_webhook(url, annotation(8_000_000), _TIMEOUT_S),
    }
    before = {name: [seconds_of(call) for _ in range(N_TIMED)] for name, call in calls.items()}
    with half_requests(url, N_HALF_REQUESTS):
        then = {name: [seconds_of(call) for _ in range(N_TIMED)] for name, call in calls.items()}
    for name in calls:
        more = percentile(then[name], 99) - percentile(before[name], 99)
        report.results[f"half_requests_{name}_delay_ms"] = round(1000 * more, 1)


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def annotation(number: int) -> dict[str, Any]:
    """Return the webhook of an annotation, made just now, of one of project 1's first tasks."""
    task_id = 1 + number % 1_000
    moment = datetime.now(UTC).isoformat()
    result = {
        "from_name": "sentiment",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": ["Positive"]},
    }
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {
            "id": number,
            "result": [result],
            "was_cancelled": False,
            "ground_truth": False,
            "completed_by": 1,
            "created_at": moment,
            "updated_at": moment,
            "task": task_id,
            "project": 1,
        },
        "task": {"id": task_id, "data": {"text": "an annotated text"}, "project": 1},
        "project": {
            "id": 1,
            "created_at": CREATED_AT,
            "title": "project 1",
            "label_config": CONFIG,
            "expert_instruction": "",
        },
    }


def post_webhook(url: str, payload: dict[str, Any], timeout_s: float) -> None:
    """Post a webhook over a connection of its own, as Label Studio does."""
    requests.post(f"{url}/webhook", json=payload, timeout=timeout_s).raise_for_status()


def post_at_rate(
    url: str, payloads: Sequence[dict[str, Any]], rate_per_s: int, *, timeout_s: float | None = None
) -> tuple[list[float], int]:
    """Post payloads at a fixed rate; return each call's seconds, and how many were refused.

    A call's time runs from the moment at which it was due, so that a queue in the client counts.
    With `timeout_s` a call ends there and counts as refused, as Label Studio's do after one second.
    """
    started = time.perf_counter()

    def call(index: int) -> tuple[float, bool]:
        due = started + index / rate_per_s
        time.sleep(max(0.0, due - time.perf_counter()))
        is_refused = True
        with suppress(requests.Timeout, requests.HTTPError):
            post_webhook(url, payloads[index], timeout_s or _TIMEOUT_S)
            is_refused = False
        return time.perf_counter() - due, is_refused

    with ThreadPoolExecutor(32) as pool:
        calls = list(pool.map(call, range(len(payloads))))
    return [seconds for seconds, _ in calls], sum(is_refused for _, is_refused in calls)
