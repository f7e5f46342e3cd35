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
from rich.console import Console

from backend.active_learning.holdout import LabelSource
from backend.domain.labels import AnnotatorKind
from backend.domain.ports import LanguageModel
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.factories import connect_language_model
from backend.label_model.label_tables import (
    LabelTable,
    Parts,
    aggregated_table,
    given_table,
    stored_table,
)
from backend.label_model.labels_matrix import AGGREGATED
from backend.pipeline.pool import Pool
from backend.pipeline.prelabel import chunk_work, prelabel
from backend.pipeline.rounds.context import FINAL, FUSED, RoundArtifacts, artifacts, student_name
from backend.pipeline.rounds.students import trained_table
from backend.pipeline.rounds.workflow import run_round
from backend.services import Adapters, Services, build_services
from backend.settings import Settings
from benchmarks.datasets import Dataset, load
from benchmarks.language_models import cached_language_model
from benchmarks.report import Report
from benchmarks.round_scores import (
    annotator_tables,
    gold_label,
    gold_parts,
    interval_coverage,
    net_gain,
    score_table,
)
from benchmarks.rounds_orders import ORDERS
from benchmarks.simulated_label_studio import BACKEND_URL, SimulatedPlatform
from benchmarks.timed_steps import KeepsStudents, TimedSteps

_SEED = 0
_N_TEST = 300
_N_LABELED = 100
_N_TIMED = 20


@dataclass(frozen=True, slots=True)
class RoundsRun:
    """Parameters of one run.

    Args:
        data: The data set's file.
        humans: Numbers of texts with human labels, ascending; a round follows each.
        recipe: The round's recipe.
        limit: Number of drawn texts in the pool.
        student: The student's recipe.
        order: Who chooses the next texts with human labels, of `ORDERS`.
        seed: Draws the texts.
        answers: Folder that caches the LLM's answers between runs; tokens count new ones only.
        llm: Folder of an LLM that answers in this process; None: the server of the settings.
    """

    data: Path
    humans: tuple[int, ...] = (0,)
    recipe: str = "default"
    limit: int = 2000
    student: str = "default"
    order: str = "queue"
    seed: int = _SEED
    answers: Path | None = None
    llm: Path | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as the report names them."""
        return {
            "data": self.data.name,
            "humans": list(self.humans) if len(self.humans) > 1 else self.humans[0],
            "recipe": self.recipe,
            "limit": self.limit,
            "small_model": self.student,
            "order": self.order,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class SimulatedProject:
    """A data set as a project of a simulated Label Studio, with the services behind it."""

    config: RoundsRun
    data: Dataset
    platform: SimulatedPlatform
    services: Services
    steps: TimedSteps

    @property
    def gold(self) -> dict[int, Parts]:
        """Return the gold answer of each task of the pool."""
        return {each.task.id: gold_parts(each.gold) for each in self.data.train}


def run(report: Report, config: RoundsRun, *, console: Console) -> None:
    """Run one round, with human labels if there are any, and measure labels and student."""
    data = load(config.data, limit=_N_TEST, n_train=config.limit, seed=config.seed)
    platform = SimulatedPlatform(
        data.label_config, data.instruction, [each.task for each in data.train]
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(
            Settings.from_env(),
            manage_views=False,
            home=Path(folder),
            backend_url=BACKEND_URL,
            log_level="WARNING",
            round_recipe=config.recipe,
            student_recipe=config.student,
            round_every=0,
        )
        services = build_services(settings, Adapters(platform, _language_model(config, settings)))
        services.ensemble.llm_name()  # raises where no server answers
        simulation = SimulatedProject(
            config,
            data,
            platform,
            services,
            TimedSteps(chunk_work(services.round_steps.prelabel)),
        )
        try:
            _measure(report, simulation, console)
        finally:
            services.close()


def _language_model(config: RoundsRun, settings: Settings) -> LanguageModel | None:
    """Return the LLM that is asked; None for the server of the settings."""
    model: LanguageModel | None = None
    if config.llm is not None:
        from benchmarks.local_llm import LocalLanguageModel

        model = LocalLanguageModel(config.llm)
    if config.answers is not None:
        model = cached_language_model(model or connect_language_model(settings), config.answers)
    return model


def _measure(report: Report, simulation: SimulatedProject, console: Console) -> None:
    services, project_id = simulation.services, simulation.platform.project_id
    started = time.perf_counter()
    services.events.connect(project_id, simulation.data.label_config)
    prelabel(project_id, simulation.steps, services.round_steps.prelabel)
    steps = [{"step": "prelabel", **_pool_scores(simulation)}]
    before = _served(simulation)
    console.print(steps[-1])
    steps_of_round = replace(services.round_steps, cleaner=KeepsStudents())
    curve: list[dict[str, Any]] = []
    for number, n_humans in enumerate(simulation.config.humans, start=1):
        _submit_human_labels(simulation, n_humans)
        run_round(project_id, simulation.steps, steps_of_round, is_asked=True)
        steps += _cycles(simulation, number)
        scores = {"pool": _pool_scores(simulation), "test": _test_scores(simulation)}
        curve.append({"n": n_humans, **scores})
    seconds = time.perf_counter() - started
    steps.append({"step": "released", **_pool_scores(simulation)})
    for step in steps[1:]:
        console.print(step)
    measured = {"test": curve[-1]["test"], "curve": curve, "seconds": round(seconds, 1)}
    report.results = _results(simulation, steps) | measured
    report.results |= _interval_coverage(simulation) | _true_gain(simulation, before)
    services.round_steps.cleaner.clean(project_id)
    report.results["round_mb"] = round(_folder_size(services.models / project_id) / 1e6, 1)
    report.notes["model"] = services.ensemble.llm_name()
    report.notes["llm_runs_in"] = "vLLM" if simulation.config.llm is None else "transformers"
    report.notes["has_cached_answers"] = simulation.config.answers is not None
    report.notes["step_seconds"] = {k: round(v, 1) for k, v in simulation.steps.seconds.items()}


def _submit_human_labels(simulation: SimulatedProject, n_humans: int) -> None:
    """Submit gold labels as human labels until there are `n_humans`, in the order asked for."""
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    if project is None:
        raise ValueError("the project is not there")
    n_new = n_humans - len(services.stores.tasks.human_labels(project.id))
    ids = ORDERS[simulation.config.order](services, project, n_new, simulation.config.seed)
    schema = services.config.read_schema(simulation.data.label_config)
    for task_id in ids:
        human = gold_label(schema.questions[0], task_id, simulation.gold[task_id])
        prediction = services.config.write_prediction(schema, [human], "", None)
        if prediction is not None:
            simulation.platform.annotate(task_id, prediction.result)
    services.stores.projects.forget_full_sync(project.id)


def _pool_scores(simulation: SimulatedProject) -> dict[str, Any]:
    """Return the figure of each annotator and of the aggregated labels on the pool.

    Human labels replace aggregated ones, as in an export, also where the latter are older.
    """
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    if project is None:
        return {}
    pool = services.aggregator.pool(project)
    question = pool.guidelines.schema.questions[0]
    people = pool.human_table(question)
    tables = annotator_tables(question, pool.matrices[question.name])
    served = _served(simulation).align(pool.example_ids)
    tables["fused"] = served.overlay(people.has_label, people)
    return {name: score_table(table, simulation.gold) for name, table in tables.items()}


def _served(simulation: SimulatedProject) -> LabelTable:
    """Return the aggregated labels as they are stored."""
    stores, project_id = simulation.services.stores, simulation.platform.project_id
    project = stores.projects.get(project_id)
    labels = stores.labels.weak_labels(project, annotator=AGGREGATED) if project else ()
    return given_table(_question(simulation.services, project_id), labels)


def _true_gain(simulation: SimulatedProject, before: LabelTable) -> dict[str, float]:
    """Return what the change gained in truth, to compare with what the round expected.

    It is of the labels that changed, or, where none did, of those that the round found.
    """
    expected = _figures(simulation).get("expected_gain")
    history = simulation.services.stores.rounds.history(simulation.platform.project_id)
    if expected is None or not expected["n_decisions"]:
        return {}
    after = _served(simulation).align(before.ids)
    if not before.differs(after).any():
        files = _files(simulation.services, simulation.platform.project_id, history[-1].number)
        found = files.read(f"{FUSED}-{files.n_cycles}") or files.read(FINAL)
        if found is not None:
            question = _question(simulation.services, simulation.platform.project_id)
            after = stored_table(question, found).align(before.ids)
    n_gained = net_gain(before, after, simulation.gold)
    return {"true_gain": round(n_gained / expected["n_decisions"], 4)}


def _files(services: Services, project_id: ProjectId, number: int) -> RoundArtifacts:
    return artifacts(services.models / project_id / str(number), _question(services, project_id))


def _question(services: Services, project_id: ProjectId) -> Question:
    project = services.stores.projects.get(project_id)
    if project is None:
        raise ValueError("the project is not there")
    return services.guidelines.read(project).schema.learned[0]


def _cycles(simulation: SimulatedProject, number: int) -> list[dict[str, Any]]:
    """Return the figures of each cycle of a round, from the round's own files."""
    services, project_id = simulation.services, simulation.platform.project_id
    question = _question(services, project_id)
    files = _files(services, project_id, number)
    found: list[dict[str, Any]] = []
    cycle = 0
    while (trained := files.read(f"train-{cycle}")) is not None:
        scores: dict[str, Any] = {"step": f"round {number} cycle {cycle}"}
        for key in ("targets", "cross_fitted", "prediction"):
            table = trained_table(question, trained, key)
            scores[f"small_{key}"] = score_table(table, simulation.gold)
        for key in ("votes", "fused"):
            stored = files.read(f"{key}-{cycle}")
            if stored is not None:
                table = stored_table(question, stored)
                scores[key] = score_table(table, simulation.gold)
                scores[f"n_{key}"] = int(table.has_label.sum())
        found.append(scores)
        cycle += 1
    return found


def _test_scores(simulation: SimulatedProject) -> dict[str, Any]:
    """Return figures on test texts, and the milliseconds in which the student answers one."""
    services = simulation.services
    project = services.stores.projects.get(simulation.platform.project_id)
    history = services.stores.rounds.history(simulation.platform.project_id)
    if project is None or not history:
        return {}
    guidelines = services.guidelines.read(project)
    question = guidelines.schema.learned[0]
    tasks = [each.task for each in simulation.data.evaluated]
    examples = services.guidelines.examples(guidelines, tasks)
    gold = {each.task.id: gold_parts(each.gold) for each in simulation.data.evaluated}
    pool = Pool(project, guidelines, tasks, examples).with_weak_labels(
        services.ensemble.collect(project, guidelines, examples)
    )
    tables = annotator_tables(question, pool.matrices[question.name])
    recipe = history[-1].recipe
    files = _files(services, project.id, history[-1].number)
    trainer = services.student_trainers.of(question)
    student = trainer.load(recipe, files.model(files.n_cycles))
    predicted = trainer.predict(student, question, examples)
    if predicted is None:
        raise ValueError("the student has learned other labels than the project's")
    name = student_name(recipe)
    pool = pool.with_annotator(question, predicted, name, AnnotatorKind.STUDENT, "")
    result = services.ensemble.aggregate(pool)
    tables["small_model"] = predicted
    tables["fused"] = aggregated_table(question, pool.example_ids, result.matrices[question.name])
    times = []
    for example in examples[:_N_TIMED]:
        started = time.perf_counter()
        trainer.predict(student, question, [example])
        times.append(1000 * (time.perf_counter() - started))
    scores: dict[str, Any] = {name: score_table(table, gold) for name, table in tables.items()}
    return scores | {"student_ms": round(float(np.median(times)), 1)}


def _results(simulation: SimulatedProject, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    services, project_id = simulation.services, simulation.platform.project_id
    first, last = steps[0], steps[-1]
    history = services.stores.rounds.history(project_id)
    metrics = _figures(simulation)
    usage = services.stores.llm_cache.usage(project_id)
    estimate = metrics.get("accuracies", {}).get("fused")
    return {
        "zero_shot_accuracy": max(first[k] for k in ("llm", "similarity") if first.get(k)),
        "prelabel_accuracy": first["fused"],
        "fused_accuracy": last["fused"],
        "measure": "accuracy" if simulation.data.kind.is_exclusive else "micro F1",
        "small_model_accuracy": last.get("small-model"),
        "n_human_labels": simulation.config.humans[-1],
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


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
    if stored is None or not simulation.data.kind.is_exclusive:
        return {}
    gold = np.array([next(iter(simulation.gold[int(i)])) for i in stored["ids"]], dtype=np.int64)
    source = LabelSource("fused", np.nan_to_num(stored["probabilities"], nan=0.0))
    n_holdout = int(_figures(simulation).get("n_audited", 0))
    sizes = {"interval_coverage": n_holdout, "interval_coverage_100": _N_LABELED}
    return {
        name: interval_coverage(source, gold, n, np.random.default_rng([simulation.config.seed, n]))
        for name, n in sizes.items()
        if 0 < n < len(gold)
    }
