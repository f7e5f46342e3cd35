"""A round's end: aggregate its labels, compare them with those served, release if not worse."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.holdout import (
    LabelSource,
    estimate_accuracies,
    estimate_kappas,
    holdout_seed,
    in_holdout,
)
from backend.domain.labels import AnnotatorKind
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.domain.rounds import MAX_CHANGED, RoundState
from backend.evaluation.gate import GateDecision, PairedOutcomes, decide_promotion
from backend.evaluation.selective_prediction import accept_rule
from backend.evaluation.stopping import advise_on_rounds
from backend.label_model.labels_matrix import AGGREGATED, align_rows, has_label
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.pool import AggregatedPool, Pool, round_question
from backend.pipeline.release import LABELS_FROM, MODEL_FROM, RECIPE, ReleaseBuilder
from backend.pipeline.rounds.context import (
    STOPPED,
    ActiveRound,
    RoundArtifacts,
    RoundContext,
    student_name,
)
from backend.pipeline.rounds.train import with_relabeled
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_KIND, _KIND_REORDERED = "round", "round without better labels"
FINAL = "final"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _RoundLabels:
    """A cycle's labels before they are saved, the state to save with them, the student's (n, K)."""

    aggregated: AggregatedPool
    question: Question
    state: EnsembleState | None
    student: Floats


@dataclass(frozen=True)
class PromoteStep:
    """Does the steps `fuse` and `release`."""

    context: RoundContext
    aggregator: Aggregator
    ensemble: AnnotatorEnsemble
    releases: ReleaseBuilder
    stores: Stores

    def aggregate(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Aggregate this cycle's labels; a step. `is_stable`: no other cycle is worth it."""
        return self.context.run(project_id, lambda active: self._aggregate(active, cycle))

    def release(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Draft a release of the last cycle's labels unless it would be worse; a step."""
        return self.context.run(project_id, lambda active: self._release(active, cycle))

    def _aggregate(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        if not active.files.has(f"fused-{cycle}"):
            self.context.note(active, f"fuse {cycle}", cycle=cycle)
            made = self._labels(active, cycle)
            if made is None:
                return dict(STOPPED)
            ids = made.aggregated.pool.example_ids
            posteriors = made.aggregated.posteriors(made.question)
            active.files.write(f"fused-{cycle}", ids=ids, probabilities=posteriors)
        changed = changed_shares(active.files, cycle)
        max_rounds = 1 + self.context.plan.max_cycles
        advice = advise_on_rounds(changed, max_changed=MAX_CHANGED, max_rounds=max_rounds)
        is_stable = active.recipe.has_one_cycle or advice.is_converged
        return {"is_stable": int(is_stable), "changed_per_mille": round(1000 * changed[-1])}

    def _labels(self, active: ActiveRound, cycle: int) -> _RoundLabels | None:
        pool = self.aggregator.pool(active.project, has_round_labels=False)
        question = round_question(pool.guidelines.schema)
        trained = active.files.read(f"train-{cycle}")
        if question is None or trained is None:
            return None
        student = align_rows(trained["ids"], trained[active.recipe.student_key], pool.example_ids)
        pool = with_relabeled(pool, question, active.files, cycle)
        matrix = pool.matrices[question.name].with_annotator(
            student_name(active.round.recipe),
            student,
            AnnotatorKind.STUDENT,
            f"round {active.round.number}",
        )
        pool = pool.with_matrix(question, matrix)
        aggregated, state = active.recipe.aggregate(pool, question)
        return _RoundLabels(aggregated, question, state, student)

    def _release(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        released = self._released(active)
        if released is not None:
            return self._finish(active, *released)
        self.context.note(active, "release", cycle=cycle)
        made = self._labels(active, cycle)
        if made is None:
            return dict(STOPPED)
        held_out = active.recipe.held_out(made.aggregated, made.question)
        ids = made.aggregated.pool.example_ids
        active.files.write(FINAL, ids=ids, probabilities=held_out)
        decision = self._decide(active, made, held_out)
        is_better = decision.labels_may_replace
        metrics = self._measure(active, made, held_out, decision, cycle)
        if not decision.is_promoted:
            self.stores.rounds.finish(active.round, RoundState.REFUSED, metrics=metrics)
            _LOG.info("project=%s round=%d %s", active.project.id, active.round.number, decision)
            return {"is_released": 0}
        if is_better:
            self._save(active, made)
        draft = self.releases.draft(
            made.aggregated if is_better else self._with_served_labels(made),
            {
                "kind": _KIND if is_better else _KIND_REORDERED,
                "round": active.round.number,
                RECIPE: active.round.recipe,
                MODEL_FROM: [active.round.number, cycle],
                **({LABELS_FROM: active.round.number} if is_better else {}),
                "metrics": metrics,
            },
        )
        return self._finish(active, metrics, draft.model_version)

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

    def _save(self, active: ActiveRound, made: _RoundLabels) -> None:
        """Make the round's weak labels, label model and aggregated labels the project's."""
        project, labels = active.project, self.stores.labels
        matrix = made.aggregated.pool.matrices[made.question.name]
        earlier = {
            label.annotator
            for label in labels.weak_labels(project)
            if label.annotator_kind.is_from_round
        }
        of_round = matrix.select(lambda kind: kind.is_from_round).weak_labels(made.question)
        labels.replace(project, sorted(earlier), of_round)
        if made.state is not None:
            self.ensemble.save_state(project, made.state)
        labels.save(project, made.aggregated.labels, [])

    def _with_served_labels(self, made: _RoundLabels) -> AggregatedPool:
        """Return the labels that are served now; the round's own where there is none yet.

        The annotators' posteriors stay the round's, so that the queue uses the student's.
        """
        aggregated = made.aggregated
        stored = {
            (label.example_id, label.question): label
            for label in self.stores.labels.weak_labels(aggregated.pool.project)
            if label.annotator == AGGREGATED
        }
        labels = [
            replace(
                stored.get((label.example_id, label.question), label),
                annotator_posteriors=label.annotator_posteriors,
            )
            for label in aggregated.labels
        ]
        matrices = dict(aggregated.matrices)
        for q in aggregated.pool.questions:
            rows = [label.probabilities for label in labels if label.question == q.name]
            missing = (np.nan,) * len(q.labels)
            posteriors = np.array([row or missing for row in rows], dtype=np.float64)
            matrices[q.name] = replace(
                matrices[q.name], probabilities=posteriors.reshape(len(rows), len(q.labels))
            )
        return AggregatedPool(aggregated.pool, matrices, labels)

    def _measure(
        self,
        active: ActiveRound,
        made: _RoundLabels,
        held_out: Floats,
        decision: GateDecision,
        cycle: int,
    ) -> dict[str, Any]:
        pool, question = made.aggregated.pool, made.question
        matrix = pool.matrices[question.name]
        similarity = matrix.select(lambda kind: kind is AnnotatorKind.SIMILARITY).posteriors
        first = next(iter(similarity.values()), None)
        llm = matrix.combined(AnnotatorKind.LLM, AnnotatorKind.LLM_DEMONSTRATIONS)
        sources = {} if first is None else {"similarity": first}
        sources |= {"small-model": made.student, "llm": llm, AGGREGATED: held_out}
        of_question = [v for v in made.aggregated.labels if v.question == question.name]
        counts = Counter(label.source for label in of_question)
        return {
            **measure(pool, question, sources),
            "sources": dict(counts),
            "n_cycles": cycle,
            "changed": changed_shares(active.files, cycle),
            "gate": {
                "is_promoted": decision.is_promoted,
                "is_better": decision.labels_may_replace,
                "reason": decision.reason,
            },
            "gate_figures": dict(decision.figures),
        }

    def _decide(self, active: ActiveRound, made: _RoundLabels, challenger: Floats) -> GateDecision:
        """Compare held-out labels with those served, on people's labels or the student's."""
        pool, ids = made.aggregated.pool, made.aggregated.pool.example_ids
        human = pool.human[made.question.name]
        champion = self._champion(active, made)
        has_both = has_label(champion) & has_label(challenger)
        is_human = np.isin(ids, list(human))
        judged = np.flatnonzero(has_both & is_human)
        truth = np.array([human[int(ids[row])] for row in judged], dtype=np.int64)
        has_student = has_label(made.student)
        rest = np.flatnonzero(has_both & ~is_human & has_student)
        without_student = active.recipe.without_student(made.aggregated, made.question)
        return decide_promotion(
            _pair(champion[judged], challenger[judged], truth),
            _pair(champion[rest], without_student[rest], made.student[rest].argmax(axis=1)),
            rng=active.rng(0),
        )

    def _champion(self, active: ActiveRound, made: _RoundLabels) -> Floats:
        """Return the served posteriors (n, K), made without each text's human label.

        Before the first round these are the aggregated labels of the first annotators.
        """
        pool = made.aggregated.pool
        project = active.project
        provenance = self.stores.releases.provenance(project.id, project.model_version)
        if LABELS_FROM in provenance:
            files = self.context.files(project.id, int(provenance[LABELS_FROM]))
            stored = files.read(FINAL)
            if stored is not None:
                return align_rows(stored["ids"], stored["probabilities"], pool.example_ids)
        matrix = pool.matrices[made.question.name]
        first = matrix.select(lambda kind: not kind.is_from_round)
        return active.recipe.without_human(pool, made.question, first)


def changed_shares(files: RoundArtifacts, cycle: int) -> list[float]:
    """Return which share of the labels each cycle changed, the first against the targets."""
    first = files.read("train-0")
    labels = [] if first is None else [(first["ids"], first["targets"])]
    for number in range(1, cycle + 1):
        aggregated = files.read(f"fused-{number}")
        if aggregated is not None:
            labels.append((aggregated["ids"], aggregated["probabilities"]))
    shares = []
    for (old_ids, old), (new_ids, new) in pairwise(labels):
        before = align_rows(old_ids, old, new_ids)
        known = has_label(before) & has_label(new)
        is_changed = before[known].argmax(axis=1) != new[known].argmax(axis=1)
        shares.append(float(is_changed.mean()) if known.any() else 0.0)
    return shares


def _pair(champion: Floats, challenger: Floats, truth: NDArray[np.int64]) -> PairedOutcomes | None:
    if len(truth) == 0:
        return None
    return PairedOutcomes(champion.argmax(axis=1) == truth, challenger.argmax(axis=1) == truth)


def measure(
    pool: Pool, question: Question, sources: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Return the figures of a round, JSON-ready; without held-out human labels only counts.

    Args:
        sources: Posteriors (n, K) by name; the last is the round's own labels, held out, whose
            confidences stand for the texts without a human label.
    """
    human = pool.human[question.name]
    seed = holdout_seed(pool.project.id)
    row_of = {int(i): row for row, i in enumerate(pool.example_ids)}
    held_out = {
        row_of[i]: label for i, label in human.items() if i in row_of and in_holdout(i, seed=seed)
    }
    figures: dict[str, Any] = {
        "n_texts": len(pool.examples),
        "n_human": len(human),
        "n_audited": len(held_out),
    }
    if not held_out:
        return figures
    named = [LabelSource(name, np.nan_to_num(p, nan=0.0)) for name, p in sources.items()]
    own = named[-1]
    accuracies = estimate_accuracies(named, held_out, reference=own)
    kappas = estimate_kappas(named, held_out)
    rows = np.array(sorted(held_out), dtype=np.int64)
    truth = np.array([held_out[int(row)] for row in rows], dtype=np.int64)
    is_right = own.labels[rows] == truth
    return figures | {
        "accuracies": {name: asdict(found) for name, found in accuracies.items()},
        "kappas": {name: asdict(found) for name, found in kappas.items()},
        "accept": asdict(accept_rule(own.confidences[rows], is_right, own.confidences)),
    }
