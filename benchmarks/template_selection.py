"""Measure every prompt template on training texts, and the accuracy of the selected ones.

The templates' wording and the selection's rule were chosen on these figures; test texts are not
read.
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

from backend.domain.labels import Example, PromptContext, WeakLabel
from backend.domain.ports import LanguageModel
from backend.domain.questions import Question, TaskSchema
from backend.label_model.latent_class import is_answered
from backend.label_model.single_label import calibrate_beside
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import (
    Floats,
    SelectionEvidence,
    SuccessiveHalving,
    are_alike,
    mass_rows,
    mean_correlation,
    posterior_rows,
)
from backend.llm.prompts.selection import PromptBudget, TemplateReport, TemplateSelector
from backend.self_training.similarity import SimilarityAnnotator
from backend.services import Services, build_services
from backend.settings import Settings
from benchmarks.datasets import load
from benchmarks.report import Report

SEED = 0
N_HUMAN = 30
"""Human labels of the selection that has some."""
_N_TEXTS = 1000
"""Texts of the project whose budget the simulated selections have."""


@dataclass(frozen=True, slots=True)
class TemplateTrial:
    """All templates' posteriors (n, K) and label masses (n,), and the texts' gold labels (n,)."""

    question: Question
    examples: Sequence[Example]
    posteriors: Mapping[str, Floats]
    masses: Mapping[str, Floats]
    similarity: Sequence[WeakLabel]
    gold: NDArray[np.int_]

    def accuracy(self, posteriors: Floats, *, is_calibrated: bool) -> float:
        """Return the share of correct labels; an abstention counts as wrong."""
        rows = is_answered(posteriors)
        if is_calibrated:
            similarity = posterior_rows(self.question, self.similarity)
            others = [similarity] if are_alike(list(self.posteriors.values())) else []
            posteriors = calibrate_beside(posteriors, others)
        return float((posteriors[rows].argmax(axis=1) == self.gold[rows]).sum() / len(self.gold))

    def select(self, order: NDArray[np.int_], n_human: int, budget: PromptBudget) -> str:
        """Return the template selected on texts in this order, `n_human` first with labels."""
        examples = [self.examples[at] for at in order]
        row_of = {example.id: at for at, example in enumerate(self.examples)}
        human = {self.examples[at].id: frozenset({int(self.gold[at])}) for at in order[:n_human]}
        evidence = SelectionEvidence(human, self.similarity)
        halving = SuccessiveHalving(self.question, list(self.posteriors), examples, evidence)

        def ask(template: str, some: Sequence[Example]) -> tuple[Floats, Floats]:
            rows = [row_of[example.id] for example in some]
            return self.posteriors[template][rows], self.masses[template][rows]

        halving.run(ask, budget.max_unused)
        return halving.figures()[0].template


def run(report: Report, *, console: Console, data: Path, limit: int, n_draws: int) -> None:
    """Measure one data set with the server in LLM_BASE_URL."""
    services = build_services(Settings.from_env())
    try:
        model = services.language_model
        report.notes["model"] = model.describe().name
        trial = measure(model, services.similarity, data, limit=limit, console=console)
    finally:
        services.close()
    report.results |= figures(trial, n_draws, np.random.default_rng(SEED))


def measure(
    model: LanguageModel,
    similarity: SimilarityAnnotator,
    data: Path,
    *,
    limit: int,
    console: Console,
) -> TemplateTrial:
    """Label a file's training texts with every template."""
    from backend.labelstudio.label_config import LabelConfigReader

    dataset = load(data, limit=1, n_train=limit, seed=SEED)
    config = LabelConfigReader(lambda url, _: url)
    schema = config.read_schema(dataset.label_config)
    (question,) = schema.questions
    examples = [config.read_example(schema, each.task) for each in dataset.train]
    annotator = LLMAnnotator(model)
    posteriors, masses = {}, {}
    for template in annotator.templates(question):
        started_at = time.monotonic()
        prompt_context = PromptContext(templates={question.name: template})
        weak = annotator.annotate(
            schema, dataset.instruction, examples, prompt_context=prompt_context
        )
        posteriors[template] = posterior_rows(question, weak)
        masses[template] = mass_rows(question, weak)
        per_s = len(examples) / (time.monotonic() - started_at)
        console.print(f"{dataset.name} {template}: {per_s:.0f} texts/s")
    gold = np.array([each.gold for each in dataset.train], dtype=int)
    by_similarity = similarity_labels(similarity, schema, dataset.instruction, examples)
    return TemplateTrial(question, examples, posteriors, masses, by_similarity, gold)


def figures(trial: TemplateTrial, n_draws: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """Return each template's accuracy and the mean accuracy of the selected ones over draws."""
    result: dict[str, Any] = {}
    calibrated = {}
    for template, posteriors in trial.posteriors.items():
        calibrated[template] = trial.accuracy(posteriors, is_calibrated=True)
        result[f"accuracy_raw {template}"] = trial.accuracy(posteriors, is_calibrated=False)
        result[f"accuracy_calibrated {template}"] = calibrated[template]
    budget = PromptBudget(_N_TEXTS, 1.0)
    for n_human in (0, N_HUMAN):
        draws = [rng.permutation(len(trial.examples)) for _ in range(n_draws)]
        selected = [trial.select(draw, n_human, budget) for draw in draws]
        result[f"accuracy_selected human={n_human}"] = float(
            np.mean([calibrated[name] for name in selected])
        )
        result[f"selected human={n_human}"] = dict(Counter(selected).most_common())
    result["correlation"] = mean_correlation(list(trial.posteriors.values()))
    result["accuracy_best"] = max(calibrated.values())
    result["accuracy_mean"] = float(np.mean(list(calibrated.values())))
    return result


def similarity_labels(
    similarity: SimilarityAnnotator,
    schema: TaskSchema,
    instruction: str,
    examples: Sequence[Example],
) -> list[WeakLabel]:
    """Return the similarity annotator's labels, fitted to the examples as in a project."""
    (question,) = schema.questions
    fitted = similarity.recall({question.name: similarity.learn(question, examples, {})})
    return fitted.annotate(schema, instruction, examples)


def select_as_in_project(
    services: Services,
    schema: TaskSchema,
    instruction: str,
    examples: Sequence[Example],
    n_texts: int,
) -> TemplateReport:
    """Return the template that a project of `n_texts` texts would select without labels."""
    selector = TemplateSelector(services.annotator, schema, instruction)
    evidence = SelectionEvidence(
        {}, similarity_labels(services.similarity, schema, instruction, examples)
    )
    budget = PromptBudget(n_texts, services.settings.llm_prompts_per_text)
    return selector.select_template(schema.questions[0], examples, evidence, budget)
