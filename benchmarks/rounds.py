"""Measure what whole rounds add to the annotators, over a simulated Label Studio.

Workflow, LLM client and student are the product's own. Gold labels of the pool serve as simulated
human labels of the queue's first tasks, and for scoring.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from backend.pipeline.pool import Pool
from backend.pipeline.prelabel import prelabel
from backend.pipeline.rounds.context import FINAL, RoundArtifacts, artifacts, student_name
from backend.pipeline.rounds.workflow import run_round
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from benchmarks.datasets import Dataset, load
from benchmarks.language_models import cached_language_model
from benchmarks.report import Report
from benchmarks.simulated_label_studio import BACKEND_URL, SimulatedPlatform

_SEED = 0
_N_TEST = 300
_N_RESAMPLES = 50
_N_LABELED = 100


@dataclass(frozen=True, slots=True)
class RoundsRun:
    """Parameters of one run.

    Args:
        data: The data set's file.
        n_humans: Number of texts with human labels.
        recipe: The round's recipe.
        limit: Number of drawn texts in the pool.
        student: The student's recipe.
        order: Texts with human labels: the first of the "queue", or "random" ones.
        seed: Draws the texts.
        answers: Folder that caches the LLM's answers between runs; tokens count new ones only.
    """

    data: Path
    n_humans: int = 0
    recipe: str = "default"
    limit: int = 2000
    student: str = "default"
    order: str = "queue"
    seed: int = _SEED
    answers: Path | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them."""
        return {
            "data": self.data.name,
            "humans": self.n_humans,
            "recipe": self.recipe,
            "limit": self.limit,
            "small_model": self.student,
            "order": self.order,
            "seed": self.seed,
        }


class TimedSteps:
    """Runs steps in this process and sums their seconds by name."""

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
class SimulatedProject:
    """A data set as a project of a simulated Label Studio, with the services behind it."""

    config: RoundsRun
    data: Dataset
    platform: SimulatedPlatform
    services: Services
    steps: TimedSteps

    @property
    def gold(self) -> dict[int, int]:
        """Return the gold class of each task of the pool."""
        return {each.task.id: int(each.gold) for each in self.data.train}  # type: ignore[arg-type]


def run(report: Report, config: RoundsRun, *, console: Console) -> None:
    """Run one round, with human labels if there are any, and measure labels and student."""
    data = load(config.data, limit=_N_TEST, n_train=config.limit, seed=config.seed)
    platform = SimulatedPlatform(
        data.label_config, data.instruction, [each.task for each in data.train]
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(
            Settings.from_env(),
            home=Path(folder),
            backend_url=BACKEND_URL,
            log_level="WARNING",
            round_recipe=config.recipe,
            student_recipe=config.student,
            round_every=0,
        )
        model = None
        if config.answers is not None:
            model = cached_language_model(connect_language_model(settings), config.answers)
        services = build_services(settings, Adapters(platform, model))
        simulation = SimulatedProject(config, data, platform, services, TimedSteps(console))
        try:
            _measure(report, simulation, console)
        finally:
            services.close()


def _measure(report: Report, simulation: SimulatedProject, console: Console) -> None:
    services, project_id = simulation.services, simulation.platform.project_id
    started = time.perf_counter()
    services.events.connect(project_id, simulation.data.label_config)
    prelabel(project_id, simulation.steps, services.round_steps.prelabel)
    steps = [{"step": "prelabel", **_pool_scores(simulation)}]
    console.print(steps[-1])
    if simulation.config.n_humans:
        _submit_human_labels(simulation, simulation.config.n_humans)
    run_round(project_id, simulation.steps, services.round_steps, is_asked=True)
    steps += _cycles(simulation, 1)
    seconds = time.perf_counter() - started
    steps.append({"step": "released", **_pool_scores(simulation)})
    for step in steps[1:]:
        console.print(step)
    on_test = _test_scores(simulation)
    report.results = _results(simulation, steps) | {"test": on_test, "seconds": round(seconds, 1)}
    report.results |= _interval_coverage(simulation)
    report.notes["step_seconds"] = {k: round(v, 1) for k, v in simulation.steps.seconds.items()}


def _submit_human_labels(simulation: SimulatedProject, n_humans: int) -> None:
    """Submit gold labels as human labels of the queue's first tasks, or of drawn ones."""
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    if project is None:
        raise ValueError("the project is not there")
    ids = [place.task_id for place in services.stores.releases.places(project)]
    if simulation.config.order == "random":
        ids = np.random.default_rng(simulation.config.seed).permutation(sorted(ids)).tolist()
    schema = services.config.read_schema(simulation.data.label_config)
    question = schema.questions[0]
    for task_id in ids[:n_humans]:
        row = np.eye(len(question.labels))[simulation.gold[task_id]]
        human = WeakLabel(task_id, question.name, "person", "", tuple(row.tolist()))
        prediction = services.config.write_prediction(schema, [human], "", None)
        if prediction is not None:
            simulation.platform.annotate(task_id, prediction.result)
    services.stores.projects.forget_full_sync(project.id)


def _pool_scores(simulation: SimulatedProject) -> dict[str, Any]:
    """Return the accuracy of each annotator and of the aggregated labels on the pool.

    Human labels replace aggregated ones, as in an export, also where the latter are older.
    """
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    if project is None:
        return {}
    pool = services.aggregator.pool(project)
    question = pool.guidelines.schema.questions[0]
    gold = np.array([simulation.gold[example.id] for example in pool.examples])
    matrix = pool.matrices[question.name]
    stored = {
        label.example_id: label.probabilities
        for label in services.stores.labels.weak_labels(project)
        if label.annotator_kind is AnnotatorKind.AGGREGATED and label.question == question.name
    }
    aggregated = np.full((len(gold), len(question.labels)), np.nan)
    for row, example in enumerate(pool.examples):
        if stored.get(example.id):
            aggregated[row] = stored[example.id]
        if example.id in pool.human[question.name]:
            aggregated[row] = np.eye(len(question.labels))[pool.human[question.name][example.id]]
    return {
        _short(name, matrix.kinds[name]): _accuracy(p, gold)
        for name, p in matrix.posteriors.items()
    } | {"fused": _accuracy(aggregated, gold)}


def _files(services: Services, project_id: ProjectId, number: int) -> RoundArtifacts:
    project = services.stores.projects.get(project_id)
    if project is None:
        raise ValueError("the project is not there")
    question = services.guidelines.read(project).schema.learned[0]
    return artifacts(services.models / project_id / str(number), question)


def _cycles(simulation: SimulatedProject, number: int) -> list[dict[str, Any]]:
    """Return the accuracies of each cycle of a round, from the round's own files."""
    services, project_id = simulation.services, simulation.platform.project_id
    files = _files(services, project_id, number)
    ids = np.array(sorted(simulation.gold), dtype=np.int64)
    gold = np.array([simulation.gold[int(i)] for i in ids])
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


def _test_scores(simulation: SimulatedProject) -> dict[str, Any]:
    """Return accuracies on test texts."""
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    history = services.stores.rounds.history(simulation.platform.project_id)
    if project is None or not history:
        return {}
    guidelines = services.guidelines.read(project)
    question = guidelines.schema.learned[0]
    tasks = [each.task for each in simulation.data.evaluated]
    examples = services.guidelines.examples(guidelines, tasks)
    gold = np.array([each.gold for each in simulation.data.evaluated])
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
    model = services.make_student(recipe).load(files.model(files.n_cycles))
    predicted = model.predict(PoolTexts.of(question, examples)).probabilities
    matrix = matrix.with_annotator(student_name(recipe), predicted, AnnotatorKind.STUDENT, "")
    result = services.ensemble.aggregate(pool.with_matrix(question, matrix))
    aggregated = result.posteriors(question)
    return scores | {
        "small_model": _accuracy(predicted, gold),
        "fused": _accuracy(aggregated, gold),
    }


def _results(simulation: SimulatedProject, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    services, project_id = simulation.services, simulation.platform.project_id
    first, last = steps[0], steps[-1]
    history = services.stores.rounds.history(project_id)
    metrics = _figures(simulation)
    usage = services.stores.llm_cache.usage(project_id)
    estimate = metrics.get("accuracies", {}).get("fused")
    return {
        "zero_shot_accuracy": max(v for k, v in first.items() if k in ("llm", "similarity")),
        "prelabel_accuracy": first["fused"],
        "fused_accuracy": last["fused"],
        "small_model_accuracy": last.get("small-model"),
        "n_human_labels": simulation.config.n_humans,
        "tokens_in": sum(each.n_tokens_in for each in usage),
        "tokens_out": sum(each.n_tokens_out for each in usage),
        "estimated_accuracy": estimate and round(estimate["value"], 4),
        "interval": estimate and [round(estimate["low"], 4), round(estimate["high"], 4)],
        "state": str(history[-1].state) if history else None,
        "gate": metrics.get("gate"),
        "expected_gain": metrics.get("expected_gain"),
        "changed": metrics.get("changed"),
        "steps": list(steps),
    }


def _figures(simulation: SimulatedProject) -> dict[str, Any]:
    """Return what the last round measured about the question; empty before the first."""
    history = simulation.services.stores.rounds.history(simulation.platform.project_id)
    return dict(next(iter(history[-1].figures.values()), {})) if history else {}


def _interval_coverage(simulation: SimulatedProject) -> dict[str, float]:
    """Return the coverage of the estimated accuracy's interval over drawn random holdouts.

    The round's aggregated labels, each without its text's own human label, are compared with 50
    random samples of gold labels: as many as the round's random holdout had, and 100.
    """
    history = simulation.services.stores.rounds.history(simulation.platform.project_id)
    if not history:
        return {}
    files = _files(simulation.services, simulation.platform.project_id, history[-1].number)
    stored = files.read(FINAL)
    if stored is None:
        return {}
    gold = np.array([simulation.gold[int(i)] for i in stored["ids"]], dtype=np.int64)
    source = LabelSource("fused", np.nan_to_num(stored["probabilities"], nan=0.0))
    n_holdout = int(_figures(simulation).get("n_audited", 0))
    sizes = {"interval_coverage": n_holdout, "interval_coverage_100": _N_LABELED}
    return {
        name: _coverage(source, gold, n, np.random.default_rng([simulation.config.seed, n]))
        for name, n in sizes.items()
        if 0 < n < len(gold)
    }


def _coverage(
    source: LabelSource, gold: NDArray[np.int64], n_labeled: int, rng: np.random.Generator
) -> float:
    accuracy = float((source.labels == gold).mean())
    n_covering = 0
    for _ in range(_N_RESAMPLES):
        rows = rng.choice(len(gold), size=n_labeled, replace=False)
        labels = {int(row): int(gold[row]) for row in rows}
        estimate = estimate_accuracies([source], labels, reference=source)[source.name]
        n_covering += estimate.low <= accuracy <= estimate.high
    return n_covering / _N_RESAMPLES


def _short(name: str, kind: AnnotatorKind) -> str:
    if kind is AnnotatorKind.LLM_DEMONSTRATIONS:
        return "llm+shots"
    return "llm" if kind is AnnotatorKind.LLM else name.split(":", 1)[0]


def _accuracy(rows: NDArray[np.float64], gold: NDArray[np.int64]) -> float | None:
    """Return the accuracy over texts without abstention, 4 decimals; None without any."""
    known = np.isfinite(rows).all(axis=1)
    if not known.any():
        return None
    return round(float((rows[known].argmax(axis=1) == gold[known]).mean()), 4)
