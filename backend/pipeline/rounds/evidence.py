"""Decide which of a round's labels replace the served ones, on evidence; people may object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import Question
from backend.domain.rounds import LabelsChange
from backend.evaluation.expected_gain import MIN_REFEREES, ExpectedGain, supported_changes
from backend.evaluation.gate import GateDecision
from backend.evaluation.metrics import mean_pairwise_kappa
from backend.label_model.changes import changed_decisions
from backend.label_model.label_tables import LabelTable, aggregated_table
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.calibrated import calibrated_scores

MIN_AGREEMENT = 0.2
"""Kappa up to which Landis and Koch (1977) call agreement slight: it tells no right answer."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelChange:
    """Which labels change, and why.

    `is_kept` (n,): rows whose served label stays though the round found another one. `gain` is what
    the change, or without one the round's labels, are expected to gain; None where people alone
    decided.
    """

    is_any: bool
    is_kept: NDArray[np.bool_]
    reason: str
    gain: ExpectedGain | None = None

    def apply(self, served: LabelTable, found: LabelTable) -> LabelTable:
        """Return the labels in use from now on; the found ones where nothing was served."""
        if self.is_any:
            return found.overlay(self.is_kept, served)
        return served.overlay(~served.has_label, found)


@dataclass(frozen=True)
class ChangeRule:
    """Applies LABELS_CHANGE to the labels that a round found for a question."""

    ensemble: AnnotatorEnsemble
    rule: LabelsChange

    def decide(
        self,
        pool: Pool,
        question: Question,
        labels: tuple[LabelTable, LabelTable],
        gate: GateDecision,
    ) -> LabelChange:
        """Return which labels change.

        Args:
            pool: with the labels of all annotators of the round.
            question: the question.
            labels: the served ones and the found ones, in the pool's rows.
            gate: how the versions compare on people's labels, or on agreement.
        """
        served, found = labels
        differs = served.differs(found)
        if self.rule == "never":
            return LabelChange(False, differs, "no label changes: LABELS_CHANGE=never")
        if not gate.is_promoted:
            return LabelChange(False, differs, gate.reason)
        if gate.is_by_people and not gate.labels_may_replace:
            return LabelChange(False, differs, gate.reason)
        if self.rule == "people":
            return self._by_people(differs, gate)
        asks_kappa = differs.any() and not gate.is_by_people
        kappa = self._agreement(pool, question) if asks_kappa else None
        if kappa is not None and kappa < MIN_AGREEMENT:
            reason = f"no label changes: LLM and similarity agree too little (kappa {kappa:.2f})"
            return LabelChange(False, differs, reason)
        referees = self._referees(pool, question) if differs.any() else []
        if gate.is_by_people and len(referees) < MIN_REFEREES:
            return self._by_people(differs, gate)
        changed = changed_decisions(question, served, found, referees)
        gain, texts = supported_changes(changed)
        is_kept = differs & ~np.isin(np.arange(len(differs)), texts)
        n_all, n_texts = int(differs.sum()), len(texts)
        what = f"served, {n_texts} of {n_all} changed texts" if n_texts else "not served"
        return LabelChange(n_texts > 0, is_kept, f"expected {gain}: {what}", gain)

    @staticmethod
    def _by_people(differs: NDArray[np.bool_], gate: GateDecision) -> LabelChange:
        if gate.is_by_people:
            return LabelChange(True, np.zeros_like(differs), gate.reason)
        few = "no label changes: people have answered too few texts (LABELS_CHANGE=people)"
        return LabelChange(False, differs, few)

    def _agreement(self, pool: Pool, question: Question) -> float | None:
        """Return the agreement beyond chance of the annotators that no round has made.

        Of several labels the one that stands out most in each text is compared. None where two
        annotators cannot be, and for spans.
        """
        if question.kind.has_spans:
            return None
        given = calibrated_scores(
            self.ensemble, pool, question, lambda kind: not kind.is_from_round
        )
        return mean_pairwise_kappa(dict(sorted(given.items())))

    def _referees(self, pool: Pool, question: Question) -> list[LabelTable]:
        """Return labels aggregated of all annotators, then of all but one, people's fixed."""
        pool = pool.restrict(question)
        matrix = pool.matrices[question.name]
        names = sorted({*matrix.posteriors, *matrix.spans})
        tables = []
        for left_out in ("", *names):
            one = pool.with_matrix(question, matrix.without(left_out))
            state = self.ensemble.fit(one, is_saved=False)
            labels = self.ensemble.aggregate_question(one, question, state)
            tables.append(aggregated_table(question, pool.example_ids, labels))
        return tables
