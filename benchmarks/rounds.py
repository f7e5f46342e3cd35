"""Whole rounds over a simulated Label Studio: what FreeAL adds to its annotators.

The workflow is the product's own, so are the LLM client and the small model. Right labels of the
pool are read by the simulated people, for the tasks that the queue gives them, and to score.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from backend.active_learning.holdout import LabelSource, estimate_accuracies
from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.ports import Step
from backend.domain.projects import ProjectId
from backend.domain.student import PoolTexts
from backend.factories import connect_language_model
from backend.label_model.labels_matrix import align_rows
from backend.llm.client.cache import CachedLanguageModel
from backend.pipeline.pool import Pool, round_question
from backend.pipeline.prelabel import prelabel
from backend.pipeline.rounds.context import RoundArtifacts, student_name
from backend.pipeline.rounds.promote import FINAL
from backend.pipeline.rounds.workflow import run_round
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from backend.store import Database, LLMCache
from benchmarks.datasets import DataSet, load
from benchmarks.report import Report
from benchmarks.simulated_label_studio import SimulatedPlatform

_SEED = 0
_N_TEST = 300
_N_RESAMPLES = 50
_N_JUDGED = 100


@dataclass(frozen=True, slots=True)
class RoundsRun:
    """What was asked for.

    `order`: whose answers people give: the queue's first, or drawn ones. `answers`: a folder that
    keeps the LLM's answers between runs; tokens then count what was not there yet.
    """

    data: Path
    n_humans: int = 0
    recipe: str = "default"
    limit: int = 2000
    small_model: str = "default"
    order: str = "queue"
    seed: int = _SEED
    answers: Path | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what belongs into the report."""
        return {
            "data": self.data.name,
            "humans": self.n_humans,
            "recipe": self.recipe,
            "limit": self.limit,
            "small_model": self.small_model,
            "order": self.order,
            "seed": self.seed,
        }


class TimedSteps:
    """Runs steps one after the other and adds up their seconds by name."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run a step."""
        started = time.perf_counter()
        counts = step(project_id)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return counts


@dataclass(frozen=True, slots=True)
class House:
    """One data set as a project."""

    asked: RoundsRun
    data: DataSet
    platform: SimulatedPlatform
    services: Services
    steps: TimedSteps

    @property
    def gold(self) -> dict[int, int]:
        """Return the right class of each task of the pool."""
        return {each.task.id: int(each.gold) for each in self.data.train}  # type: ignore[arg-type]


def run(report: Report, asked: RoundsRun, *, console: Console) -> None:
    """Make a round without people, and one more with them if there are any."""
    data = load(asked.data, limit=_N_TEST, n_train=asked.limit, seed=asked.seed)
    platform = SimulatedPlatform(
        data.label_config, data.instruction, [each.task for each in data.train]
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(
            Settings.from_env(),
            home=Path(folder),
            log_level="WARNING",
            round_recipe=asked.recipe,
            student_recipe=asked.small_model,
            round_every=0,
        )
        model = None if asked.answers is None else kept_answers(settings, asked.answers)
        services = build_services(settings, Adapters(platform, model))
        house = House(asked, data, platform, services, TimedSteps(console))
        try:
            _measure(report, house, console)
        finally:
            services.close()


def kept_answers(settings: Settings, folder: Path) -> CachedLanguageModel:
    """Return the settings' LLM with a store of its answers in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{folder / 'answers.sqlite'}")
    database.migrate()
    return CachedLanguageModel(connect_language_model(settings), LLMCache(database))


def _measure(report: Report, house: House, console: Console) -> None:
    services, project_id = house.services, house.platform.project_id
    started = time.perf_counter()
    services.events.connect(project_id, house.data.label_config)
    prelabel(project_id, house.steps, services.round_steps.prelabel)
    steps = [{"step": "prelabel", **_pool_scores(house)}]
    console.print(steps[-1])
    run_once = partial(run_round, project_id, house.steps, services.round_steps, is_asked=True)
    if not house.asked.n_humans:
        run_once()
        steps += _cycles(house, 1)
    else:
        _answer(house, house.asked.n_humans)
        run_once()
        steps += _cycles(house, 1)
    seconds = time.perf_counter() - started
    steps.append({"step": "released", **_pool_scores(house)})
    for step in steps[1:]:
        console.print(step)
    on_test = _test_scores(house)
    report.results = _results(house, steps) | {"test": on_test, "seconds": round(seconds, 1)}
    report.results |= _interval_coverage(house)
    report.notes["step_seconds"] = {k: round(v, 1) for k, v in house.steps.seconds.items()}


def _answer(house: House, n_humans: int) -> None:
    """Let people answer the first tasks of the queue, or drawn ones."""
    services = house.services
    project = services.stores.projects.get(house.platform.project_id)
    if project is None:
        raise ValueError("the project is not there")
    ids = [place.task_id for place in services.stores.releases.places(project)]
    if house.asked.order == "random":
        ids = np.random.default_rng(house.asked.seed).permutation(sorted(ids)).tolist()
    schema = services.config.read_schema(house.data.label_config)
    question = schema.questions[0]
    for task_id in ids[:n_humans]:
        row = np.eye(len(question.labels))[house.gold[task_id]]
        said = WeakLabel(task_id, question.name, "person", "", tuple(row.tolist()))
        written = services.config.write_prediction(schema, [said], "", None)
        if written is not None:
            house.platform.annotate(task_id, written.result)
    services.stores.projects.forget_full_sync(project.id)


def _pool_scores(house: House) -> dict[str, Any]:
    """Return the accuracy of each annotator and of the verdicts on the pool, 4 decimals.

    People's answers stand above verdicts, as in an export, also where the verdicts are older.
    """
    services = house.services
    project = services.stores.projects.get(house.platform.project_id)
    if project is None:
        return {}
    pool = services.aggregator.pool(project)
    question = pool.guidelines.schema.questions[0]
    gold = np.array([house.gold[example.id] for example in pool.examples])
    matrix = pool.matrices[question.name]
    aggregated = {
        label.example_id: label.probabilities
        for label in services.stores.labels.weak_labels(project)
        if label.annotator_kind is AnnotatorKind.AGGREGATED and label.question == question.name
    }
    fused = np.full((len(gold), len(question.labels)), np.nan)
    for row, example in enumerate(pool.examples):
        if aggregated.get(example.id):
            fused[row] = aggregated[example.id]
        if example.id in pool.human[question.name]:
            fused[row] = np.eye(len(question.labels))[pool.human[question.name][example.id]]
    return {
        _short(name, matrix.kinds[name]): _accuracy(p, gold)
        for name, p in matrix.posteriors.items()
    } | {"fused": _accuracy(fused, gold)}


def _files(services: Services, project_id: ProjectId, number: int) -> RoundArtifacts:
    return RoundArtifacts(services.models / project_id / str(number))


def _cycles(house: House, number: int) -> list[dict[str, Any]]:
    """Return what each cycle of a round found, from the round's own files."""
    services, project_id = house.services, house.platform.project_id
    files = _files(services, project_id, number)
    ids = np.array(sorted(house.gold), dtype=np.int64)
    gold = np.array([house.gold[int(i)] for i in ids])
    found: list[dict[str, Any]] = []
    cycle = 0
    while (trained := files.read(f"train-{cycle}")) is not None:
        scores: dict[str, Any] = {"step": f"round {number} cycle {cycle}"}
        for key in ("targets", "cross_fitted", "prediction"):
            scores[f"small_{key}"] = _accuracy(align_rows(trained["ids"], trained[key], ids), gold)
        for key in ("votes", "fused"):
            stored = files.read(f"{key}-{cycle}")
            if stored is not None:
                rows = align_rows(stored["ids"], stored["probabilities"], ids)
                scores[key] = _accuracy(rows, gold)
                scores[f"n_{key}"] = int(np.isfinite(rows).all(axis=1).sum())
        found.append(scores)
        cycle += 1
    return found


def _test_scores(house: House) -> dict[str, Any]:
    """Return accuracies on texts that nobody has learned from."""
    services = house.services
    project = services.stores.projects.get(house.platform.project_id)
    history = services.stores.rounds.history(house.platform.project_id)
    if project is None or not history:
        return {}
    schema = services.config.read_schema(house.data.label_config)
    question = round_question(schema)
    if question is None:
        return {}
    guidelines = services.guidelines.read(project)
    tasks = [each.task for each in house.data.evaluated]
    examples = services.guidelines.examples(guidelines, tasks)
    gold = np.array([each.gold for each in house.data.evaluated])
    pool = Pool(project, guidelines, tasks, examples).with_weak_labels(
        services.ensemble.collect(project, guidelines, examples)
    )
    matrix = pool.matrices[question.name]
    scores = {
        _short(name, matrix.kinds[name]): _accuracy(p, gold)
        for name, p in matrix.posteriors.items()
    }
    recipe = history[-1].recipe
    files = _files(services, project.id, history[-1].number)
    texts = PoolTexts(
        tuple(example.id for example in examples), tuple(e.text_of(question) for e in examples)
    )
    model = services.make_student(recipe).load(files.model(history[-1].metrics.get("n_cycles", 0)))
    answers = model.predict(texts).probabilities
    matrix = matrix.with_annotator(student_name(recipe), answers, AnnotatorKind.STUDENT, "")
    fused = services.ensemble.aggregate(pool.with_matrix(question, matrix)).posteriors(question)
    return scores | {"small_model": _accuracy(answers, gold), "fused": _accuracy(fused, gold)}


def _results(house: House, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    services, project_id = house.services, house.platform.project_id
    first, last = steps[0], steps[-1]
    history = services.stores.rounds.history(project_id)
    metrics = dict(history[-1].metrics) if history else {}
    usage = services.stores.llm_cache.usage(project_id)
    estimate = metrics.get("accuracies", {}).get("fused")
    return {
        "zero_shot_accuracy": max(v for k, v in first.items() if k in ("llm", "similarity")),
        "prelabel_accuracy": first["fused"],
        "fused_accuracy": last["fused"],
        "small_model_accuracy": last.get("small-model"),
        "n_human_labels": house.asked.n_humans,
        "tokens_in": sum(each.n_tokens_in for each in usage),
        "tokens_out": sum(each.n_tokens_out for each in usage),
        "estimated_accuracy": estimate and round(estimate["value"], 4),
        "interval": estimate and [round(estimate["low"], 4), round(estimate["high"], 4)],
        "state": str(history[-1].state) if history else None,
        "gate": metrics.get("gate"),
        "changed": metrics.get("changed"),
        "steps": list(steps),
    }


def _interval_coverage(house: House) -> dict[str, float]:
    """Return how often the estimate's interval covers the truth when other texts are audited.

    The round's verdicts, each made without its text's own label, are held against 50 random
    samples of right labels: as many as the round's audit slice had, and 100.
    """
    history = house.services.stores.rounds.history(house.platform.project_id)
    if not history:
        return {}
    files = _files(house.services, house.platform.project_id, history[-1].number)
    stored = files.read(FINAL)
    if stored is None:
        return {}
    gold = np.array([house.gold[int(i)] for i in stored["ids"]], dtype=np.int64)
    source = LabelSource("fused", np.nan_to_num(stored["probabilities"], nan=0.0))
    n_audited = int(history[-1].metrics.get("n_audited", 0))
    sizes = {"interval_coverage": n_audited, "interval_coverage_100": _N_JUDGED}
    return {
        name: _covered(source, gold, n, np.random.default_rng([house.asked.seed, n]))
        for name, n in sizes.items()
        if 0 < n < len(gold)
    }


def _covered(
    source: LabelSource, gold: NDArray[np.int64], n_judged: int, rng: np.random.Generator
) -> float:
    truth = float((source.labels == gold).mean())
    n_covering = 0
    for _ in range(_N_RESAMPLES):
        rows = rng.choice(len(gold), size=n_judged, replace=False)
        judged = {int(row): int(gold[row]) for row in rows}
        found = estimate_accuracies([source], judged, reference=source)[source.name]
        n_covering += found.low <= truth <= found.high
    return n_covering / _N_RESAMPLES


def _short(name: str, kind: AnnotatorKind) -> str:
    if kind is AnnotatorKind.LLM_DEMONSTRATIONS:
        return "llm+shots"
    return "llm" if kind is AnnotatorKind.LLM else name.split(":", 1)[0]


def _accuracy(rows: NDArray[np.float64], gold: NDArray[np.int64]) -> float | None:
    """Return the share of right answers among those given; None without any."""
    known = np.isfinite(rows).all(axis=1)
    if not known.any():
        return None
    return round(float((rows[known].argmax(axis=1) == gold[known]).mean()), 4)
