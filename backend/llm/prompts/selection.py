"""Select each question's prompt template by what the templates do on a few texts of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import MIN_HUMAN_LABELS, Example, PromptContext, WeakLabel
from backend.domain.questions import Question, TaskSchema
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.templates import DEFAULT_TEMPLATE

N_SELECTION_TEXTS = 48
_N_PRIOR = 20
"""How many human labels weigh as much as the figures without labels."""
_FULL_MASS = 0.1
_MARGIN = 0.03
_MIN_PROBABILITY = 1e-9


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """Figures of one template; `score` is what templates are compared by.

    Args:
        n_read: texts that got a posterior.
        label_mass: the posteriors' mean share on the label space; None if not reported.
        agreement: mean share of texts with the same label as another template's, both calibrated.
        accuracy: share of right labels on `n_human` human labels; None under 20 of them.
    """

    template: str
    n_read: int
    label_mass: float | None
    agreement: float
    accuracy: float | None
    n_human: int
    score: float


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """A question's selected template with the reason, and the figures of all; best first."""

    question: str
    n_texts: int
    chosen: str
    why: str
    figures: tuple[TemplateFigures, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TemplatePosteriors:
    """One template's posteriors (n, K) and label mass (n,), NaN where there is none."""

    template: str
    posteriors: NDArray[np.float64]
    label_mass: NDArray[np.float64]

    @classmethod
    def of(
        cls, template: str, weak_labels: Sequence[WeakLabel], n_labels: int
    ) -> TemplatePosteriors:
        """Collect one question's weak labels."""
        blank = (np.nan,) * n_labels
        rows = [weak.probabilities or blank for weak in weak_labels]
        masses = [np.nan if weak.label_mass is None else weak.label_mass for weak in weak_labels]
        posteriors = np.array(rows, dtype=float).reshape(len(rows), n_labels)
        return cls(template, posteriors, np.array(masses, dtype=float))

    def mean_mass(self) -> float | None:
        """Return the mean label mass; None if the server reports none."""
        reported = self.label_mass[~np.isnan(self.label_mass)]
        return float(reported.mean()) if len(reported) else None


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
        *,
        human_labels: Mapping[int, str] | None = None,
    ) -> TemplateReport:
        """Return the template with the best score on `examples`, about 48 texts of the pool.

        Questions without an exclusive label keep the default. Cost: one request per text and
        template.

        Args:
            human_labels: label values by example id; texts with one should be among the examples.

        Raises:
            LanguageModelError: the model cannot be reached.
        """
        if not question.labels or not question.kind.is_exclusive:
            why = "templates are compared for questions with one label out of a few"
            return TemplateReport(question.name, 0, DEFAULT_TEMPLATE, why)
        schema = TaskSchema((question,), self._schema.headers)
        outcomes = []
        for template in self._annotator.templates():
            context = PromptContext({question.name: template})
            weak_labels = self._annotator.annotate(
                schema, self._instruction, examples, prompt_context=context
            )
            outcomes.append(TemplatePosteriors.of(template, weak_labels, len(question.labels)))
        return compare_templates(question, examples, outcomes, human_labels or {})


def compare_templates(
    question: Question,
    examples: Sequence[Example],
    outcomes: Sequence[TemplatePosteriors],
    human_labels: Mapping[int, str],
) -> TemplateReport:
    """Return the report on templates that were all used on the same examples.

    The default template stays unless another's score is higher by `_MARGIN`: 48 texts cannot tell
    closer ones apart. Other ties go to the template that stands first.
    """
    values = [label.value for label in question.labels]
    labels = [human_labels.get(example.id) for example in examples]
    gold = np.array([values.index(one) if one in values else -1 for one in labels], dtype=int)
    calibrated = [center_posteriors(outcome.posteriors) for outcome in outcomes]
    figures = [_figures(outcome, at, calibrated, gold) for at, outcome in enumerate(outcomes)]
    chosen, why = DEFAULT_TEMPLATE, "no template got an answer"
    if any(row.n_read for row in figures):
        figures.sort(
            key=lambda row: (
                -row.score - _MARGIN * (row.template == DEFAULT_TEMPLATE and row.n_read > 0)
            )
        )
        chosen, why = figures[0].template, _why(figures)
    return TemplateReport(question.name, len(examples), chosen, why, tuple(figures))


def center_posteriors(posteriors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the posteriors (n, K) without the prompt's own preference; NaN rows stay.

    Divided by the geometric mean over the texts and normalized: batch calibration
    (`label_model.calibration`) for few texts and balanced labels, to compare templates only.
    """
    logs = np.log(np.maximum(posteriors, _MIN_PROBABILITY))
    is_read = _is_read(posteriors)
    if not is_read.any():
        return posteriors
    shifted = logs - logs[is_read].mean(axis=0)
    weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    normalized: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def template_score(
    agreement: float, label_mass: float | None, accuracy: float | None, n_human: int
) -> float:
    """Return a template's score, in the scale of an accuracy.

    Without human labels: the agreement with the other templates, less up to a tenth where the label
    mass is under 10 %. n human labels count n / (n + 20), the figures without labels the rest. The
    weights are a judgment and not fitted; `python -m benchmarks forms` measures what they select.
    """
    mass = 1.0 if label_mass is None else min(1.0, label_mass / _FULL_MASS)
    unlabeled = agreement * (0.9 + 0.1 * mass)
    if accuracy is None:
        return unlabeled
    return (n_human * accuracy + _N_PRIOR * unlabeled) / (n_human + _N_PRIOR)


def _figures(
    outcome: TemplatePosteriors,
    at: int,
    calibrated: Sequence[NDArray[np.float64]],
    gold: NDArray[np.int_],
) -> TemplateFigures:
    own = calibrated[at]
    is_read = _is_read(own)
    shares = []
    for other in [*calibrated[:at], *calibrated[at + 1 :]]:
        both = is_read & _is_read(other)
        is_same = own[both].argmax(axis=1) == other[both].argmax(axis=1)
        shares.append(float(is_same.mean()) if both.any() else 0.0)
    agreement = float(np.mean(shares)) if shares else 0.0
    has_label = is_read & (gold >= 0)
    n_human = int(has_label.sum())
    accuracy = None
    if n_human >= MIN_HUMAN_LABELS:
        accuracy = float((own[has_label].argmax(axis=1) == gold[has_label]).mean())
    share_read = float(is_read.mean()) if len(is_read) else 0.0
    label_mass = outcome.mean_mass()
    return TemplateFigures(
        template=outcome.template,
        n_read=int(is_read.sum()),
        label_mass=label_mass,
        agreement=agreement,
        accuracy=accuracy,
        n_human=n_human,
        score=template_score(agreement, label_mass, accuracy, n_human) * share_read,
    )


def _is_read(posteriors: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(~np.isnan(posteriors).any(axis=1), dtype=bool)


def _why(ranked: Sequence[TemplateFigures]) -> str:
    best = ranked[0]
    because = f"{best.agreement:.0%} agreement with the other templates"
    if best.accuracy is not None:
        because = f"{best.accuracy:.0%} right on {best.n_human} human labels, {because}"
    if best.label_mass is not None:
        because += f", label mass {best.label_mass:.1%}"
    if len(ranked) > 1:
        because += f"; next is {ranked[1].template} with a score of {ranked[1].score:.3f}"
    return f"score {best.score:.3f}: {because}"
