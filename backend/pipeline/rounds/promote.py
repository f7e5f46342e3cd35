"""A round's end: aggregate its labels, compare them with those served, release if not worse."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import Question
from backend.domain.rounds import MAX_CHANGED, QUESTIONS, RoundState
from backend.errors import NothingLearned
from backend.evaluation.gate import GateDecision, PairedOutcomes, decide_promotion
from backend.evaluation.stopping import advise_on_rounds
from backend.label_model.label_issues import LabelIssue
from backend.label_model.label_tables import (
    LabelTable,
    aggregated_table,
    given_table,
    stored_table,
)
from backend.label_model.labels_matrix import AGGREGATED, AggregatedMatrix
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.issues import round_issues, save_issues
from backend.pipeline.pool import AggregatedPool, Pool
from backend.pipeline.release import (
    LABELS_FROM,
    LEARNED,
    MODEL_FROM,
    RECIPE,
    ReleaseBuilder,
    learned_from,
)
from backend.pipeline.rounds.context import (
    FINAL,
    FUSED,
    STOPPED,
    ActiveRound,
    RoundArtifacts,
    RoundContext,
    Turn,
    artifacts,
    has_other_text,
    student_name,
)
from backend.pipeline.rounds.evidence import ChangeRule, LabelChange
from backend.pipeline.rounds.figures import round_figures
from backend.pipeline.rounds.students import trained_table
from backend.pipeline.rounds.train import pool_of
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_KIND, _KIND_REORDERED = "round", "round without better labels"


@dataclass(frozen=True, slots=True, eq=False)
class RoundLabels:
    """A cycle's labels of one question before they are saved.

    `pool` is that of this question alone, with the votes of all annotators of the round; `state` is
    saved with the labels; `student` holds the student's own.
    """

    active: ActiveRound
    pool: Pool
    matrix: AggregatedMatrix
    state: EnsembleState | None
    student: LabelTable

    @property
    def question(self) -> Question:
        """Return the question."""
        return self.active.question

    @property
    def table(self) -> LabelTable:
        """Return the aggregated labels."""
        return aggregated_table(self.question, self.pool.example_ids, self.matrix)

    @property
    def labels(self) -> Sequence[WeakLabel]:
        """Return the aggregated labels, one per example."""
        return AggregatedPool.of(self.pool, {self.question.name: self.matrix}).labels


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    """What is decided about a question's labels, and its figures."""

    made: RoundLabels
    decision: GateDecision
    change: LabelChange
    figures: Mapping[str, Any]
    issues: Sequence[LabelIssue]


@dataclass(frozen=True)
class PromoteStep:
    """Does the steps `fuse` and `release`."""

    context: RoundContext
    aggregator: Aggregator
    ensemble: AnnotatorEnsemble
    releases: ReleaseBuilder
    stores: Stores

    def aggregate(self, project_id: ProjectId, *, turn: Turn) -> dict[str, int]:
        """Aggregate this cycle's labels; a step. `is_stable`: no other cycle is worth it."""
        return self.context.run(
            project_id, turn.question, lambda active: self._aggregate(active, turn.cycle)
        )

    def release(self, project_id: ProjectId) -> dict[str, int]:
        """Draft a release of the labels of the last cycles unless all would be worse; a step."""
        return self.context.run_all(project_id, self._release)

    def _aggregate(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        if not active.files.has(f"{FUSED}-{cycle}"):
            self.context.note(active, f"fuse {cycle}", cycle=cycle)
            made = self._labels(active, cycle)
            if made is None:
                return dict(STOPPED)
            active.files.write(f"{FUSED}-{cycle}", **made.table.arrays)
        changed = changed_shares(active.question, active.files, cycle)
        max_rounds = 1 + self.context.plan.max_cycles
        advice = advise_on_rounds(changed, max_changed=MAX_CHANGED, max_rounds=max_rounds)
        is_stable = active.recipe.has_one_cycle or advice.is_converged
        return {"is_stable": int(is_stable), "changed_per_mille": round(1000 * changed[-1])}

    def _labels(self, active: ActiveRound, cycle: int) -> RoundLabels | None:
        question, recipe = active.question, active.recipe
        trained = active.files.read(f"train-{cycle}")
        if trained is None:
            return None
        pool = pool_of(self.aggregator, active, cycle)
        student = trained_table(question, trained, recipe.student_key).align(pool.example_ids)
        student = student.without(~pool.is_shown(question) | has_other_text(trained, pool))
        matrix = student.joined_to(pool.matrices[question.name], *_student_of(active))
        pool = pool.with_matrix(question, matrix).restrict(question)
        aggregated, state = recipe.aggregate(pool, question)
        return RoundLabels(active, pool, aggregated, state, student)

    def _release(self, turns: Sequence[ActiveRound]) -> dict[str, int]:
        first = turns[0]
        released = self._released(first)
        if released is not None:
            return self._finish(first, *released)
        self.context.note(first, "release")
        outcomes, failures = [], {}
        for active in turns:
            made = None if active.files.failure else self._labels(active, active.files.n_cycles)
            if made is not None:
                outcomes.append(self._judge(made))
            else:
                failures[active.question.name] = active.files.failure or "no labels were made"
        figures: dict[str, Any] = {each.made.question.name: each.figures for each in outcomes}
        figures |= {name: {"error": reason} for name, reason in failures.items()}
        metrics = {QUESTIONS: figures}
        if not outcomes:
            reasons = (f"{name}: {reason}" for name, reason in failures.items())
            raise NothingLearned("; ".join(reasons))
        issues = [issue for outcome in outcomes for issue in outcome.issues]
        save_issues(self.stores, first.project, issues)
        if not any(outcome.decision.is_promoted for outcome in outcomes):
            self.stores.rounds.finish(first.round, RoundState.REFUSED, metrics=metrics)
            _LOG.info("project=%s round=%d refused", first.project.id, first.round.number)
            return {"is_released": 0}
        return self._finish(first, metrics, self._draft(first, outcomes, metrics))

    def _judge(self, made: RoundLabels) -> _Outcome:
        """Return what is decided about a question's labels."""
        active = made.active
        held_out = active.recipe.held_out(made.pool, made.question, made.table)
        decision = self._decide(made, held_out)
        served = given_table(made.question, self._served(active.project))
        served = served.align(made.pool.example_ids)
        rule = ChangeRule(self.ensemble, self.context.plan.labels_change)
        change = rule.decide(made.pool, made.question, (served, made.table), decision)
        in_use = change.apply(served, made.table)
        issues = round_issues(made.pool, made.question, (in_use, held_out), made.matrix)
        if change.is_any:  # people's answers are no labels that were made without them
            is_kept = change.is_kept & ~made.pool.human_table(made.question).has_label
            held_out = held_out.overlay(is_kept, served)
        active.files.write(FINAL, **held_out.arrays)
        trial = active.files.trial(active.files.n_cycles + 1)
        reason = change.reason if trial is None else f"{change.reason}; {trial}"
        line = "project=%s round=%d question=%s %s"
        _LOG.info(line, active.project.id, active.round.number, made.question.name, reason)
        figures = {
            **round_figures(made.pool, made.question, made.labels, made.student, held_out),
            "n_cycles": active.files.n_cycles,
            "changed": changed_shares(made.question, active.files, active.files.n_cycles),
            "gate": {
                "is_promoted": decision.is_promoted,
                "is_better": change.is_any,
                "reason": reason,
            },
            "gate_figures": dict(decision.figures),
            "n_issues": len(issues),
            "expected_gain": None if change.gain is None else change.gain.to_json(),
        }
        return _Outcome(made, decision, change, figures, issues)

    def _served(self, project: Project) -> list[WeakLabel]:
        """Return the aggregated labels that are served now."""
        return self.stores.labels.weak_labels(project, annotator=AGGREGATED)

    def _draft(
        self, first: ActiveRound, outcomes: Sequence[_Outcome], metrics: Mapping[str, Any]
    ) -> str:
        """Save the labels that replace served ones, and draft a release; return its version."""
        promoted = [outcome for outcome in outcomes if outcome.decision.is_promoted]
        aggregated = self._composed(first, promoted)
        names = {v.made.question.name for v in promoted if v.change.is_any}
        for outcome in promoted:
            if outcome.change.is_any:
                self._save(outcome.made, aggregated.labels)
        sources = {
            v.made.question.name: self._source(v.made, is_better=v.made.question.name in names)
            for v in promoted
        }
        served = self.stores.releases.provenance(first.project.id, first.project.model_version)
        draft = self.releases.draft(
            aggregated,
            {
                "kind": _KIND if names else _KIND_REORDERED,
                "round": first.round.number,
                LEARNED: {**served.get(LEARNED, {}), **sources},
                "metrics": metrics,
            },
        )
        return draft.model_version

    def _source(self, made: RoundLabels, *, is_better: bool) -> dict[str, Any]:
        """Return what a question's labels and student come from."""
        active, number = made.active, made.active.round.number
        served = learned_from(self.stores, active.project, made.question)
        made_from = {RECIPE: active.round.recipe, MODEL_FROM: [number, active.files.n_cycles]}
        return {**served, **made_from, **({LABELS_FROM: number} if is_better else {})}

    def _released(self, active: ActiveRound) -> tuple[Mapping[str, Any], str] | None:
        """Return the metrics and the version of the draft that this round made before a kill."""
        pending = self.stores.releases.pending(active.project)
        if pending is None:
            return None
        version = pending.model_version
        provenance = self.stores.releases.provenance(active.project.id, version)
        if provenance.get("round") != active.round.number:
            return None
        return provenance.get("metrics", {}), version

    def _finish(
        self, active: ActiveRound, metrics: Mapping[str, Any], model_version: str
    ) -> dict[str, int]:
        self.stores.rounds.finish(
            active.round, RoundState.RELEASED, metrics=metrics, model_version=model_version
        )
        _LOG.info(
            "project=%s round=%d release=%s", active.project.id, active.round.number, model_version
        )
        return {"is_released": 1}

    def _save(self, made: RoundLabels, aggregated: Sequence[WeakLabel]) -> None:
        """Make a question's weak labels, label model and aggregated labels the project's."""
        project, question, labels = made.pool.project, made.question, self.stores.labels
        of_round = made.pool.matrices[question.name].select(lambda kind: kind.is_from_round)
        earlier = {
            label.annotator
            for label in labels.weak_labels(project)
            if label.question == question.name and label.annotator_kind.is_from_round
        }
        labels.replace(project, question.name, sorted(earlier), of_round.weak_labels(question))
        if made.state is not None:
            saved = self.ensemble.state(project)
            own = {question.name: made.state.label_model.get(question.name)}
            fitted = {**saved.label_model, **{name: one for name, one in own.items() if one}}
            state = replace(saved, label_model=fitted, n_human=made.state.n_human)
            self.ensemble.save_state(project, state)
        kept = [one for one in aggregated if one.question == question.name]
        labels.save(project, kept, [], tasks=made.pool.tasks)

    def _composed(self, first: ActiveRound, promoted: Sequence[_Outcome]) -> AggregatedPool:
        """Return the round's labels where they replace those served, which stay elsewhere.

        Where nothing is served yet, these are the round's labels, or the first annotators'. The
        posteriors of annotators are the round's, so that the queue uses the student's.
        """
        pool = self.aggregator.pool(first.project, has_round_labels=False)
        own = {outcome.made.question.name: outcome.made for outcome in promoted}
        for made in own.values():
            pool = pool.with_matrix(made.question, made.pool.matrices[made.question.name])
        base = self.ensemble.aggregate(pool)
        matrices = {**base.matrices, **{name: made.matrix for name, made in own.items()}}
        ids = pool.example_ids
        kept = {v.made.question.name: set(ids[v.change.is_kept].tolist()) for v in promoted}
        replaced = {v.made.question.name for v in promoted if v.change.is_any}
        return AggregatedPool.of(pool, matrices).keep(
            self._served(first.project),
            lambda label: (
                label.question not in replaced or label.example_id in kept[label.question]
            ),
        )

    def _decide(self, made: RoundLabels, challenger: LabelTable) -> GateDecision:
        """Compare held-out labels with those served, on people's labels or the student's."""
        pool, question, student = made.pool, made.question, made.student
        champion, people = self._champion(made), pool.human_table(question)
        has_both = champion.has_label & challenger.has_label
        judged = np.flatnonzero(has_both & people.has_label)
        rest = np.flatnonzero(has_both & ~people.has_label & student.has_label)
        recipe = made.active.recipe
        without_student = recipe.without_student(pool, question, made.table)
        return decide_promotion(
            _pair(champion, challenger, people, judged),
            _pair(champion, without_student, student, rest),
            rng=made.active.rng(0),
        )

    def _champion(self, made: RoundLabels) -> LabelTable:
        """Return the served labels, made without each text's human label.

        Before the first round these are the aggregated labels of the first annotators.
        """
        active, question, ids = made.active, made.question, made.pool.example_ids
        source = learned_from(self.stores, active.project, question)
        if LABELS_FROM in source:
            folder = self.context.folder / active.project.id / str(source[LABELS_FROM])
            stored = artifacts(folder, question).read(FINAL)
            if stored is not None:
                return stored_table(question, stored).align(ids)
        return active.recipe.without_human(made.pool, question, lambda kind: not kind.is_from_round)


def changed_shares(question: Question, files: RoundArtifacts, cycle: int) -> list[float]:
    """Return which share of the labels each cycle changed, the first against the targets."""
    first = files.read("train-0")
    tables = [] if first is None else [trained_table(question, first, "targets")]
    for number in range(1, cycle + 1):
        aggregated = files.read(f"{FUSED}-{number}")
        if aggregated is not None:
            tables.append(stored_table(question, aggregated))
    shares = []
    for old, new in pairwise(tables):
        before = old.align(new.ids)
        known = before.has_label & new.has_label
        shares.append(float(before.differs(new)[known].mean()) if known.any() else 0.0)
    return shares


def _student_of(active: ActiveRound) -> tuple[str, AnnotatorKind, str]:
    name, version = student_name(active.round.recipe), f"round {active.round.number}"
    return name, AnnotatorKind.STUDENT, version


def _pair(
    champion: LabelTable, challenger: LabelTable, truth: LabelTable, rows: NDArray[np.intp]
) -> PairedOutcomes | None:
    """Return which answers are right as a whole."""
    if len(rows) == 0:
        return None
    return PairedOutcomes(~champion.differs(truth)[rows], ~challenger.differs(truth)[rows])
