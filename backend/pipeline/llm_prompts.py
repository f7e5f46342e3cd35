"""Ask the LLM about a project's questions as was selected for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from backend.domain.labels import AbstentionReason, Example, PromptContext, WeakLabel
from backend.domain.questions import Question, TaskSchema
from backend.errors import LanguageModelError
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import SelectionEvidence, posterior_rows
from backend.llm.prompts.few_shot import demonstration_from_json
from backend.llm.prompts.second_opinion import SecondOpinion
from backend.llm.prompts.selection import PromptBudget, TemplateReport, TemplateSelector
from backend.pipeline.pool import Guidelines, Pool

_LOG = logging.getLogger(__name__)
_N_TRIED = 8


@dataclass(frozen=True, slots=True)
class LLMPrompter:
    """Selects prompts, and labels texts with those that were selected.

    Args:
        reports: `TemplateReport.to_json` by question; empty before a selection.
    """

    llm: LLMAnnotator
    reports: Mapping[str, Any] = field(default_factory=dict)

    def select(
        self,
        pool: Pool,
        examples: Sequence[Example],
        others: Sequence[WeakLabel],
        budget: PromptBudget,
    ) -> dict[str, TemplateReport]:
        """Return what was selected by question; raises LanguageModelError.

        Args:
            examples: the pool's texts that can be asked about.
            others: other annotators' labels of them.
        """
        guidelines = pool.guidelines
        selector = TemplateSelector(self.llm, guidelines.schema, guidelines.instruction)
        reports = {}
        for question in pool.questions:
            human = _human_sets(pool, question)
            asked = sorted(examples, key=lambda example: example.id not in human)
            own = [label for label in others if label.question == question.name]
            evidence = SelectionEvidence(human, own)
            reports[question.name] = selector.select_template(question, asked, evidence, budget)
        return reports

    def label(
        self,
        guidelines: Guidelines,
        examples: Sequence[Example],
        *,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Return the LLM's labels, example by example; raises LanguageModelError.

        What cannot be read is asked for by another template. Under a deadline somebody waits, and
        nothing is asked twice.
        """
        labels = self.llm.annotate(
            guidelines.schema,
            guidelines.instruction,
            examples,
            prompt_context=self.context(),
            deadline_s=deadline_s,
        )
        if deadline_s is not None:
            return labels
        n_questions = len(guidelines.schema.questions)
        for at, question in enumerate(guidelines.schema.questions):
            own = labels[at::n_questions]
            labels[at::n_questions] = self._with_unread_again(question, guidelines, examples, own)
            stored = self.reports.get(question.name, {}).get("second")
            if not stored:
                continue
            opinion, first = SecondOpinion.from_json(stored), labels[at::n_questions]
            ask = partial(self._ask_again, opinion.template, question, guidelines, examples)
            try:
                rows = posterior_rows(question, first)
                labels[at::n_questions] = opinion.complete(first, rows, ask)
            except LanguageModelError as exc:
                _LOG.warning("the LLM gave no second answers: %s", exc)
        return labels

    def _with_unread_again(
        self,
        question: Question,
        guidelines: Guidelines,
        examples: Sequence[Example],
        labels: Sequence[WeakLabel],
    ) -> list[WeakLabel]:
        """Return a question's labels, those that could not be read made by another template.

        Some are tried first: where none of their new answers can be read either, the others stay
        as they are, since a server out of order would be asked everything twice.
        """
        found = list(labels)
        unread = [row for row, label in enumerate(labels) if _is_unreadable(label)]
        if not unread:
            return found
        names = self.llm.templates(question)
        used = self.reports.get(question.name, {}).get("chosen", names[0] if names else "")
        template = next((name for name in names if name != used), None)
        for rows in (unread[:_N_TRIED], unread[_N_TRIED:]):
            if template is None or not rows:
                break
            again = self._ask_again(template, question, guidelines, examples, rows)
            for row, label in zip(rows, again, strict=True):
                found[row] = _with_cost_of(found[row], label)
            if all(map(_is_unreadable, again)):
                break
        return found

    def _ask_again(
        self,
        template: str,
        question: Question,
        guidelines: Guidelines,
        examples: Sequence[Example],
        rows: Sequence[int],
    ) -> list[WeakLabel]:
        """Return another template's labels of some examples on one question."""
        return self.llm.annotate(
            TaskSchema((question,), guidelines.schema.headers),
            guidelines.instruction,
            [examples[row] for row in rows],
            prompt_context=PromptContext({question.name: template}),
        )

    def context(self) -> PromptContext:
        """Return the selected templates and the demonstrations that help."""
        return PromptContext(
            {name: str(report["chosen"]) for name, report in self.reports.items()},
            {
                name: tuple(map(demonstration_from_json, report.get("demonstrations", ())))
                for name, report in self.reports.items()
            },
        )


def _human_sets(pool: Pool, question: Question) -> Mapping[int, frozenset[int]]:
    """Return the positions of the labels that people gave, by example id."""
    if question.kind.is_multilabel:
        return pool.human_sets.get(question.name, {})
    return {i: frozenset({at}) for i, at in pool.human.get(question.name, {}).items()}


def _is_unreadable(label: WeakLabel) -> bool:
    """Return whether the model answered, in a form that cannot be read."""
    return label.abstention is not None and label.abstention.reason is AbstentionReason.UNREADABLE


def _with_cost_of(first: WeakLabel, second: WeakLabel) -> WeakLabel:
    """Return the second label with the tokens of both."""
    n_in, n_out = first.n_tokens_in + second.n_tokens_in, first.n_tokens_out + second.n_tokens_out
    return replace(second, n_tokens_in=n_in, n_tokens_out=n_out)
