"""Every prompt template on a data set's training texts, and what the template selection picks.

The selection's score is designed on these figures; test texts are not read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from benchmarks.injection import flip_rate, read_hostile_texts
from benchmarks.report import Report

SEED = 0
N_HUMAN = 30
"""Human labels of the selection that has some."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All templates' posteriors of the same texts, and the right labels, shape (n,)."""

    question: Question
    examples: Sequence[Example]
    outcomes: Sequence[TemplatePosteriors]
    gold: NDArray[np.int_]

    def accuracy(self, outcome: TemplatePosteriors, *, is_calibrated: bool) -> float:
        """Return the share of right labels; an abstention is wrong."""
        is_read = ~np.isnan(outcome.posteriors).any(axis=1)
        posteriors = outcome.posteriors[is_read]
        if is_calibrated and len(posteriors):
            posteriors = BatchCalibrator.fit(posteriors).apply(posteriors)
        return float((posteriors.argmax(axis=1) == self.gold[is_read]).sum() / len(self.gold))

    def pick(self, chosen: NDArray[np.int_], n_human: int) -> str:
        """Return the template that is selected on the chosen texts."""
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
        measured = measure(model, data, limit=limit, console=console)
    finally:
        model.close()
    report.results |= figures(measured, n_draws, np.random.default_rng(SEED))


def run_injection(report: Report) -> None:
    """Measure the flip rate of every template with the server in LLM_BASE_URL."""
    model = connect_language_model(Settings.from_env())
    texts = read_hostile_texts()
    try:
        report.notes["model"] = model.describe().name
        annotator = LLMAnnotator(model)
        for form in annotator.templates():
            rate = flip_rate(
                annotator, texts, prompt_context=PromptContext(templates={"sentiment": form})
            )
            report.results |= {f"{key} {form}": value for key, value in asdict(rate).items()}
    finally:
        model.close()


def measure(model: LanguageModel, data: Path, *, limit: int, console: Console) -> Measured:
    """Ask about the training texts of a file with every template."""
    dataset = load(data, limit=1, n_train=limit, seed=SEED)
    config = LabelConfigReader(lambda url: url)
    schema = config.read_schema(dataset.label_config)
    (question,) = schema.questions
    examples = [config.read_example(schema, each.task) for each in dataset.train]
    annotator = LLMAnnotator(model)
    outcomes = []
    for form in annotator.templates():
        started_at = time.monotonic()
        outcomes.append(_outcome(annotator, form, schema, (dataset.instruction, examples)))
        per_s = len(examples) / (time.monotonic() - started_at)
        console.print(f"{dataset.name} {form}: {per_s:.0f} texts/s")
    gold = np.array([each.gold for each in dataset.train], dtype=int)
    return Measured(question, examples, outcomes, gold)


def figures(measured: Measured, n_draws: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Return each template's accuracy and the mean accuracy of the selected ones."""
    found: dict[str, Any] = {}
    calibrated = {}
    for outcome in measured.outcomes:
        form = outcome.template
        calibrated[form] = measured.accuracy(outcome, is_calibrated=True)
        found[f"accuracy_raw {form}"] = measured.accuracy(outcome, is_calibrated=False)
        found[f"accuracy_calibrated {form}"] = calibrated[form]
        found[f"label_mass {form}"] = outcome.mean_mass()
    n = len(measured.examples)
    for n_human in (0, N_HUMAN):
        draws = [rng.permutation(n)[:N_SELECTION_TEXTS] for _ in range(n_draws)]
        picks = [measured.pick(draw, n_human) for draw in draws]
        found[f"accuracy_probe human={n_human}"] = float(np.mean([calibrated[p] for p in picks]))
        found[f"picks human={n_human}"] = dict(Counter(picks).most_common())
    found["accuracy_best_form"] = max(calibrated.values())
    found["accuracy_mean_form"] = float(np.mean(list(calibrated.values())))
    return found


def _outcome(
    annotator: LLMAnnotator,
    form: str,
    schema: TaskSchema,
    asked: tuple[str, Sequence[Example]],
) -> TemplatePosteriors:
    instruction, examples = asked
    (question,) = schema.questions
    prompt_context = PromptContext(templates={question.name: form})
    weak = annotator.annotate(schema, instruction, examples, prompt_context=prompt_context)
    return TemplatePosteriors.of(form, weak, len(question.labels))
