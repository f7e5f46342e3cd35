"""Select each question's prompt template, and the second one that is worth its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from backend.domain.labels import Example, PromptContext
from backend.domain.questions import Question, TaskSchema
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import (
    Floats,
    SelectionEvidence,
    SuccessiveHalving,
    TemplateFigures,
    posterior_rows,
)
from backend.llm.prompts.second_opinion import SecondOpinion

MAX_UNUSED_PROMPTS = 180


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """A question's selected template with the reason, and the figures of all; best first.

    `second` is asked as well where the selected template is unsure.
    """

    question: str
    chosen: str
    why: str
    figures: tuple[TemplateFigures, ...] = ()
    second: SecondOpinion | None = None

    @property
    def n_unused(self) -> int:
        """Return how many prompts went to templates that are not used."""
        return sum(row.n_texts for row in self.figures if row.template != self.chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        second = self.second.to_json() if self.second else None
        return {**asdict(replace(self, second=None)), "second": second}


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """How many prompts a project may spend: `per_text` on average, over `n_texts` texts."""

    n_texts: int
    per_text: float

    @property
    def max_unused(self) -> int:
        """Return how many prompts may go to templates that are then not used.

        Under half of the texts, so that choosing never costs more than labeling.
        """
        return min(MAX_UNUSED_PROMPTS, self.n_texts // 2)

    def second_share(self, n_unused: int) -> float:
        """Return the share of the texts that may be asked about twice, after the selection."""
        return min(1.0, max(0.0, self.per_text - 1 - n_unused / max(1, self.n_texts)))


class TemplateSelector:
    """Asks one question with every template that the server can take."""

    def __init__(self, annotator: LLMAnnotator, schema: TaskSchema, instruction: str) -> None:
        self._annotator = annotator
        self._schema = schema
        self._instruction = instruction

    def select_template(
        self,
        question: Question,
        examples: Sequence[Example],
        evidence: SelectionEvidence,
        budget: PromptBudget,
    ) -> TemplateReport:
        """Return the template that agrees best with the other evidence on some of the examples.

        Raises:
            LanguageModelError: the model cannot be reached.
        """
        names = self._annotator.templates(question)
        if len(names) < 2:
            return TemplateReport(question.name, names[0], "the server takes no other template")
        schema = TaskSchema((question,), self._schema.headers)

        def ask(template: str, some: Sequence[Example]) -> Floats:
            context = PromptContext({question.name: template})
            weak_labels = self._annotator.annotate(
                schema, self._instruction, some, prompt_context=context
            )
            return posterior_rows(question, weak_labels)

        halving = SuccessiveHalving(question, names, examples, evidence)
        halving.run(ask, budget.max_unused)
        figures = halving.figures()
        if not any(row.n_read for row in figures):
            return TemplateReport(question.name, names[0], "no template got an answer")
        report = TemplateReport(question.name, figures[0].template, _why(figures), figures)
        share = budget.second_share(report.n_unused)
        return replace(report, second=halving.second_opinion(share))


def _why(figures: Sequence[TemplateFigures]) -> str:
    best = figures[0]
    because = f"{best.agreement:.0%} of {best.n_texts} texts labeled as the other evidence says"
    if best.accuracy is not None:
        because += f", {best.accuracy:.0%} of {best.n_human} labels by people"
    if len(figures) > 1:
        because += f"; next is {figures[1].template} with {figures[1].agreement:.0%}"
    return because
