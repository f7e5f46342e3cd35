"""Measure the seconds until a new project's queue has an order, with an LLM and without.

Services, worker steps and encoder are the product's own; Label Studio is simulated in memory.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from backend.domain.ports import Step
from backend.domain.projects import ProjectId, Task
from backend.pipeline.prelabel import chunk_work, prelabel
from backend.pipeline.status import read_queue
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from benchmarks.datasets import read_rows
from benchmarks.faults.scripted_llm import ScriptedSentimentLLM
from benchmarks.large_pools import measure_order
from benchmarks.report import Report
from benchmarks.serving import distinct_texts
from benchmarks.simulated_label_studio import BACKEND_URL, SimulatedPlatform
from benchmarks.startup import CONFIG, UNUSED_URL
from benchmarks.timed_steps import TimedSteps


@dataclass(frozen=True, slots=True)
class FirstOrderRun:
    """Parameters.

    Args:
        n_tasks: texts in the project.
        llms: `none` and `scripted`, one project each.
        seconds: length of a project's run at most.
        data: JSONL of texts; None: the demo's.
        pools: sizes of made pools that are ordered alone.
    """

    n_tasks: int = 10_000
    llms: tuple[str, ...] = ("none", "scripted")
    seconds: int = 180
    data: Path | None = None
    pools: tuple[int, ...] = (100_000, 1_000_000)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them."""
        return asdict(self) | {"data": self.data.name if self.data else "demo"}


class TimeIsUpError(Exception):
    """Ends the run between two steps."""


class WatchedSteps(TimedSteps):
    """Runs steps and notes when the queue has an order, is served, and changes."""

    def __init__(self, services: Services, platform: SimulatedPlatform, *, limit_s: float) -> None:
        super().__init__(chunk_work(services.round_steps.prelabel))
        self.services, self.platform = services, platform
        self.orders: list[dict[str, float]] = []
        self.served_s: float | None = None
        self._started, self._limit_s = time.perf_counter(), limit_s
        self._order: tuple[int, ...] = ()

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run a step, then look at the queue; raises TimeIsUpError."""
        counts = super().run(name, step, project_id)
        seconds = time.perf_counter() - self._started
        if counts.get("is_ranked") or counts.get("is_ordered"):
            self._look(project_id, seconds)
        if self.served_s is None and name == "serve" and counts["is_served"]:
            self.served_s = seconds
        if seconds > self._limit_s:
            raise TimeIsUpError
        return counts

    def _look(self, project_id: ProjectId, seconds: float) -> None:
        project = self.services.stores.projects.get(project_id)
        if project is None:
            return
        order = tuple(p.task_id for p in self.services.stores.releases.places(project))
        queue = read_queue(self.services.stores, project)
        head = set(self._order[:100])
        self.orders.append(
            {
                "at_s": round(seconds, 1),
                "n_places": len(order),
                "n_evidence": queue.n_evidence if queue else 0,
                "share_of_the_first_100_kept": len(head & set(order[:100])) / max(1, len(head)),
            }
        )
        self._order = order


def run(report: Report, config: FirstOrderRun, *, console: Console) -> None:
    """Connect a project and watch the worker's first steps; then order the made pools."""
    rows = read_rows(config.data, split=None if config.data is None else "train")
    texts = distinct_texts([str(row["text"]) for row in rows], config.n_tasks)
    for llm in config.llms:
        platform = SimulatedPlatform(
            CONFIG, "", [Task(n, {"text": text}) for n, text in enumerate(texts, start=1)]
        )
        with tempfile.TemporaryDirectory() as folder, _language_model(llm, texts) as url:
            settings = replace(
                Settings.from_env(),
                manage_views=False,
                home=Path(folder),
                backend_url=BACKEND_URL,
                llm_base_url=url,
                log_level="ERROR",
            )
            services = build_services(settings, Adapters(platform))
            try:
                watched = WatchedSteps(services, platform, limit_s=config.seconds)
                report.results[llm], report.notes[llm] = _measure(watched)
            finally:
                services.close()
        console.print(report.results[llm], report.notes[llm])
    report.results["pools"] = {str(n_texts): measure_order(n_texts) for n_texts in config.pools}


def _measure(steps: WatchedSteps) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return results and notes of one project's first minutes."""
    services, platform = steps.services, steps.platform
    services.events.connect(platform.project_id, CONFIG)
    is_finished = True
    try:
        prelabel(platform.project_id, steps, services.round_steps.prelabel)
    except TimeIsUpError:
        is_finished = False
    copies = Counter((row.task_id, row.model_version) for row in platform.predictions())
    results = {
        "first_order_s": steps.orders[0]["at_s"] if steps.orders else None,
        "n_places": steps.orders[0]["n_places"] if steps.orders else 0,
        "served_s": steps.served_s and round(steps.served_s, 1),
        "n_orders": len(steps.orders),
        "n_imported": len(copies),
        "n_imported_twice": sum(n > 1 for n in copies.values()),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    notes = {
        "orders": steps.orders,
        "is_finished": is_finished,
        "step_seconds": {name: round(seconds, 1) for name, seconds in steps.seconds.items()},
    }
    return results, notes


@contextmanager
def _language_model(name: str, texts: list[str]) -> Iterator[str]:
    """Yield the URL of a scripted LLM, or one where nothing answers."""
    if name == "none":
        yield f"{UNUSED_URL}/v1"
        return
    if name != "scripted":
        raise ValueError(f"no LLM {name!r}; there are none and scripted")
    server = ScriptedSentimentLLM([{"text": text, "label": "Positive"} for text in texts])
    try:
        yield server.url
    finally:
        server.close()
