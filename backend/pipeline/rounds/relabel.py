"""A round's refinement: demonstrations from what is clean, the LLM again on what is not."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.pool import (
    PoolEvidence,
    class_members,
    pool_size_per_class,
    select_pool,
    select_pool_paper,
)
from backend.demonstrations.retrieval import DemonstrationPool, Texts, retrieve, retrieve_paper
from backend.domain.labels import Answer, Demonstration, Example, PromptContext
from backend.domain.llm_usage import track_usage
from backend.domain.projects import ProjectId
from backend.domain.questions import Question
from backend.pipeline.aggregate import Aggregator, Pool
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.guidelines import Guidelines, GuidelinesReader
from backend.pipeline.rounds.artifacts import Arrays, aligned, rows_by_id
from backend.pipeline.rounds.context import SHOTS, ActiveRound, RoundContext, question_of
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_CLEAN_SHARE = 0.2
_PAPER_SHOTS = 10
_HOUR_S = 3600.0
_NOBODY = -1


class RelabelStep:
    """Does the steps `select` and `refine`."""

    def __init__(
        self,
        context: RoundContext,
        aggregator: Aggregator,
        ensemble: AnnotatorEnsemble,
        guidelines_reader: GuidelinesReader,
        stores: Stores,
    ) -> None:
        self._context = context
        self._aggregator = aggregator
        self._ensemble = ensemble
        self._guidelines_reader = guidelines_reader
        self._stores = stores

    def select(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Choose demonstrations and whom to ask again in this cycle, counted from 1; a step."""
        return self._context.run(project_id, lambda found: self._select(found, cycle))

    def refine(self, project_id: ProjectId, *, cycle: int) -> dict[str, int]:
        """Ask the LLM about the next chunk; a step. `is_done`: all were asked."""
        return self._context.run(project_id, lambda found: self._refine(found, cycle))

    def _select(self, found: ActiveRound, cycle: int) -> dict[str, int]:
        if found.files.has(f"shots-{cycle}"):
            return {"is_selected": 1}
        trained = found.files.read(f"train-{cycle - 1}")
        if trained is None:
            return {"is_stopped": 1}
        self._context.note(found, f"select {cycle}", cycle=cycle)
        pool = self._aggregator.pool(found.project)
        question = question_of(pool.guidelines.schema)
        if question is None:
            return {"is_stopped": 1}
        evidence = _evidence(found, pool, question, self._ensemble, trained)
        n_shots = _PAPER_SHOTS if found.is_paper else self._context.plan.n_shots
        demonstrations = _demonstrations(evidence, question, found, n_shots)
        asked = self._whom_to_ask(found, evidence)
        shots, order = _retrieved(
            _Wanted(found, pool, question, n_shots, cycle), evidence, demonstrations, asked
        )
        found.files.write(
            f"shots-{cycle}",
            asked=evidence.ids[asked][order],
            shots=shots[order],
            demonstrations=evidence.ids[demonstrations[0]],
            classes=demonstrations[1],
            is_human=evidence.is_human[demonstrations[0]],
        )
        return {"is_selected": 1, "n_demonstrations": len(demonstrations[0]), "n_asked": len(asked)}

    def _whom_to_ask(self, found: ActiveRound, evidence: _Evidence) -> NDArray[np.intp]:
        """Return the rows that are neither clean nor people's; the least sure if not all."""
        is_clean = np.zeros(len(evidence.ids), dtype=bool)
        for at in range(evidence.members.shape[1]):
            rows = np.flatnonzero(evidence.members[:, at])
            ranked = rows[np.argsort(evidence.losses[rows], kind="stable")]
            is_clean[ranked[: math.ceil(_CLEAN_SHARE * len(ranked))]] = True
        rows = np.flatnonzero(~is_clean & ~evidence.is_human)
        n_most = self._budget(found, len(evidence.ids))
        if len(rows) > n_most:
            surest_last = np.argsort(evidence.confidence[rows], kind="stable")
            rows = np.sort(rows[surest_last[:n_most]])
        return rows

    def _budget(self, found: ActiveRound, n_texts: int) -> int:
        """Return how many texts the LLM is asked about: all, a set share, or an hour's worth."""
        share = self._context.plan.llm_share
        if share is None:
            rate = self._stores.labels.progress(found.project).labels_per_s
            share = min(1.0, rate * _HOUR_S / n_texts) if rate > 0 and n_texts else 1.0
        if share < 1:
            _LOG.info("project=%s the LLM is asked about %.0f %%", found.project.id, 100 * share)
        return math.ceil(share * n_texts)

    def _refine(self, found: ActiveRound, cycle: int) -> dict[str, int]:
        selected = found.files.read(f"shots-{cycle}")
        if selected is None:
            return {"is_stopped": 1}
        if found.files.has(f"votes-{cycle}"):
            return {"n_labelled": 0, "is_done": 1}
        size, n_asked = self._context.plan.chunk, len(selected["asked"])
        n_chunks = -(-n_asked // size)
        number = next((i for i in range(n_chunks) if not found.files.has(_part(cycle, i))), None)
        if number is None:
            self._gather(found, cycle, n_chunks)
            return {"n_labelled": 0, "is_done": 1}
        start = number * size
        self._context.note(found, f"refine {cycle}", cycle=cycle, n_done=start, n_asked=n_asked)
        n_labelled = self._ask(found, selected, slice(start, start + size), _part(cycle, number))
        if number == n_chunks - 1:
            self._gather(found, cycle, n_chunks)
        return {"n_labelled": n_labelled, "is_done": int(number == n_chunks - 1)}

    def _ask(self, found: ActiveRound, selected: Arrays, chunk: slice, name: str) -> int:
        guidelines = self._guidelines_reader.read(found.project)
        question = question_of(guidelines.schema)
        if question is None:
            return 0
        examples = self._read(found, guidelines, selected["asked"][chunk])
        prompt_context = self._guide(found, guidelines, question, selected)
        with track_usage(found.project.id, f"round {found.round.number}"):
            answers = self._ensemble.ask(found.project, guidelines, examples, prompt_context)
        votes = [a for a in answers if a.question == question.name]
        unreachable = [a for a in votes if a.abstention and a.abstention.reason == "unreachable"]
        if unreachable and unreachable[0].abstention:
            raise OSError(f"the LLM did not answer: {unreachable[0].abstention.detail}")
        heard = [vote for vote in votes if len(vote.probabilities) == len(question.labels)]
        found.files.write(
            name,
            ids=np.array([vote.example_id for vote in heard], dtype=np.int64),
            probabilities=np.array(
                [vote.probabilities for vote in heard], dtype=np.float64
            ).reshape(len(heard), len(question.labels)),
            annotator=np.array(heard[0].annotator if heard else "llm"),
            version=np.array(heard[0].prompt_version if heard else ""),
            n_tokens=np.array(
                [sum(a.n_tokens_in for a in votes), sum(a.n_tokens_out for a in votes)]
            ),
        )
        return len(heard)

    def _read(
        self, found: ActiveRound, guidelines: Guidelines, ids: NDArray[np.int64]
    ) -> list[Example]:
        tasks = {t.id: t for t in self._stores.tasks.get(found.project.id, [int(i) for i in ids])}
        return self._guidelines_reader.examples(
            guidelines, [tasks[int(i)] for i in ids if int(i) in tasks]
        )

    def _guide(
        self, found: ActiveRound, guidelines: Guidelines, question: Question, selected: Arrays
    ) -> PromptContext:
        examples = {e.id: e for e in self._read(found, guidelines, selected["demonstrations"])}
        known = [
            _demonstration(question, examples.get(int(i)), int(at), is_human=bool(by_human))
            for i, at, by_human in zip(
                selected["demonstrations"], selected["classes"], selected["is_human"], strict=True
            )
        ]
        shots = {
            int(i): tuple(d for at in row if at != _NOBODY and (d := known[at]) is not None)
            for i, row in zip(selected["asked"], selected["shots"], strict=True)
        }
        return PromptContext(shots={question.name: shots})

    def _gather(self, found: ActiveRound, cycle: int, n_chunks: int) -> None:
        parts = [found.files.read(_part(cycle, i)) for i in range(n_chunks)]
        heard = [part for part in parts if part is not None]
        if not heard:
            return
        found.files.write(
            f"votes-{cycle}",
            ids=np.concatenate([part["ids"] for part in heard]),
            probabilities=np.concatenate([part["probabilities"] for part in heard]),
            annotator=np.array(f"{heard[0]['annotator']}{SHOTS}"),
            version=heard[0]["version"],
            n_tokens=np.sum([part["n_tokens"] for part in heard], axis=0),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What a cycle's training says, in the pool's present order."""

    ids: NDArray[np.int64]
    members: NDArray[np.bool_]
    losses: NDArray[np.float64]
    clean: NDArray[np.float64]
    confidence: NDArray[np.float64]
    is_human: NDArray[np.bool_]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Wanted:
    found: ActiveRound
    pool: Pool
    question: Question
    n_shots: int
    cycle: int


def _evidence(
    found: ActiveRound, pool: Pool, question: Question, ensemble: AnnotatorEnsemble, trained: Arrays
) -> _Evidence:
    """Judge each text's label by a model that did not see it; people's labels are their own.

    As published, the model that learned the labels judges them, and its embeddings are used.
    """
    ids = np.array([example.id for example in pool.examples], dtype=np.int64)
    targets = aligned(trained["ids"], trained["targets"], ids)
    key = "prediction" if found.is_paper else "cross_fitted"
    opinion = aligned(trained["ids"], trained[key], ids)
    clean = aligned(trained["ids"], trained["clean"][:, None], ids)[:, 0]
    has_both = np.isfinite(targets).all(axis=1) & np.isfinite(opinion).all(axis=1)
    human = {} if found.is_paper else pool.human[question.name]
    is_human = np.isin(ids, list(human))
    labels = np.nan_to_num(targets, nan=-1.0).argmax(axis=1)
    for row in np.flatnonzero(is_human):
        labels[row] = human[int(ids[row])]
    said = np.nan_to_num(opinion, nan=0.0)[np.arange(len(ids)), labels]
    agrees = has_both & (np.nan_to_num(opinion, nan=-1.0).argmax(axis=1) == labels)
    return _Evidence(
        ids,
        class_members(labels.astype(np.intp), agrees | is_human, len(question.labels)),
        -np.log(np.clip(said, 1e-12, 1.0)),
        np.where(is_human, 1.0, np.nan_to_num(clean, nan=0.0)),
        np.nan_to_num(targets, nan=0.0).max(axis=1),
        is_human,
        _vectors(found, pool, question, ensemble, trained),
    )


def _vectors(
    found: ActiveRound, pool: Pool, question: Question, ensemble: AnnotatorEnsemble, trained: Arrays
) -> NDArray[np.float32]:
    if not found.is_paper:
        return ensemble.vectors(question, pool.examples)
    ids = np.array([example.id for example in pool.examples], dtype=np.int64)
    rows, is_there = rows_by_id(trained["ids"], ids)
    vectors = np.asarray(trained["embeddings"][rows], dtype=np.float32)
    vectors[~is_there] = 0.0
    return vectors


def _demonstrations(
    evidence: _Evidence, question: Question, found: ActiveRound, n_shots: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the demonstrations' rows and classes."""
    known = PoolEvidence(
        evidence.members, evidence.losses, evidence.vectors, evidence.is_human, evidence.clean
    )
    chosen = (
        select_pool_paper(known)
        if found.is_paper
        else select_pool(known, pool_size_per_class(len(question.labels), n_shots))
    )
    classes = [np.full(len(rows), at, dtype=np.intp) for at, rows in enumerate(chosen)]
    return np.concatenate(chosen).astype(np.intp), np.concatenate(classes)


def _retrieved(
    wanted: _Wanted,
    evidence: _Evidence,
    demonstrations: tuple[NDArray[np.intp], NDArray[np.intp]],
    asked: NDArray[np.intp],
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return for each asked text its demonstrations' positions, padded with -1, and an order."""
    rows, classes = demonstrations
    texts = [example.text_of(wanted.question) for example in wanted.pool.examples]
    asked_texts = Texts(evidence.vectors[asked], _ids(evidence, asked), [texts[r] for r in asked])
    pool = DemonstrationPool(
        evidence.vectors[rows], classes, _ids(evidence, rows), [texts[r] for r in rows]
    )
    result = (
        retrieve_paper(asked_texts, pool, wanted.n_shots)
        if wanted.found.is_paper
        else retrieve(asked_texts, pool, wanted.n_shots, rng=wanted.found.rng(wanted.cycle))
    )
    width = max((len(row) for row in result.shots), default=0)
    shots = np.full((len(asked), width), _NOBODY, dtype=np.int64)
    for at, row in enumerate(result.shots):
        shots[at, : len(row)] = row
    return shots, result.order.astype(np.intp)


def _ids(evidence: _Evidence, rows: NDArray[np.intp]) -> Sequence[int]:
    return [int(i) for i in evidence.ids[rows]]


def _demonstration(
    question: Question, example: Example | None, label: int, *, is_human: bool
) -> Demonstration | None:
    if example is None:
        return None
    texts = {f.name: example.texts[f.name] for f in question.fields if f.name in example.texts}
    answer = Answer(labels=(question.labels[label].value,))
    return Demonstration(texts, answer, "human" if is_human else "weak", example.id)


def _part(cycle: int, number: int) -> str:
    return f"votes-{cycle}-{number}"
