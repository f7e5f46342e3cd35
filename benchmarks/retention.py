"""Write what a busy project writes in a year, by the product's own stores, and weigh what stays.

Nothing is computed: labels, answers and arrays are made up, in the number and size of real ones.
After each round the clocks of all rows are set back, so that the year takes minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from rich.console import Console

from backend.domain.labels import AnnotatorKind, HumanLabel, Region, WeakLabel
from backend.domain.llm_usage import Usage, UsageScope
from backend.domain.ports import Completion
from backend.domain.projects import Event, Prediction, Project, ProjectId, QueuePlace, Task
from backend.domain.rounds import Round, RoundState
from backend.files import folder_sizes
from backend.pipeline.release import LABELS_FROM, LEARNED, MODEL_FROM, RECIPE
from backend.pipeline.rounds.context import FINAL, FUSED, artifacts
from backend.self_training.embedding_cache import CachedEncoder
from backend.services import Services, build_services
from backend.settings import Settings
from benchmarks.report import Report

_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="{name}" toName="text">'
    '<Choice value="Positive"/><Choice value="Negative"/><Choice value="Neutral"/>'
    '<Choice value="Mixed"/></Choices></View>'
)
_PROJECT, _REMOVED = ProjectId("1.1795215594"), ProjectId("2.1795215595")
_N_LABELS, _N_DIMENSIONS, _N_TOP_TOKENS = 4, 384, 20
_TEXT_CHARS = 600
_DAYS = 365
_MEGABYTE = 2**20
_CLOCKS = (
    *(("events", "received_at"), ("tasks", "created_at"), ("tasks", "deleted_at")),
    *(("human_labels", "deleted_at"), ("projects", "disconnected_at")),
)


@dataclass(frozen=True, slots=True)
class RetentionRun:
    """Parameters of one run.

    Args:
        n_tasks: Tasks in the project at any time.
        n_rounds: Rounds in the year.
        n_answers: Annotations by people in the year.
        n_replaced: Tasks that are deleted and imported anew before each round.
        n_questions: Label configs in the year; each starts all labels anew.
        n_removed: Tasks of a second project, which is removed in the middle of the year.
        model_mb: Size of a student; 91 is the encoder inside.
    """

    n_tasks: int = 10_000
    n_rounds: int = 100
    n_answers: int = 50_000
    n_replaced: int = 20
    n_questions: int = 4
    n_removed: int = 2_000
    model_mb: int = 91


class _MadeUpEncoder:
    name = "made up"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.random.default_rng(0).normal(size=(len(texts), _N_DIMENSIONS)).astype(np.float32)


@dataclass
class _Year:
    """One year of a deployment."""

    config: RetentionRun
    services: Services
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _task_numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _annotation_numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def begin(self) -> None:
        """Connect both projects and label them for the first time."""
        stores = self.services.stores
        for project_id, n_tasks in (
            (_PROJECT, self.config.n_tasks),
            (_REMOVED, self.config.n_removed),
        ):
            project, _ = stores.projects.save(project_id, label_config=_CONFIG.format(name="q0"))
            stores.tasks.save(project_id, [self._task() for _ in range(n_tasks)])
            self._label(project)

    def ask_anew(self, number: int) -> None:
        """Change the label config, and label all tasks again."""
        config = _CONFIG.format(name=f"q{number}")
        project, _ = self.services.stores.projects.save(_PROJECT, label_config=config)
        self._label(project)

    def make_round(self) -> None:
        """Do what people, Label Studio and a round write until the next round."""
        stores = self.services.stores
        project = stores.projects.get(_PROJECT)
        if project is None:
            raise RuntimeError("the project is gone")
        ids = self._replace_tasks(project)
        for _ in range(self.config.n_answers // self.config.n_rounds):
            label = self._annotation(int(self.rng.choice(ids)))
            stores.tasks.apply(_PROJECT, Event("ANNOTATION_CREATED", annotations=(label,)), None)
        opened = stores.rounds.open(project, recipe="default", reason="news", n_human=0)
        self._write_files(project, opened, ids)
        self._ask(len(ids))
        kinds = (AnnotatorKind.LLM_DEMONSTRATIONS, AnnotatorKind.STUDENT)
        labels = [self._weak(project, task_id, kind) for task_id in ids for kind in kinds]
        stores.labels.replace(project, _question(project), [str(kind) for kind in kinds], labels)
        aggregated = AnnotatorKind.AGGREGATED
        stores.labels.save(project, [self._weak(project, each, aggregated) for each in ids], [])
        source = {RECIPE: "default", MODEL_FROM: [opened.number, 1], LABELS_FROM: opened.number}
        provenance = {"round": opened.number, LEARNED: {_question(project): source}}
        self._release(project, ids, provenance)
        stores.rounds.finish(opened, RoundState.RELEASED, metrics=_metrics(project))

    def remove_second_project(self) -> None:
        """Remove the second project, as somebody does in Label Studio."""
        self.services.stores.projects.disconnect(_REMOVED)

    def pass_days(self, days: float) -> None:
        """Set the clocks of what is stored back."""
        shift = "strftime('%Y-%m-%d %H:%M:%f', {column}, '-{days} days')"
        with self.services.database.write() as connection:
            for table, column in _CLOCKS:
                moment = shift.format(column=column, days=days)
                connection.execute(sa.text(f"UPDATE {table} SET {column} = {moment}"))  # noqa: S608
            connection.execute(sa.text("UPDATE llm_answers SET day = day - :n"), {"n": round(days)})

    def _task(self) -> Task:
        text = bytes(self.rng.integers(97, 123, _TEXT_CHARS, dtype=np.uint8)).decode()
        return Task(next(self._task_numbers), {"text": text})

    def _annotation(self, task_id: int) -> HumanLabel:
        number, choice = next(self._annotation_numbers), "Positive"
        return HumanLabel(number, task_id, 1, (_region(choice),), False, False, datetime.now(UTC))

    def _replace_tasks(self, project: Project) -> list[int]:
        """Delete some tasks and import others; return the ids of all."""
        tasks = self.services.stores.tasks
        gone = tasks.ids(project.id)[: self.config.n_replaced]
        news = tuple(self._task() for _ in gone)
        tasks.apply(project.id, Event("TASKS_DELETED", deleted_task_ids=tuple(gone)), None)
        tasks.apply(project.id, Event("TASKS_CREATED", tasks=news), None)
        return tasks.ids(project.id)

    def _label(self, project: Project) -> None:
        """Give every task its first labels, a release and a place in the cache of vectors."""
        stores = self.services.stores
        ids = stores.tasks.ids(project.id)
        self._ask(len(ids))
        kinds = (AnnotatorKind.LLM, AnnotatorKind.SIMILARITY, AnnotatorKind.AGGREGATED)
        labels = [self._weak(project, task_id, kind) for task_id in ids for kind in kinds]
        stores.labels.save(project, labels, [])
        encoder = CachedEncoder(_MadeUpEncoder(), self.services.settings.home / "embeddings")
        encoder.embed([f"{task_id} {project.question_version}" for task_id in ids])
        self._release(project, ids, {"kind": "ordering"})

    def _ask(self, n_texts: int) -> None:
        """Keep as many new answers of the LLM."""
        tokens = {int(token): -1.2345 for token in self.rng.integers(0, 99_999, _N_TOP_TOKENS)}
        answer = Completion("A", logprobs=tokens, finish_reason="length")
        answers = {self.rng.bytes(16): answer for _ in range(n_texts)}
        usage = Usage(UsageScope(_PROJECT, "relabel"), n_calls=1, n_prompts=n_texts)
        self.services.stores.llm_cache.keep(answers, usage)

    def _weak(self, project: Project, task_id: int, kind: AnnotatorKind) -> WeakLabel:
        posterior = tuple(self.rng.dirichlet(np.ones(_N_LABELS)).tolist())
        names = ("llm", "llm+shots", "similarity", "student")
        is_aggregated = kind is AnnotatorKind.AGGREGATED
        return WeakLabel(
            task_id,
            _question(project),
            str(kind),
            "chat-1",
            posterior,
            annotator_posteriors=dict.fromkeys(names, posterior) if is_aggregated else {},
            annotator_kind=kind,
            source="combination" if is_aggregated else "",
        )

    def _release(self, project: Project, ids: list[int], provenance: dict[str, Any]) -> None:
        """Draft, publish and serve a release, and withdraw the one before."""
        stores = self.services.stores
        predictions = [
            Prediction(task_id, "", (_region("Positive"),), at / len(ids))
            for at, task_id in enumerate(ids)
        ]
        places = [
            QueuePlace(task_id, at, "covers 41 texts like it; the LLM is unsure")
            for at, task_id in enumerate(ids)
        ]
        draft = stores.releases.draft(project, predictions, places, provenance)
        stores.publication.note_published(draft, ids)
        stores.releases.promote(draft)
        stores.projects.note_served(project.id, draft.model_version)
        for name in stores.projects.superseded_versions(project.id):
            stores.projects.note_withdrawn(project.id, name)

    def _write_files(self, project: Project, opened: Round, ids: list[int]) -> None:
        """Write the arrays and the student of a round of one cycle."""
        schema = self.services.config.read_schema(project.label_config)
        folder = self.services.models / project.id / str(opened.number)
        files = artifacts(folder, schema.questions[0])
        numbers = np.array(ids, dtype=np.int64)
        posteriors = self.rng.dirichlet(np.ones(_N_LABELS), len(ids))
        for cycle in (0, 1):
            files.write(
                f"train-{cycle}",
                ids=numbers,
                targets=posteriors,
                cross_fitted=posteriors,
                clean=posteriors[:, 0],
                prediction=posteriors,
                embeddings=np.ones((len(ids), _N_DIMENSIONS), dtype=np.float32),
            )
            weights = files.model(cycle)
            weights.mkdir(parents=True)
            with (weights / "model.safetensors").open("wb") as file:
                for _ in range(self.config.model_mb):
                    file.write(b"\x5a" * _MEGABYTE)
        files.write(f"{FUSED}-1", ids=numbers, probabilities=posteriors)
        files.write(FINAL, ids=numbers, probabilities=posteriors)


def run(report: Report, config: RetentionRun, *, console: Console) -> None:
    """Let a year pass, and report what FREEAL_HOME holds after it and held at most."""
    with tempfile.TemporaryDirectory() as folder:
        services = build_services(Settings(home=Path(folder), log_level="WARNING"))
        try:
            year = _Year(config, services)
            year.begin()
            peak, seconds = 0, []
            for number in range(config.n_rounds):
                year.make_round()
                if number % (config.n_rounds // config.n_questions) == 0 and number:
                    year.ask_anew(number)
                if number == config.n_rounds // 2:
                    year.remove_second_project()
                peak = max(peak, sum(folder_sizes(services.settings.home).values()))
                started = time.perf_counter()
                services.housekeeper.run()
                seconds.append(time.perf_counter() - started)
                year.pass_days(_DAYS / config.n_rounds)
                console.print(f"round {number + 1}: at most {peak / _MEGABYTE:.0f} MB")
            _weigh(report, services, peak, seconds)
        finally:
            services.close()


def _weigh(report: Report, services: Services, peak: int, seconds: list[float]) -> None:
    home, stores = services.settings.home, services.stores
    sizes = {name: size / _MEGABYTE for name, size in folder_sizes(home).items()}
    database = sum(size for name, size in sizes.items() if name.startswith("freeal.db"))
    report.results |= {
        "peak_mb": round(peak / _MEGABYTE),
        "end_mb": round(sum(sizes.values())),
        "database_mb": round(database),
        "models_mb": round(sizes.get("models", 0.0)),
        "embeddings_mb": round(sizes.get("embeddings", 0.0)),
        "n_projects": len(stores.projects.all()),
        "n_releases": len(stores.projects.versions(_PROJECT)),
        "n_human_labels": len(stores.tasks.human_labels(_PROJECT)),
        "housekeeping_s": round(float(np.max(seconds)), 1),
    }
    tables = sorted(stores.retention.table_sizes().items(), key=lambda item: -item[1])
    report.notes["tables_mb"] = {name: round(size / _MEGABYTE, 1) for name, size in tables[:6]}


def _question(project: Project) -> str:
    return project.label_config.split('Choices name="')[1].split('"')[0]


def _region(choice: str) -> Region:
    return {
        "id": "a1b2c3d4e5",
        "from_name": "q0",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [choice]},
        "score": 0.8765,
    }


def _metrics(project: Project) -> dict[str, Any]:
    """Return figures of the size of a round's."""
    names = ("similarity", "small-model", "llm", "fused")
    interval = {"value": 0.8765, "low": 0.8123, "high": 0.9234, "n": 1_000}
    figures = {
        "accuracies": dict.fromkeys(names, interval),
        "kappas": dict.fromkeys(names, interval),
        "gate": {"is_promoted": True, "is_better": True, "reason": "as good" * 20},
        "changed": [0.05],
        "sources": dict.fromkeys(names, 2_500),
    }
    return {"questions": {_question(project): figures}}
