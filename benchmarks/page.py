"""Measure what the page costs on a large project: processor time of each part, counted anew.

The store is filled by its own methods with rows in the number and size of real ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from flask.testing import FlaskClient
from rich.console import Console

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    HumanLabel,
    WeakLabel,
)
from backend.domain.projects import (
    Event,
    Prediction,
    Project,
    ProjectId,
    QueuePlace,
    QueueState,
    Task,
)
from backend.domain.rounds import RoundState
from backend.label_model.label_issues import IssueKind, LabelIssue
from backend.pipeline.issues import save_issues
from backend.pipeline.status import QUEUE
from backend.services import Services, build_services
from backend.settings import Settings
from backend.web.app import build_app
from backend.web.page.site import PARTS
from backend.web.page.states import MAX_SHARE
from benchmarks.report import Report
from model import FreeALBackend

_PROJECT = ProjectId("1.1795215594")
_QUESTION = "sentiment"
_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">'
    '<Choice value="Positive"/><Choice value="Negative"/></Choices></View>'
)
_REGION = {"from_name": _QUESTION, "to_name": "text", "type": "choices", "value": {"choices": []}}
_TEXT = "The staff was kind and quick, but the room was dark and the bill far too high. " * 3
_POSTERIORS = {"llm": (0.8, 0.2), "similarity": (0.6, 0.4), "small-model": (0.9, 0.1)}
_CHUNK = 5_000
_KINDS = (
    *(AnnotatorKind.LLM, AnnotatorKind.SIMILARITY),
    *(AnnotatorKind.STUDENT, AnnotatorKind.AGGREGATED),
)
_HTML = {"Accept": "text/html"}
_ROUTES = {
    "projects": "/",
    **{part.name: f"/projects/1/{part.name}" for part in PARTS},
    "metrics": "/metrics",
}


def run(report: Report, *, console: Console, n_tasks: int, n_runs: int) -> None:
    """Fill a store, then load each part `n_runs` times, each time when it is counted anew."""
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings(), home=Path(folder), llm_base_url="http://127.0.0.1:9/v1")
        services = build_services(settings)
        console.print(f"storing {n_tasks:,} tasks with their labels")
        fill(services, n_tasks)
        client = build_app(services, FreeALBackend).test_client()
        for name, route in _ROUTES.items():
            _load(client, route)  # compiles its template
            seconds = [_load(client, route) for _ in range(n_runs)]
            report.results[f"{name}_ms"] = round(1_000 * median(seconds))
        services.close()


def fill(services: Services, n_tasks: int) -> None:
    """Store one project with labels of all annotators, answers, a queue and rounds."""
    stores = services.stores
    project, _ = stores.projects.save(_PROJECT, label_config=_CONFIG, title="reviews")
    for first in range(1, n_tasks + 1, _CHUNK):
        _fill_chunk(services, project, range(first, min(first + _CHUNK, n_tasks + 1)))
    ids = range(1, n_tasks + 1)
    places = [QueuePlace(n, n, "the models disagree about it") for n in ids]
    predictions = [_prediction(project, n) for n in ids]
    served = stores.releases.draft(project, predictions, places, {})
    stores.releases.promote(served)
    stores.publication.note_published(served, ids)
    queue = QueueState(served.question_version, "activellm", n_tasks, 0, (), {"n_head": 50})
    stores.state.put(_PROJECT, QUEUE, asdict(queue))
    for number in range(1, 11):
        made = stores.rounds.open(served, recipe="default", reason="news", n_human=number)
        stores.rounds.finish(made, RoundState.RELEASED, metrics=_METRICS)
    issues = [
        LabelIssue(n, _QUESTION, IssueKind.WRONG, "Positive", "Negative", False, 1 / n, {})
        for n in ids[: n_tasks // 50]
    ]
    save_issues(stores, served, issues)


def _fill_chunk(services: Services, project: Project, ids: range) -> None:
    """Store tasks, of which people have answered every twentieth, with their labels."""
    stores = services.stores
    stores.tasks.save(_PROJECT, [Task(n, {"text": f"{_TEXT}{n}"}) for n in ids])
    labels = [label for n in ids for label in _weak_labels(n)]
    stores.labels.save(project, labels, [_prediction(project, n) for n in ids])
    moment = datetime.now(UTC)
    answers = [HumanLabel(n, n, n % 7, (_REGION,), False, False, moment) for n in ids[::20]]
    stores.tasks.apply(_PROJECT, Event("ANNOTATION_CREATED", annotations=tuple(answers)), None)


def _weak_labels(task_id: int) -> Iterator[WeakLabel]:
    for kind in _KINDS:
        is_unread = kind.is_llm and task_id % 100 == 0
        yield WeakLabel(
            example_id=task_id,
            question=_QUESTION,
            annotator=str(kind),
            annotator_kind=kind,
            source="embedded",
            prompt_version="0123456789abcdef",
            probabilities=() if is_unread else (0.8123456789, 0.1876543211),
            abstention=Abstention(AbstentionReason.UNREADABLE, "no label") if is_unread else None,
            confidence=None if is_unread else 0.8123456789,
            annotator_posteriors=_POSTERIORS if kind is AnnotatorKind.AGGREGATED else {},
        )


def _prediction(project: Project, task_id: int) -> Prediction:
    return Prediction(task_id, project.model_version, (_REGION,), 0.8123456789)


def _estimate(value: float) -> dict[str, object]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 400, "method": "exact"}


_METRICS = {
    "questions": {
        _QUESTION: {
            "accuracies": {name: _estimate(0.8) for name in ("llm", "small-model", "fused")},
            "changed": [0.1],
            "quality": {
                "n": 400,
                "reliability": [{**_estimate(0.8), "confidence": 0.75}] * 10,
                "confusion": [["Positive", "Negative", 9], ["Positive", "Positive", 391]],
                "by_label": [
                    {"label": name, "n_right": 180, "n_found": 190, "n_people": 200, "f1": 0.92}
                    for name in ("Positive", "Negative")
                ],
                "annotators": [
                    {"between": ["llm", "fused"], "n": 400, "same": _estimate(0.9), "kappa": None}
                ],
                "people": [
                    {
                        "person": 7,
                        "n_answers": 60,
                        "n_shared": 12,
                        "agreement": 0.7,
                        "accuracy": 0.9,
                    }
                ],
            },
        }
    }
}


def _load(client: FlaskClient, route: str) -> float:
    """Return the processor seconds of one request, then wait until nothing of it is remembered."""
    started, cpu_started = time.monotonic(), time.process_time()
    response = client.get(route, headers=_HTML)
    cpu_s = time.process_time() - cpu_started
    if response.status_code != 200:
        raise RuntimeError(f"{route} answers {response.status}")
    time.sleep((time.monotonic() - started) / MAX_SHARE)
    return cpu_s
