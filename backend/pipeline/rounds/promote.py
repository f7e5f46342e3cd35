"""A round's end: fuse all voters, compare with what is served, release what is not worse."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import WeakLabel
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.domain.rounds import RoundState
from backend.evaluation.gate import GateDecision, PairedOutcomes, decide_promotion
from backend.evaluation.stopping import advise_on_rounds
from backend.pipeline.aggregate import AggregatedPool, Aggregator, Pool
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState, Human
from backend.pipeline.labels_matrix import FUSED
from backend.pipeline.release import LABELS_FROM, MODEL_FROM, RECIPE, ReleaseBuilder
from backend.pipeline.rounds.artifacts import aligned
from backend.pipeline.rounds.context import (
    SMALL_MODEL,
    ActiveRound,
    RoundContext,
    as_votes,
    is_derived,
    question_of,
)
from backend.pipeline.rounds.measure import HeldOut, Measured, held_out, measure
from backend.pipeline.rounds.train import annotator_outputs, llm_posteriors
from backend.store import Stores

_LOG = logging.getLogger(__name__)
ROUND_RELEASE = "round"
REORDERED = "round without better labels"
FINAL = "final"


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A pool's verdicts with the votes that they were made from, before anybody sees them."""

    aggregated: AggregatedPool
    found: EnsembleState
    question: Question
    votes: Sequence[WeakLabel]
    small_model: NDArray[np.float64]

    @property
    def posteriors(self) -> NDArray[np.float64]:
        """Return the verdicts' posteriors (n, K), people's labels as 0 and 1."""
        return self.aggregated.posteriors(self.question)


class PromoteStep:
    """Does the steps `fuse` and `release`."""

    def __init__(
        self,
        context: RoundContext,
        aggregator: Aggregator,
        ensemble: AnnotatorEnsemble,
        releaser: ReleaseBuilder,
        stores: Stores,
    ) -> None:
        self._context = context
        self._aggregator = aggregator
        self._ensemble = ensemble
        self._releaser = releaser
        self._stores = stores

    def fuse(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Fuse this cycle's votes; a step. `is_stable`: another cycle is not expected to pay."""
        return self._context.run(project_id, lambda found: self._fuse(found, cycle))

    def release(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Draft a release of the last cycle's verdicts unless it would be worse; a step."""
        return self._context.run(project_id, lambda found: self._release(found, cycle))

    def _fuse(self, found: ActiveRound, cycle: int) -> dict[str, int]:
        if not found.files.has(f"fused-{cycle}"):
            self._context.note(found, f"fuse {cycle}", cycle=cycle)
            fused = self._fused(found, cycle)
            if fused is None:
                return {"is_stopped": 1}
            ids = _ids(fused.aggregated.pool)
            found.files.write(f"fused-{cycle}", ids=ids, probabilities=fused.posteriors)
        changed = changed_shares(found, cycle)
        plan = self._context.plan
        advice = advise_on_rounds(changed, max_changed=plan.max_changed, max_rounds=1 + plan.limit)
        is_stable = found.is_paper or advice.is_converged
        return {"is_stable": int(is_stable), "changed_per_mille": round(1000 * changed[-1])}

    def _fused(self, found: ActiveRound, cycle: int) -> Fused | None:
        pool = self._aggregator.pool(found.project)
        question = question_of(pool.guidelines.schema)
        trained = found.files.read(f"train-{cycle}")
        if question is None or trained is None:
            return None
        ids = _ids(pool)
        key = "prediction" if found.is_paper else "cross_fitted"
        small_model = aligned(trained["ids"], trained[key], ids)
        name = f"{SMALL_MODEL}{found.round.recipe}"
        votes = annotator_outputs(pool, question, found.files, cycle)
        votes = votes + as_votes(
            ids, small_model, question, name, version=f"round {found.round.number}"
        )
        pool = replace(pool, votes=votes)
        if not found.is_paper:
            aggregated, learned = self._aggregator.try_aggregate(pool, votes)
            return Fused(aggregated, learned, question, votes, small_model)
        learned = self._ensemble.findings(found.project)
        labels_out = self._ensemble.fuse(
            found.project, pool.guidelines, pool.examples, votes, pool.human, found=learned
        )
        published = _published_verdicts(labels_out, question, small_model, name)
        return Fused(AggregatedPool(pool, published), learned, question, votes, small_model)

    def _release(self, found: ActiveRound, cycle: int) -> dict[str, int]:
        pending = self._stores.releases.pending(found.project)
        if pending is not None:
            made_from = self._stores.releases.provenance(found.project.id, pending.model_version)
            if made_from.get("round") == found.round.number:
                metrics = made_from.get("metrics", {})
                return self._finish(found, metrics, pending.model_version)
        self._context.note(found, "release", cycle=cycle)
        fused = self._fused(found, cycle)
        if fused is None:
            return {"is_stopped": 1}
        measured = self._measure(found, fused)
        decision = self._judge(found, fused, measured)
        metrics = {
            **measured.figures,
            "sources": dict(Counter(v.prompt_version for v in fused.aggregated.of(fused.question))),
            "n_cycles": cycle,
            "changed": changed_shares(found, cycle),
            "gate": {
                "is_promoted": decision.is_promoted,
                "is_better": decision.labels_may_replace,
                "reason": decision.reason,
            },
            "gate_figures": dict(decision.figures),
        }
        if not decision.is_promoted:
            self._context.finish(found, RoundState.REFUSED, metrics=metrics)
            _LOG.info("project=%s round=%d %s", found.project.id, found.round.number, decision)
            return {"is_released": 0}
        is_better = decision.labels_may_replace
        if is_better:
            self._keep(found, fused)
        draft = self._releaser.release(
            fused.aggregated if is_better else self._served(found, fused),
            {
                "kind": ROUND_RELEASE if is_better else REORDERED,
                "round": found.round.number,
                RECIPE: found.round.recipe,
                MODEL_FROM: [found.round.number, cycle],
                **({LABELS_FROM: found.round.number} if is_better else {}),
                "metrics": metrics,
            },
        )
        return self._finish(found, metrics, draft.model_version)

    def _finish(
        self, found: ActiveRound, metrics: Mapping[str, Any], model_version: str
    ) -> dict[str, int]:
        self._context.finish(
            found, RoundState.RELEASED, metrics=metrics, model_version=model_version
        )
        _LOG.info(
            "project=%s round=%d release=%s", found.project.id, found.round.number, model_version
        )
        return {"is_released": 1}

    def _keep(self, found: ActiveRound, fused: Fused) -> None:
        """Make the round's votes, trust and verdicts the project's."""
        derived = [vote for vote in fused.votes if is_derived(vote.annotator)]
        earlier = {v.annotator for v in self._stores.labels.weak_labels(found.project)}
        self._stores.labels.replace(
            found.project, sorted(name for name in earlier if is_derived(name)), derived
        )
        if not found.is_paper:
            self._ensemble.keep(found.project, fused.found)
        self._stores.labels.save(found.project, fused.aggregated.labels_out, [])

    def _served(self, found: ActiveRound, fused: Fused) -> AggregatedPool:
        """Return the verdicts that are served now; the round's own where there is none yet.

        They carry the round's votes, so that the queue hears the small model.
        """
        stored = {
            (vote.example_id, vote.question): vote
            for vote in self._stores.labels.weak_labels(found.project)
            if vote.annotator == FUSED
        }
        labels_out = [
            replace(stored.get((v.example_id, v.question), v), votes=v.votes)
            for v in fused.aggregated.labels_out
        ]
        return replace(fused.aggregated, labels_out=labels_out)

    def _measure(self, found: ActiveRound, fused: Fused) -> Measured:
        """Measure on people's labels; each text's verdict is made without its own label."""
        pool, question = fused.aggregated.pool, fused.question
        if found.is_paper:
            apart = HeldOut(_ids(pool), fused.posteriors)
        else:
            apart = held_out(self._ensemble, pool, question, fused.votes, fused.posteriors)
        found.files.write(FINAL, ids=apart.ids, probabilities=apart.probabilities)
        llm = llm_posteriors(pool, question, fused.votes)
        others = {"small-model": fused.small_model, "llm": llm}
        return measure(pool, question, fused.votes, apart, others)

    def _judge(self, found: ActiveRound, fused: Fused, measured: Measured) -> GateDecision:
        pool, question = fused.aggregated.pool, fused.question
        champion = self._champion(found, fused)
        challenger = measured.fused.probabilities
        human = pool.human[question.name]
        ids = measured.fused.ids
        both = np.isfinite(champion).all(axis=1) & np.isfinite(challenger).all(axis=1)
        is_human = np.isin(ids, list(human))
        judged = np.flatnonzero(both & is_human)
        truth = np.array([human[int(ids[row])] for row in judged], dtype=np.int64)
        unasked = challenger if found.is_paper else self._unasked(found, fused)
        rest = np.flatnonzero(both & ~is_human & np.isfinite(fused.small_model).all(axis=1))
        opinion = fused.small_model[rest].argmax(axis=1)
        return decide_promotion(
            _pair(champion[judged], challenger[judged], truth),
            _pair(champion[rest], unasked[rest], opinion),
            rng=found.rng(0),
        )

    def _unasked(self, found: ActiveRound, fused: Fused) -> NDArray[np.float64]:
        """Return the verdicts as they would be without the small model and without people.

        Where the small model's opinion is the judge, its own vote must not be in what is judged.
        """
        votes = [v for v in fused.votes if not v.annotator.startswith(SMALL_MODEL)]
        return self._verdicts_of(found, fused, votes)

    def _champion(self, found: ActiveRound, fused: Fused) -> NDArray[np.float64]:
        """Return what the served release says of each text, made without its human label.

        Before the first round that is the jury's verdict on the first votes.
        """
        pool = fused.aggregated.pool
        ids = _ids(pool)
        made_from = self._stores.releases.provenance(found.project.id, found.project.model_version)
        if LABELS_FROM in made_from:
            files = self._context.files(found.project.id, int(made_from[LABELS_FROM]))
            stored = files.read(FINAL)
            if stored is not None:
                return aligned(stored["ids"], stored["probabilities"], ids)
        first = [vote for vote in fused.votes if not is_derived(vote.annotator)]
        return self._verdicts_of(found, fused, first)

    def _verdicts_of(
        self, found: ActiveRound, fused: Fused, votes: Sequence[WeakLabel]
    ) -> NDArray[np.float64]:
        """Return what some of the votes come to, people left out."""
        pool, question = fused.aggregated.pool, fused.question
        nobody: Human = {name: {} for name in pool.human}
        learned = self._ensemble.learn(
            found.project, pool.guidelines, pool.examples, votes, nobody, is_kept=False
        )
        labels_out = self._ensemble.fuse(
            found.project, pool.guidelines, pool.examples, votes, nobody, found=learned
        )
        return AggregatedPool(pool, labels_out).posteriors(question)


def changed_shares(found: ActiveRound, cycle: int) -> list[float]:
    """Return which share of the labels each cycle changed, the first against the jury's."""
    first = found.files.read("train-0")
    labels = [] if first is None else [(first["ids"], first["targets"])]
    for number in range(1, cycle + 1):
        fused = found.files.read(f"fused-{number}")
        if fused is not None:
            labels.append((fused["ids"], fused["probabilities"]))
    return [_changed(*before, *after) for before, after in zip(labels, labels[1:], strict=False)]


def _changed(
    old_ids: NDArray[np.int64],
    old: NDArray[np.float64],
    new_ids: NDArray[np.int64],
    new: NDArray[np.float64],
) -> float:
    before = aligned(old_ids, old, new_ids)
    known = np.isfinite(before).all(axis=1) & np.isfinite(new).all(axis=1)
    if not known.any():
        return 0.0
    return float((before[known].argmax(axis=1) != new[known].argmax(axis=1)).mean())


def _ids(pool: Pool) -> NDArray[np.int64]:
    return np.array([example.id for example in pool.examples], dtype=np.int64)


def _pair(
    champion: NDArray[np.float64], challenger: NDArray[np.float64], truth: NDArray[np.int64]
) -> PairedOutcomes | None:
    if len(truth) == 0:
        return None
    return PairedOutcomes(champion.argmax(axis=1) == truth, challenger.argmax(axis=1) == truth)


def _published_verdicts(
    labels_out: Sequence[WeakLabel],
    question: Question,
    small_model: NDArray[np.float64],
    name: str,
) -> list[WeakLabel]:
    """Return the small model's answers as verdicts, as FreeAL ends."""
    answers = iter(small_model)
    published = []
    for label_out in labels_out:
        row = next(answers) if label_out.question == question.name else None
        if row is not None and np.isfinite(row).all():
            given = tuple(row.tolist())
            label_out = WeakLabel(
                label_out.example_id, question.name, FUSED, name, given, votes={name: given}
            )
        published.append(label_out)
    return published
