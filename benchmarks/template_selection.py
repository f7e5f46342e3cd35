"""Measure every prompt template on training texts, and the accuracy of the selected ones.

The selection's score was designed on these figures; test texts are not read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from backend.domain.labels import Example, PromptContext
from backend.domain.ports import LanguageModel
from backend.domain.questions import Question, TaskSchema
from backend.factories import connect_language_model
from backend.label_model.calibration import BatchCalibrator
from backend.labelstudio.label_config import LabelConfigReader
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.selection import N_SELECTION_TEXTS, TemplatePosteriors, compare_templates
from backend.settings import Settings
from benchmarks.datasets import load
from benchmarks.report import Report

SEED = 0
N_HUMAN = 30
"""Human labels of the selection that has some."""


@dataclass(frozen=True, slots=True)
class TemplateTrial:
    """All templates' posteriors of the same texts, and their gold labels, shape (n,)."""

    question: Question
    examples: Sequence[Example]
    outcomes: Sequence[TemplatePosteriors]
    gold: NDArray[np.int_]

    def accuracy(self, outcome: TemplatePosteriors, *, is_calibrated: bool) -> float:
        """Return the share of correct labels; an abstention counts as wrong."""
        is_answered = ~np.isnan(outcome.posteriors).any(axis=1)
        posteriors = outcome.posteriors[is_answered]
        if is_calibrated and len(posteriors):
            posteriors = BatchCalibrator.fit(posteriors).apply(posteriors)
        return float((posteriors.argmax(axis=1) == self.gold[is_answered]).sum() / len(self.gold))

    def select(self, chosen: NDArray[np.int_], n_human: int) -> str:
        """Return the template selected on chosen texts, the first `n_human` with human labels."""
        parts = [
            TemplatePosteriors(one.template, one.posteriors[chosen], one.label_mass[chosen])
            for one in self.outcomes
        ]
        examples = [self.examples[at] for at in chosen]
        values = [self.question.labels[self.gold[at]].value for at in chosen[:n_human]]
        human = {example.id: value for example, value in zip(examples, values, strict=False)}
        return compare_templates(self.question, examples, parts, human).chosen


def run(report: Report, *, console: Console, data: Path, limit: int, n_draws: int) -> None:
    """Measure one data set with the server in LLM_BASE_URL."""
    model = connect_language_model(Settings.from_env())
    try:
        report.notes["model"] = model.describe().name
        trial = measure(model, data, limit=limit, console=console)
    finally:
        model.close()
    report.results |= figures(trial, n_draws, np.random.default_rng(SEED))


def measure(model: LanguageModel, data: Path, *, limit: int, console: Console) -> TemplateTrial:
    """Label a file's training texts with every template."""
    dataset = load(data, limit=1, n_train=limit, seed=SEED)
    config = LabelConfigReader(lambda url, _: url)
    schema = config.read_schema(dataset.label_config)
    (question,) = schema.questions
    examples = [config.read_example(schema, each.task) for each in dataset.train]
    annotator = LLMAnnotator(model)
    outcomes = []
    for template in annotator.templates():
        started_at = time.monotonic()
        outcomes.append(_label_with(annotator, template, schema, (dataset.instruction, examples)))
        per_s = len(examples) / (time.monotonic() - started_at)
        console.print(f"{dataset.name} {template}: {per_s:.0f} texts/s")
    gold = np.array([each.gold for each in dataset.train], dtype=int)
    return TemplateTrial(question, examples, outcomes, gold)


def figures(trial: TemplateTrial, n_draws: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Return each template's accuracy and the mean accuracy of the selected ones over draws."""
    result: dict[str, Any] = {}
    calibrated = {}
    for outcome in trial.outcomes:
        template = outcome.template
        calibrated[template] = trial.accuracy(outcome, is_calibrated=True)
        result[f"accuracy_raw {template}"] = trial.accuracy(outcome, is_calibrated=False)
        result[f"accuracy_calibrated {template}"] = calibrated[template]
        result[f"label_mass {template}"] = outcome.mean_mass()
    n = len(trial.examples)
    for n_human in (0, N_HUMAN):
        draws = [rng.permutation(n)[:N_SELECTION_TEXTS] for _ in range(n_draws)]
        selected = [trial.select(draw, n_human) for draw in draws]
        result[f"accuracy_probe human={n_human}"] = float(
            np.mean([calibrated[name] for name in selected])
        )
        result[f"picks human={n_human}"] = dict(Counter(selected).most_common())
    result["accuracy_best_form"] = max(calibrated.values())
    result["accuracy_mean_form"] = float(np.mean(list(calibrated.values())))
    return result


def _label_with(
    annotator: LLMAnnotator,
    template: str,
    schema: TaskSchema,
    texts: tuple[str, Sequence[Example]],
) -> TemplatePosteriors:
    instruction, examples = texts
    (question,) = schema.questions
    prompt_context = PromptContext(templates={question.name: template})
    weak = annotator.annotate(schema, instruction, examples, prompt_context=prompt_context)
    return TemplatePosteriors.of(template, weak, len(question.labels))
