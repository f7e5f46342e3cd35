"""Select each question's prompt template, and the second one that is worth its prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import AbstentionReason, Demonstration, Example, PromptContext
from backend.domain.questions import Question, TaskSchema
from backend.errors import LanguageModelUnavailable
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import (
    Floats,
    SelectionEvidence,
    SuccessiveHalving,
    TemplateFigures,
    calibrate,
    consensus,
    credit,
    figures_of,
    mass_rows,
    posterior_rows,
)
from backend.llm.prompts.few_shot import (
    MAX_LABELS,
    N_SHOTS,
    demonstration_to_json,
    make_demonstrations,
)
from backend.llm.prompts.second_opinion import SecondOpinion

MAX_UNUSED_PROMPTS = 160
MAX_TRIAL_PROMPTS = 180
_MIN_TRIAL_PROMPTS = 32
_MIN_TRIAL_TEXTS = 48
"""On fewer texts a small project compares fewer kinds of demonstrations."""
_NO_SHOTS = "no shots"
_MAX_LOSS = 0.05
"""How far demonstrations may score lower and are kept where the templates are alike: they help a
capable model by two or three points, which is less than the trial can see. A weak one they harm by
ten or more: there they must not score lower at all. The five points were chosen on 300 training
texts each of sst2, trec, ag_news, sms_spam, tweet_emotion and tweet_offensive."""
_ROUNDING = 1e-9
_MAX_LOST_SHARE = 1 / 3
"""Of the selected template's prompts; with more, chance has chosen, and the choice would last."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """A question's selected template with the reason, and the figures of all; best first.

    `second` is asked as well where the selected template is unsure. `trial` has the figures of the
    selected template with and without demonstrations, `demonstrations` those that help.
    `has_alike_templates`: the model reads a text alike whatever the prompt, as a capable one does.
    """

    question: str
    chosen: str
    why: str
    figures: tuple[TemplateFigures, ...] = ()
    second: SecondOpinion | None = None
    trial: tuple[TemplateFigures, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    has_alike_templates: bool = False

    @property
    def n_unused(self) -> int:
        """Return how many prompts went to templates and demonstrations that are not used."""
        n_unused = sum(row.n_texts for row in self.figures if row.template != self.chosen)
        n_tried = sum(row.n_texts for row in self.trial if row.template != _NO_SHOTS)
        if not self.demonstrations:
            return n_unused + n_tried
        return n_unused + n_tried - self.trial[0].n_texts + self.figures[0].n_texts

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        plain = asdict(replace(self, second=None, demonstrations=()))
        second = self.second.to_json() if self.second else None
        shown = [demonstration_to_json(one) for one in self.demonstrations]
        return {**plain, "second": second, "demonstrations": shown}


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """How many prompts a project may spend: `per_text` on average, over `n_texts` texts."""

    n_texts: int
    per_text: float

    @property
    def max_unused(self) -> int:
        """Return how many prompts may go to templates that are then not used.

        With the trial of demonstrations under half of the texts, so that choosing costs less than
        labeling.
        """
        return min(MAX_UNUSED_PROMPTS, 3 * self.n_texts // 10)

    @property
    def max_tried(self) -> int:
        """Return how many prompts may go to demonstrations that are then not used."""
        return min(MAX_TRIAL_PROMPTS, self.n_texts // 5)

    def second_share(self, n_unused: int) -> float:
        """Return the share of the texts that may be asked about twice, after the selection."""
        return min(1.0, max(0.0, self.per_text - 1 - n_unused / max(1, self.n_texts)))


class TemplateSelector:
    """Asks one question with every template that the server can take, and with demonstrations."""

    def __init__(self, annotator: LLMAnnotator, schema: TaskSchema, instruction: str) -> None:
        self._annotator = annotator
        self._schema = schema
        self._instruction = instruction
        self._n_asked: Counter[str] = Counter()
        self._n_lost: Counter[str] = Counter()

    def select_template(
        self,
        question: Question,
        examples: Sequence[Example],
        evidence: SelectionEvidence,
        budget: PromptBudget,
    ) -> TemplateReport:
        """Return the template that agrees best with the other evidence on some of the examples.

        Raises:
            LanguageModelError: the model cannot be reached, or was gone for a part of the time.
        """
        names = self._annotator.templates(question)
        if len(names) < 2:
            return TemplateReport(question.name, names[0], "the server takes no other template")
        self._n_asked.clear()
        self._n_lost.clear()
        halving = SuccessiveHalving(question, names, examples, evidence)
        halving.run(partial(self._ask, question), budget.max_unused)
        report = TemplateReport(question.name, names[0], "no template got an answer")
        if any(row.n_read for row in halving.figures()):
            report = self._report(halving, budget)
        n_asked, n_lost = self._n_asked[report.chosen], self._n_lost[report.chosen]
        if n_lost > _MAX_LOST_SHARE * n_asked:
            lost = f"{n_lost} of {n_asked} got no answer"
            raise LanguageModelUnavailable(f"the prompts could not be compared: {lost}")
        return report

    def _report(self, halving: SuccessiveHalving, budget: PromptBudget) -> TemplateReport:
        """Return the best template, with the demonstrations and the second answers that pay."""
        question, figures = halving.question, halving.figures()
        report = TemplateReport(
            question.name,
            figures[0].template,
            _why(figures),
            figures,
            has_alike_templates=halving.has_alike_templates,
        )
        first = halving.posteriors(report.chosen)
        can_show = question.kind.is_exclusive and len(question.labels) <= MAX_LABELS
        if can_show and budget.max_tried >= _MIN_TRIAL_PROMPTS:
            report, first = self._with_demonstrations(report, halving, budget)
        second = halving.runner_up()
        if not second:
            return report
        n = len(halving.posteriors(second))
        share = budget.second_share(report.n_unused)
        opinion = SecondOpinion.fit(second, first[:n], halving.posteriors(second), share=share)
        return replace(report, second=opinion)

    def _with_demonstrations(
        self, report: TemplateReport, halving: SuccessiveHalving, budget: PromptBudget
    ) -> tuple[TemplateReport, Floats]:
        """Return the report with the demonstrations that help, and the posteriors with them.

        The reference is what the next template and the other annotators say, or people. Answers
        are calibrated alone here: beside others, labels that demonstrations spoil look right. The
        posteriors (n, K) are of the texts that the selected template was asked about, NaN where
        these were not asked about with demonstrations.
        """
        question, first = halving.question, halving.posteriors(report.chosen)
        examples, human = halving.examples[: len(first)], halving.human[: len(first)]
        anchors = halving.anchors(report.chosen)
        sure = [calibrate(first, []), *anchors]
        make = partial(make_demonstrations, question, examples, sure, human)
        n_arms = max(1, budget.max_tried // _MIN_TRIAL_TEXTS)
        by_name = {f"{n} shots": make(n_shots=n, seed=_SEED) for n in N_SHOTS[:n_arms]}
        if n_arms > len(N_SHOTS):
            by_name |= self._self_made(question, examples, human)
        shown = {one.example_id for each in by_name.values() for one in each}
        rows = [at for at, example in enumerate(examples) if example.id not in shown]
        rows = rows[: budget.max_tried // len(by_name)]
        answers = {_NO_SHOTS: (first[rows], halving.masses(report.chosen)[rows])}
        for name, demonstrations in by_name.items():
            tried = [examples[row] for row in rows]
            answers[name] = self._ask(question, report.chosen, tried, demonstrations)
        for row in report.figures[1:2]:
            second = np.full(first.shape, np.nan)
            second[: row.n_texts] = halving.posteriors(row.template)[: len(first)]
            anchors.append(calibrate(second, []))
        agreed = consensus([], [rows_of[rows] for rows_of in anchors])
        reference = np.where(human[rows] >= 0, human[rows], agreed)
        figures = []
        for name, (own, masses) in answers.items():
            calibrated = calibrate(own, [])
            agreeing = credit(calibrated, reference)
            figures.append(figures_of(name, (own, calibrated, masses), agreeing, human[rows]))
        report = replace(report, trial=tuple(figures))
        max_loss = _MAX_LOSS if halving.has_alike_templates else 0.0
        best = _best_shown(figures[0], figures[1:], max_loss)
        if best is None:
            return report, first
        posteriors = np.full(first.shape, np.nan)
        posteriors[rows] = answers[best.template][0]
        return replace(report, demonstrations=by_name[best.template]), posteriors

    def _self_made(
        self, question: Question, examples: Sequence[Example], human: NDArray[np.intp]
    ) -> dict[str, tuple[Demonstration, ...]]:
        """Return demonstrations that the model writes, by their name; none where people labeled.

        Also none where it cannot write one for every label.
        """
        if (human >= 0).any():
            return {}
        n_labels = len(question.labels)
        n_each = max(1, max(N_SHOTS) // n_labels)
        written = self._annotator.write_demonstrations(
            self._schema, question, self._instruction, examples, n_each
        )
        if len({one.answer.labels for one in written}) < n_labels:
            return {}
        order = np.random.default_rng(_SEED).permutation(len(written))
        return {f"{len(written)} self-made shots": tuple(written[at] for at in order)}

    def _ask(
        self,
        question: Question,
        template: str,
        examples: Sequence[Example],
        demonstrations: tuple[Demonstration, ...] = (),
    ) -> tuple[Floats, Floats]:
        """Return posteriors and label masses by row."""
        context = PromptContext({question.name: template}, {question.name: demonstrations})
        schema = TaskSchema((question,), self._schema.headers)
        weak_labels = self._annotator.annotate(
            schema, self._instruction, examples, prompt_context=context
        )
        why = [label.abstention for label in weak_labels if label.abstention]
        self._n_asked[template] += len(weak_labels)
        self._n_lost[template] += sum(w.reason is AbstentionReason.UNREACHABLE for w in why)
        return posterior_rows(question, weak_labels), mass_rows(question, weak_labels)


def _best_shown(
    without: TemplateFigures, shown: Sequence[TemplateFigures], max_loss: float
) -> TemplateFigures | None:
    """Return the best of the demonstrations tried, None where all make answers worse.

    The label mass does not count: any answer shown raises it, a wrong one as well.
    """
    helpful = [
        row
        for row in shown
        if row.n_read
        and row.agreement >= without.agreement - max_loss - _ROUNDING
        and row.consistency >= without.consistency - max_loss - _ROUNDING
    ]
    return max(helpful, key=lambda row: row.consistency, default=None)


def _why(figures: Sequence[TemplateFigures]) -> str:
    best = figures[0]
    because = f"{best.agreement:.0%} of {best.n_texts} texts labeled as the other evidence says"
    if best.accuracy is not None:
        because += f", {best.accuracy:.0%} of {best.n_human} labels by people"
    if len(figures) > 1:
        because += f"; next is {figures[1].template} with {figures[1].agreement:.0%}"
    return because
