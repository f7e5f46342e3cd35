"""Measure what a project picks to ask the LLM with, against each prompt template by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from backend.domain.labels import Example, PromptContext, WeakLabel
from backend.domain.questions import Question
from backend.label_model.latent_class import is_answered
from backend.label_model.single_label import calibrate_beside
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import Floats, are_alike, posterior_rows
from backend.llm.prompts.selection import TemplateReport
from benchmarks.scores import posteriors

Ask = Callable[[Sequence[Example], PromptContext], list[WeakLabel]]
"""Returns the LLM's labels of the examples."""


def prompt_context(question: Question, report: TemplateReport) -> PromptContext:
    """Return the selected template with the demonstrations that help."""
    return PromptContext({question.name: report.chosen}, {question.name: report.demonstrations})


def with_second_answers(
    question: Question,
    report: TemplateReport,
    examples: Sequence[Example],
    labels: Sequence[WeakLabel],
    ask: Ask,
) -> list[WeakLabel]:
    """Return the labels as a project has them: joined with a second answer where unsure."""
    opinion = report.second
    if opinion is None:
        return list(labels)
    context = PromptContext({question.name: opinion.template})
    return opinion.complete(
        labels,
        posterior_rows(question, labels),
        lambda rows: ask([examples[row] for row in rows], context),
    )


def score_templates(
    annotator: LLMAnnotator,
    question: Question,
    report: TemplateReport,
    examples: Sequence[Example],
    gold: Sequence[int],
    similarity: Floats,
    ask: Ask,
) -> dict[str, Any]:
    """Return the calibrated accuracy of each template, and of the selected one with and without.

    Calibrated without labels on the examples themselves, beside the similarity annotator's
    posteriors (n, K) where the templates are alike, as the project compares them.
    """
    n_labels = len(question.labels)
    by_template = {
        template: posteriors(ask(examples, PromptContext({question.name: template})), n_labels)
        for template in annotator.templates(question)
    }
    others = [similarity] if are_alike(list(by_template.values())) else []

    def accuracy(rows: Floats) -> float:
        calibrated = calibrate_beside(rows, others)
        best = np.where(is_answered(calibrated), np.nan_to_num(calibrated).argmax(axis=1), -1)
        return round(float((best == np.asarray(gold)).mean()), 4)

    results = {f"accuracy_template {name}": accuracy(rows) for name, rows in by_template.items()}
    selected = ask(examples, prompt_context(question, report))
    joined = with_second_answers(question, report, examples, selected, ask)
    best = max(results.values())
    picked = accuracy(posteriors(joined, n_labels))
    return results | {
        "accuracy_best_template": best,
        "accuracy_zero_shot": results[f"accuracy_template {report.chosen}"],
        "accuracy_with_demonstrations": accuracy(posteriors(selected, n_labels)),
        "accuracy_picked": picked,
        "picked_over_best": round(picked - best, 4),
    }


def selection_notes(report: TemplateReport, n_texts: int) -> Mapping[str, Any]:
    """Return what was selected and its cost, for a report."""
    second = report.second
    return {
        "form": report.chosen,
        "form_why": report.why,
        "second": second.template if second else "",
        "n_demonstrations": len(report.demonstrations),
        "selection": report.to_json(),
        "prompts_unused_per_text": round(report.n_unused / n_texts, 3),
    }
