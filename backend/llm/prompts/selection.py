"""Measures prompt forms on a few texts of the pool and picks one; no form is taken on faith."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Example, PromptContext, WeakLabel
from backend.domain.questions import Question, TaskSchema
from backend.evaluation.metrics import cohens_kappa
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.templates import DEFAULT_TEMPLATE

N_SELECTION_TEXTS = 48
MIN_HUMAN_LABELS = 20
_N_PRIOR = 20
"""How many human labels weigh as much as the figures without labels."""
_FULL_MASS = 0.1
_MARGIN = 0.03
_SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """What one form did on the probe's texts.

    `n_read`: texts that got a posterior. `label_mass`: its mean share on the label space, None
    where the server tells none. `agreement`: mean share of texts on which the form's label is
    another form's, both calibrated. `kappa`: the same beyond chance. `balance`: the entropy of the
    calibrated label shares over its maximum, 0 (always one label) to 1. `accuracy`: on `n_human`
    human labels, None under 20 of them. `score` is what forms are compared by.
    """

    template: str
    n_read: int
    label_mass: float | None
    agreement: float
    kappa: float
    balance: float
    accuracy: float | None
    n_human: int
    score: float


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """Which form answers a question, why, and all figures; best first."""

    question: str
    n_texts: int
    chosen: str
    why: str
    figures: tuple[TemplateFigures, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes the same report."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TemplateReport:
        """Read what `to_json` wrote."""
        rows = tuple(TemplateFigures(**row) for row in data["figures"])
        return cls(**{**data, "figures": rows})


@dataclass(frozen=True, slots=True)
class Outcome:
    """One form's answers: posteriors (n, K) and label mass (n,), NaN where there is none."""

    template: str
    posteriors: NDArray[np.float64]
    label_mass: NDArray[np.float64]

    @classmethod
    def of(cls, template: str, weak_labels: Sequence[WeakLabel], n_labels: int) -> Outcome:
        """Collect one question's weak labels."""
        blank = (np.nan,) * n_labels
        rows = [weak.probabilities or blank for weak in weak_labels]
        masses = [np.nan if weak.label_mass is None else weak.label_mass for weak in weak_labels]
        posteriors = np.array(rows, dtype=float).reshape(len(rows), n_labels)
        return cls(template, posteriors, np.array(masses, dtype=float))

    def mean_mass(self) -> float | None:
        """Return the mean label mass; None where the server tells none."""
        told = self.label_mass[~np.isnan(self.label_mass)]
        return float(told.mean()) if len(told) else None


class TemplateSelector:
    """Puts one question in every form that the server can take."""

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
        prompt_context: PromptContext | None = None,
    ) -> TemplateReport:
        """Return the form with the best score over `examples`, about 48 texts of the pool.

        `human_labels` maps example ids to label values; texts with one should be among the
        examples. Costs one request per text and form. Questions without an exclusive label keep
        the default. Raises LanguageModelError when the model cannot be reached.
        """
        if not question.labels or not question.kind.is_exclusive:
            why = "forms are measured for questions with one label out of a few"
            return TemplateReport(question.name, 0, DEFAULT_TEMPLATE, why)
        outcomes = [
            self._outcome(template, question, examples, prompt_context or PromptContext())
            for template in self._annotator.templates()
        ]
        return compare_templates(question, examples, outcomes, human_labels or {})

    def _outcome(
        self,
        template: str,
        question: Question,
        examples: Sequence[Example],
        prompt_context: PromptContext,
    ) -> Outcome:
        schema = TaskSchema((question,), self._schema.headers)
        asked = PromptContext(
            {**prompt_context.templates, question.name: template}, prompt_context.shots
        )
        weak = self._annotator.annotate(schema, self._instruction, examples, prompt_context=asked)
        return Outcome.of(template, weak, len(question.labels))


def compare_templates(
    question: Question,
    examples: Sequence[Example],
    outcomes: Sequence[Outcome],
    human_labels: Mapping[int, str],
) -> TemplateReport:
    """Return the report on forms that were all put about the same examples.

    The default form stays unless another's score is higher by `_MARGIN`: 48 texts cannot tell
    closer ones apart. Other ties go to the form that stands first.
    """
    values = [label.value for label in question.labels]
    gold = np.array(
        [
            values.index(human_labels[example.id]) if human_labels.get(example.id) in values else -1
            for example in examples
        ],
        dtype=int,
    )
    calibrated = [centred(outcome.posteriors) for outcome in outcomes]
    figures = [_figures(outcome, at, calibrated, gold) for at, outcome in enumerate(outcomes)]
    readable = [row for row in figures if row.n_read > 0]
    if not readable:
        why = "no form got an answer"
        return TemplateReport(question.name, len(examples), DEFAULT_TEMPLATE, why, tuple(figures))
    margin = {
        row.template: _MARGIN * (row.template == DEFAULT_TEMPLATE and row.n_read > 0)
        for row in figures
    }
    ranked = sorted(figures, key=lambda row: -row.score - margin[row.template])
    return TemplateReport(
        question.name, len(examples), ranked[0].template, _why(ranked), tuple(ranked)
    )


def centred(posteriors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the posteriors without the prompt's own leaning, (n, K); NaN rows stay.

    Divided by the geometric mean over the texts and normalised: what `core.calibration` does, for
    few texts and balanced labels. Forms are compared by it, nothing is labelled with it.
    """
    logs = np.log(np.maximum(posteriors, _SMALLEST))
    is_read = _is_read(posteriors)
    if not is_read.any():
        return posteriors
    shifted = logs - logs[is_read].mean(axis=0)
    weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def template_score(
    agreement: float, label_mass: float | None, accuracy: float | None, n_human: int
) -> float:
    """Return what a form is worth, in the scale of an accuracy.

    Without human labels: the agreement with the other forms, less up to a tenth where the label
    mass is under 10 %. n human labels count n / (n + 20), the figures without labels the rest. The
    weights are a judgement and not fitted; `python -m benchmarks forms` measures what it picks.
    """
    mass = 1.0 if label_mass is None else min(1.0, label_mass / _FULL_MASS)
    unlabelled = agreement * (0.9 + 0.1 * mass)
    if accuracy is None:
        return unlabelled
    return (n_human * accuracy + _N_PRIOR * unlabelled) / (n_human + _N_PRIOR)


def _figures(
    outcome: Outcome,
    at: int,
    calibrated: Sequence[NDArray[np.float64]],
    gold: NDArray[np.int_],
) -> TemplateFigures:
    own = calibrated[at]
    is_read = _is_read(own)
    others = [other for position, other in enumerate(calibrated) if position != at]
    pairs = [_agreement(own, other) for other in others]
    agreement = float(np.mean([share for share, _ in pairs])) if pairs else 0.0
    kappa = float(np.mean([kappa for _, kappa in pairs])) if pairs else 0.0
    has_label = is_read & (gold >= 0)
    n_human = int(has_label.sum())
    accuracy = None
    if n_human >= MIN_HUMAN_LABELS:
        accuracy = float((own[has_label].argmax(axis=1) == gold[has_label]).mean())
    share_read = float(is_read.mean()) if len(is_read) else 0.0
    label_mass = outcome.mean_mass()
    score = template_score(agreement, label_mass, accuracy, n_human)
    return TemplateFigures(
        template=outcome.template,
        n_read=int(is_read.sum()),
        label_mass=label_mass,
        agreement=agreement,
        kappa=kappa,
        balance=_balance(own[is_read]),
        accuracy=accuracy,
        n_human=n_human,
        score=score * share_read,
    )


def _agreement(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return the share of texts with the same label in both, and Cohen's kappa; 0 for no text."""
    both = _is_read(one) & _is_read(other)
    if not both.any():
        return 0.0, 0.0
    first, second = one[both].argmax(axis=1), other[both].argmax(axis=1)
    return float((first == second).mean()), cohens_kappa(first, second) or 0.0


def _is_read(posteriors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows hold a posterior."""
    return np.asarray(~np.isnan(posteriors).any(axis=1), dtype=bool)


def _balance(calibrated: NDArray[np.float64]) -> float:
    """Return the entropy of the label shares over its maximum, in [0, 1]."""
    if len(calibrated) == 0 or calibrated.shape[1] < 2:
        return 0.0
    counts = np.bincount(calibrated.argmax(axis=1))
    shares = counts[counts > 0] / len(calibrated)
    return max(0.0, float(-(shares * np.log(shares)).sum() / np.log(calibrated.shape[1])))


def _why(ranked: Sequence[TemplateFigures]) -> str:
    best = ranked[0]
    because = f"{best.agreement:.0%} agreement with the other forms"
    if best.accuracy is not None:
        because = f"{best.accuracy:.0%} right on {best.n_human} human labels, {because}"
    if best.label_mass is not None:
        because += f", label mass {best.label_mass:.1%}"
    if len(ranked) > 1:
        because += f"; next is {ranked[1].template} with a score of {ranked[1].score:.3f}"
    return f"score {best.score:.3f}: {because}"
