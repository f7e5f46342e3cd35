"""Estimate every text's label probabilities and uncertainty, and how labels change them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.coverage import Vectors
from backend.active_learning.strategy_interface import PoolView, Positions

_MIN_MARGIN = 0.05
_UNSURE = 0.5

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ActiveLLMSettings:
    """The default strategy's numbers, chosen on held-out training rows (docs/algorithms.md).

    Args:
        width_share: kernel width over the pool's mean cosine distance.
        label_share: how much of two texts' similarity is that of their expected labels, in [0, 1].
        duplicate_similarity: lowest cosine of near-duplicates.
        quota_power: how strongly a class with fewer picks than its target is preferred.
        prior_share: how much of a class's target comes from the pool's expected classes, in [0, 1];
            the rest is equal shares.
        margin_power: how strongly texts with a high margin are preferred before any human label.
        margin_until: number of human labels at which that preference is gone.
        min_agreement: annotators with a lower kappa are not used before `margin_until` labels.
        student_half_at: number of human labels at which the student has half the weight.
        reach: how much the widest coverage counts beside a label that is surely wrong.
        n_head: how many texts are chosen greedily; the rest follow by uncertainty.
        n_shortlist: how many of the first an LLM scores, where one is asked.
        scorer_strength: the most by which its scores move the logarithm of a gain.
        n_candidates, n_references: most texts to choose from and to cover; more are sampled.
    """

    width_share: float = 0.75
    label_share: float = 0.3
    duplicate_similarity: float = 0.95
    quota_power: float = 3.0
    prior_share: float = 0.5
    margin_power: float = 1.0
    margin_until: float = 64.0
    min_agreement: float = 0.05
    student_half_at: float = 32.0
    reach: float = 0.3
    n_head: int = 1000
    n_shortlist: int = 200
    scorer_strength: float = 0.5
    n_candidates: int = 8000
    n_references: int = 4000


@dataclass(frozen=True, slots=True, eq=False)
class PoolEstimate:
    """Label probabilities of every text, and the weights that follow from them.

    Args:
        probabilities: annotators and student blended, shape (n, K); None where there are none.
        uncertainty: 1 - margin of the two best labels, shape (n,); 1 where nothing is known.
        weights, margin_factors: how much covering and choosing a text counts, shape (n,).
        corrections: how many labels an answer to this text is expected to correct by itself, in
            shares of the most, shape (n,); 0 where there are no labels to correct.
        expected_errors: the same in labels, shape (n,); None where nothing is known.
        source: the model that weighs most.
        annotators_uninformative: the annotators agree by chance alone and are not used.
    """

    probabilities: Probabilities | None
    uncertainty: NDArray[np.float64]
    weights: NDArray[np.float64]
    margin_factors: NDArray[np.float64]
    source: str
    corrections: NDArray[np.float64]
    expected_errors: NDArray[np.float64] | None = None
    annotators_uninformative: bool = False

    @classmethod
    def of(cls, pool: PoolView, settings: ActiveLLMSettings) -> PoolEstimate:
        """Blend annotators and student by the number of human labels.

        The student's weight is l / (l + `student_half_at`) for l labels. Where nobody has labeled
        anything, clear texts teach most, and high margins are preferred; that preference goes as
        people label. Where the LLM has labeled the texts, an answer is worth what it corrects: the
        text's own expected errors, and those of similar texts. In between the shares of labeled
        texts decide. Annotators that agree no more than by chance are left out until there are
        labels to correct them or to train the student.
        """
        n_labels = sum(label is not None for label in pool.labeled.values())
        agrees_by_chance = pool.agreement is not None and pool.agreement < settings.min_agreement
        uninformative = agrees_by_chance and n_labels < settings.margin_until
        if uninformative:
            pool = replace(pool, posteriors=None, expected_errors=None)
        student_weight = n_labels / (n_labels + settings.student_half_at)
        probabilities, source = _blend(pool, student_weight)
        ones = np.ones(len(pool))
        errors, warmth = _expected_errors(pool, probabilities), pool.prelabeled_share
        if probabilities is None and errors is None:
            return cls(None, ones, ones, ones, source, 0 * ones, None, uninformative)
        shares = 0 * ones if errors is None else errors / max(float(errors.max(initial=0)), 1e-9)
        uncertainty = shares if probabilities is None else margin_uncertainty(probabilities)
        maturity = max(student_weight, warmth)
        power = settings.margin_power * max(0.0, 1 - n_labels / settings.margin_until)
        return cls(
            probabilities,
            uncertainty,
            weights=(1 - maturity) + maturity * uncertainty,
            margin_factors=(_MIN_MARGIN + 1 - uncertainty) ** (power * (1 - warmth)),
            source=source,
            corrections=warmth * shares,
            expected_errors=errors,
            annotators_uninformative=uninformative,
        )

    def with_label_similarity(
        self, embeddings: Vectors, rows: Positions, label_share: float
    ) -> Vectors:
        """Return unit vectors (m, d + K) of some rows whose cosine mixes texts' and labels'.

        The labels' part is the Bhattacharyya coefficient of the two posteriors, 1 for equal ones.
        """
        if self.probabilities is None or label_share == 0:
            return embeddings[rows]
        roots = np.sqrt(impute_missing(self.probabilities)[rows], dtype=np.float32)
        parts = [np.float32(np.sqrt(1 - label_share)) * embeddings[rows]]
        return np.hstack([*parts, np.float32(np.sqrt(label_share)) * roots])

    def expected_corrections(self, positions: Positions) -> float | None:
        """Return how many wrong labels answers to some texts meet; None before there are labels."""
        if self.expected_errors is None or not self.corrections.any():
            return None
        return float(self.expected_errors[positions].sum())

    def describe(self, pool: PoolView, at: int) -> str:
        """Describe the expected label of one text: "annotators unsure: 0.52 billing / 0.44 ham"."""
        if self.probabilities is None and self.annotators_uninformative:
            return "the annotators agree by chance alone and are not used"
        if self.probabilities is None and self.expected_errors is not None:
            return f"expected errors {self.expected_errors[at]:.2f}"
        if self.probabilities is None or np.isnan(self.probabilities[at]).any():
            return "nothing is known about its label"
        row = self.probabilities[at]
        names = pool.label_names
        best = " / ".join(
            f"{row[label]:.2f} {names[label] if label < len(names) else f'class {label}'}"
            for label in np.argsort(-row, kind="stable")[:2]
        )
        if self.corrections[at] > 0 and self.expected_errors is not None:
            return f"expected errors {self.expected_errors[at]:.2f} ({self.source}: {best})"
        sureness = "unsure" if self.uncertainty[at] >= _UNSURE else "fairly sure"
        return f"{self.source} {sureness}: {best}"


def margin_uncertainty(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return 1 - (best - second best) per row (n, K), in [0, 1]; 1 for rows of NaN."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    two = np.sort(np.nan_to_num(probabilities, nan=0.0), axis=1)[:, -2:]
    return np.asarray(1.0 - (two[:, 1] - two[:, 0]))


def _expected_errors(
    pool: PoolView, probabilities: Probabilities | None
) -> NDArray[np.float64] | None:
    """Return how many labels of each text are expected to be wrong, the mean where unknown."""
    errors = pool.expected_errors
    if errors is None and probabilities is not None:
        errors = 1 - probabilities.max(axis=1, initial=0.0)
    if errors is None or not np.isfinite(errors).any():
        return None
    return np.where(np.isfinite(errors), errors, errors[np.isfinite(errors)].mean())


def _blend(pool: PoolView, student_weight: float) -> tuple[Probabilities | None, str]:
    annotators, student = pool.posteriors, pool.student_posteriors
    if student is None:
        return annotators, "" if annotators is None else "annotators"
    if annotators is None:
        return student, "student"
    mixed = (1 - student_weight) * annotators + student_weight * student
    mixed = np.where(np.isnan(annotators), student, mixed)
    mixed = np.where(np.isnan(student), annotators, mixed)
    return mixed, "student" if student_weight > 0.5 else "annotators"


def impute_missing(probabilities: Probabilities) -> Probabilities:
    """Return the rows (n, K) with the mean of the known ones, or equal shares, in place of NaN."""
    n_classes = probabilities.shape[1]
    is_known = np.isnan(probabilities).sum(axis=1) == 0
    known = probabilities[is_known]
    mean = known.mean(axis=0) if len(known) else np.full(n_classes, 1 / n_classes)
    return np.where(is_known[:, None], probabilities, mean)
