"""Try a cycle's demonstrations: do the LLM's answers agree with similarity as well as before?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.domain.labels import AnnotatorKind
from backend.domain.questions import Question
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.calibrated import calibrated_scores

_KINDS = (AnnotatorKind.LLM, AnnotatorKind.LLM_DEMONSTRATIONS, AnnotatorKind.SIMILARITY)
_MIN_TEXTS = 50
_Z = 1.645  # one-sided, at 5 %
_LEFT_OUT = (
    "answers with demonstrations are left out: they agree with similarity in {:.0%} of {} texts, "
    "those without in {:.0%}"
)


@dataclass(frozen=True, slots=True)
class DemonstrationTrial:
    """Shares of texts in which the LLM agrees with similarity, with demonstrations and without.

    `standard_error` is that of the paired difference over `n_texts` that all three answered.
    """

    with_demonstrations: float
    without: float
    standard_error: float
    n_texts: int

    @property
    def is_harmful(self) -> bool:
        """Return whether demonstrations make the LLM agree less, beyond chance."""
        lost = self.without - self.with_demonstrations
        return self.n_texts >= _MIN_TEXTS and lost > _Z * self.standard_error

    def __str__(self) -> str:
        """Return why the answers with demonstrations are left out."""
        return _LEFT_OUT.format(self.with_demonstrations, self.n_texts, self.without)


def try_demonstrations(
    ensemble: AnnotatorEnsemble, pool: Pool, question: Question
) -> DemonstrationTrial | None:
    """Compare the LLM's answers with and without demonstrations on a pool; None for spans.

    The idea: similarity knows neither prompt, so that of two answers of one LLM the better one
    agrees with it more often. Each annotator's likeliest label counts, by `calibrated_scores`: an
    LLM's preference for a label plays no part, and no text that people answered is asked again.

    Args:
        ensemble: fits the label model.
        pool: with the labels of the LLM, of the LLM with demonstrations, and of similarity.
        question: about whole texts; spans are not compared.
    """
    if question.kind.has_spans:
        return None
    calibrated = calibrated_scores(ensemble, pool, question, lambda kind: kind in _KINDS)
    kinds = pool.matrices[question.name].kinds
    by_kind = {kinds[name]: own for name, own in calibrated.items()}
    if any(kind not in by_kind for kind in _KINDS):
        return None
    plain, shown, similarity = (by_kind[kind] for kind in _KINDS)
    rows = ~np.isnan(plain + shown + similarity).any(axis=1)
    if not rows.any():
        return None
    truth = similarity[rows].argmax(axis=1)
    before, after = plain[rows].argmax(axis=1) == truth, shown[rows].argmax(axis=1) == truth
    difference = after.astype(float) - before
    error = float(difference.std() / len(difference) ** 0.5)
    return DemonstrationTrial(float(after.mean()), float(before.mean()), error, len(difference))
