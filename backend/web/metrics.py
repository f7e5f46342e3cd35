"""Serve Prometheus metrics: the database's counts, and the time of this process's requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Blueprint, Response, g, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from backend.services import Services

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GAUGES = {
    "n_tasks": "tasks in the project",
    "n_labelled": "tasks with a prediction of the present model version",
    "n_published": "predictions that Label Studio has",
    "n_to_label": "tasks that the LLM is still to be asked about",
    "n_without_label": "tasks without an answer by people and without a prediction",
    "n_abstained": "tasks that the annotators could not label",
    "n_human_labels": "annotations by people",
    "n_tokens_in": "LLM prompt tokens",
    "n_tokens_out": "LLM completion tokens",
    "n_llm_calls": "calls to the LLM",
    "n_prompts": "prompts of all calls",
    "n_cache_hits": "prompts that were answered before and cost nothing",
    "llm_seconds": "time spent waiting for the LLM",
    "llm_cost": "tokens times LLM_PRICE_IN and LLM_PRICE_OUT",
}


class _StateCollector(Collector):
    """Reads workers, job requests and every project's counts from the database at each scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        overview = self._services.reporter.overview(is_brief=True, has_disconnected=False)
        n_requests = len(self._services.stores.jobs.job_requests())
        yield GaugeMetricFamily("freeal_workers", "workers alive", len(overview["workers"]))
        yield GaugeMetricFamily("freeal_job_requests", "jobs asked for and not started", n_requests)
        for key, help_text in _GAUGES.items():
            gauge = _gauge(key.removeprefix("n_"), help_text, "project")
            for project in overview["projects"]:
                gauge.add_metric([project["project"]], project[key])
            yield gauge
        rounds = _gauge("rounds", "rounds by state", "project", "state")
        seconds = _gauge("round_seconds", "how long the last finished round took", "project")
        sources = _gauge(
            "labels_by_source",
            "labels of the last round by what decided them",
            *("project", "question", "source"),
        )
        problems = _gauge("problems", "what keeps work from going on", "project", "source")
        for project in overview["projects"]:
            name = project["project"]
            for state, n_rounds in Counter(row["state"] for row in project["rounds"]).items():
                rounds.add_metric([name, state], n_rounds)
            for last in [row for row in project["rounds"] if row["seconds"] is not None][-1:]:
                seconds.add_metric([name], last["seconds"])
                for question, figures in last["metrics"].get("questions", {}).items():
                    for source, n_labels in figures.get("sources", {}).items():
                        sources.add_metric([name, question, source], n_labels)
            for problem in project["problems"]:
                problems.add_metric([name, problem["source"]], problem["n_times"])
        for name in overview["unreadable"]:
            problems.add_metric([name, "status"], 1)
        yield from (rounds, seconds, sources, problems)


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"freeal_{name}", help_text, labels=labels)


def metrics_blueprint(services: Services) -> Blueprint:
    """Build /metrics and time every request of this process."""
    blueprint = Blueprint("metrics", __name__)
    registry = CollectorRegistry()
    registry.register(_StateCollector(services))
    seconds = Histogram(
        "freeal_http_request_seconds",
        "time to answer, in this web process",
        ["route", "status"],
        buckets=_BUCKETS,
        registry=registry,
    )

    @blueprint.before_app_request
    def start() -> None:
        g.started_at = time.perf_counter()

    @blueprint.after_app_request
    def finish(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        elapsed = time.perf_counter() - g.get("started_at", time.perf_counter())
        seconds.labels(route, str(response.status_code)).observe(elapsed)
        return response

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type="text/plain; version=0.0.4")

    return blueprint
