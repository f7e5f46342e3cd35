"""A round's relabeling: demonstrations from clean labels, the LLM again on the other texts."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.pool_selection import PoolEvidence, class_members
from backend.demonstrations.retrieval import DemonstrationPool, Texts
from backend.domain.labels import AbstentionReason, Demonstration, PromptContext
from backend.domain.llm_usage import track_usage
from backend.domain.projects import Project, ProjectId, Task
from backend.domain.questions import Question
from backend.label_model.label_tables import (
    LabelTable,
    answer_of,
    given_table,
    read_table,
    representative_classes,
    stored_table,
)
from backend.label_model.labels_matrix import align_rows
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Guidelines, GuidelinesReader, Pool
from backend.pipeline.rounds.context import (
    DIGESTS,
    STOPPED,
    ActiveRound,
    Arrays,
    RoundContext,
    Turn,
    has_other_text,
    text_digests,
)
from backend.pipeline.rounds.students import trained_table
from backend.pipeline.rounds.train import with_votes
from backend.pipeline.rounds.trial import try_demonstrations
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_CLEAN_SHARE = 0.2
_HOUR_S = 3600.0
_NO_SHOT = -1
_SUFFIX = "+shots"
"""Ends the name of an LLM that is prompted with in-context examples."""


@dataclass(frozen=True)
class RelabelStep:
    """Does the steps `select` and `refine`."""

    context: RoundContext
    aggregator: Aggregator
    ensemble: AnnotatorEnsemble
    guidelines: GuidelinesReader
    stores: Stores

    def select(self, project_id: ProjectId, *, turn: Turn) -> dict[str, int]:
        """Select demonstrations and the texts to relabel in this cycle, counted from 1; a step."""
        return self.context.run(
            project_id, turn.question, lambda active: self._select(active, turn.cycle)
        )

    def relabel(self, project_id: ProjectId, *, turn: Turn) -> dict[str, int]:
        """Ask the LLM about the next chunk; a step. `is_done`: all were asked."""
        return self.context.run(
            project_id, turn.question, lambda active: self._relabel(active, turn.cycle)
        )

    def _select(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        if active.files.has(f"shots-{cycle}"):
            return {"is_selected": 1}
        trained = active.files.read(f"train-{cycle - 1}")
        if trained is None:
            return dict(STOPPED)
        self.context.note(active, f"select {cycle}", cycle=cycle)
        pool, question = (
            self.aggregator.pool(active.project, has_round_labels=False),
            active.question,
        )
        evidence = _evidence(active, pool, trained)
        of_pool = evidence.of_pool
        asked = self._rows_to_ask(active.project, evidence)
        n_shots = active.recipe.n_shots or self.context.plan.n_shots
        by_class = active.recipe.select_demonstrations(of_pool, n_shots)
        rows = np.concatenate(by_class).astype(np.intp)
        classes = np.repeat(np.arange(len(by_class)), [len(found) for found in by_class])
        ids, texts = _texts_of(pool, question, rows)
        retrieval = active.recipe.retrieve(
            Texts(of_pool.embeddings[asked], *_texts_of(pool, question, asked)),
            DemonstrationPool(of_pool.embeddings[rows], classes, ids, texts),
            n_shots,
            active.rng(cycle),
        )
        order = retrieval.order.astype(np.intp)
        answers = evidence.answers.align(pool.example_ids[rows])
        active.files.write(
            f"shots-{cycle}",
            asked=pool.example_ids[asked][order],
            shots=_padded(retrieval.shots)[order],
            demonstrations=pool.example_ids[rows],
            answers=answers.content,
            is_human=evidence.is_human[rows],
            digests=text_digests(pool.example_ids[rows], pool.tasks),
        )
        return {"is_selected": 1, "n_demonstrations": len(rows), "n_asked": len(asked)}

    def _rows_to_ask(self, project: Project, evidence: _Evidence) -> NDArray[np.intp]:
        """Return the rows that are shown, not clean and not people's.

        The LLM is asked about all, or about the least certain ones: a set share of the pool, or an
        hour's worth.
        """
        is_clean, of_pool = evidence.is_human.copy(), evidence.of_pool
        n_texts = len(is_clean)
        for at in range(of_pool.is_candidate.shape[1]):
            ranked = of_pool.ranked(at)
            is_clean[ranked[: math.ceil(_CLEAN_SHARE * len(ranked))]] = True
        rows = np.flatnonzero(~is_clean & evidence.is_shown)
        share = self.context.plan.llm_share
        if share is None:
            rate = self.stores.labels.progress(project).labels_per_s
            share = min(1.0, rate * _HOUR_S / n_texts) if rate > 0 and n_texts else 1.0
        if share < 1:
            _LOG.info("project=%s the LLM is asked about %.0f %%", project.id, 100 * share)
        n_max = math.ceil(share * n_texts)
        if len(rows) > n_max:
            order = np.argsort(evidence.confidence[rows], kind="stable")
            rows = np.sort(rows[order[:n_max]])
        return rows

    def _relabel(self, active: ActiveRound, cycle: int) -> dict[str, int]:
        selected = active.files.read(f"shots-{cycle}")
        if selected is None:
            return dict(STOPPED)
        if active.files.has(f"votes-{cycle}"):
            return {"n_labelled": 0, "is_done": 1}
        if active.files.trial(cycle) is not None:
            return {"n_labelled": 0, "is_stable": 1}
        size, n_asked = self.context.plan.chunk, len(selected["asked"])
        parts = [f"votes-{cycle}-{number}" for number in range(-(-n_asked // size))]
        number = next((i for i, part in enumerate(parts) if not active.files.has(part)), None)
        n_labeled = 0
        if number is not None:
            start = number * size
            self.context.note(active, f"refine {cycle}", cycle=cycle, n_done=start, n_asked=n_asked)
            chunk = slice(start, start + size)
            n_labeled = self._ask(active, selected, chunk, parts[number])
        is_done = number is None or number == len(parts) - 1
        if (is_done or number == 0) and self._leaves_out(active, cycle, parts):
            return {"n_labelled": n_labeled, "is_stable": 1}
        if is_done:
            _write_joined(active, parts, f"votes-{cycle}")
        return {"n_labelled": n_labeled, "is_done": int(is_done)}

    def _leaves_out(self, active: ActiveRound, cycle: int, parts: Sequence[str]) -> bool:
        """Leave the answers out if demonstrations make them worse, and keep why; return whether.

        The round then ends with what the cycles before have learned.
        """
        votes = _joined(active, parts)
        if votes is None or not active.recipe.tries_demonstrations:
            return False
        trial = try_demonstrations(
            self.ensemble, with_votes(self.aggregator, active, votes), active.question
        )
        if trial is None or not trial.is_harmful:
            return False
        active.files.write_trial(cycle, trial)
        return True

    def _ask(self, active: ActiveRound, selected: Arrays, chunk: slice, name: str) -> int:
        project, question = active.project, active.question
        guidelines = self.guidelines.read(project).restrict(question)
        tasks = self._tasks(project, selected["asked"][chunk])
        examples = self.guidelines.examples(guidelines, tasks)
        shots = self._shots(project, guidelines, question, selected)
        context = PromptContext(shots={question.name: shots})
        with track_usage(project.id, f"round {active.round.number}"):
            labels = self.ensemble.label_with_demonstrations(project, guidelines, examples, context)
        for label in labels:
            if label.abstention and label.abstention.reason is AbstentionReason.UNREACHABLE:
                raise OSError(f"the LLM did not answer: {label.abstention.detail}")
        given = given_table(question, labels)
        first = next((label for label in labels if label.abstention is None), None)
        tokens = [sum(a.n_tokens_in for a in labels), sum(a.n_tokens_out for a in labels)]
        active.files.write(
            name,
            **given.arrays,
            digests=text_digests(given.ids, tasks),
            annotator=np.array(first.annotator if first else "llm"),
            version=np.array(first.prompt_version if first else ""),
            n_tokens=np.array(tokens),
        )
        return len(given.ids)

    def _tasks(self, project: Project, ids: NDArray[np.int64]) -> list[Task]:
        tasks = {t.id: t for t in self.stores.tasks.get(project.id, [int(i) for i in ids])}
        return [tasks[int(i)] for i in ids if int(i) in tasks]

    def _shots(
        self, project: Project, guidelines: Guidelines, question: Question, selected: Arrays
    ) -> dict[int, tuple[Demonstration, ...]]:
        """Return the in-context examples by id of the asked text; of edited texts none."""
        ids, is_human = selected["demonstrations"], selected["is_human"]
        tasks = self._tasks(project, ids)
        is_same = text_digests(ids, tasks) == selected.get(DIGESTS, text_digests(ids, tasks))
        same = set(ids[is_same].tolist())
        read = self.guidelines.examples(guidelines, [task for task in tasks if task.id in same])
        examples = {example.id: example for example in read}
        answers = read_table(question, ids, selected["answers"]).parts
        known: dict[int, Demonstration] = {}
        for at, example in enumerate(examples.get(int(i)) for i in ids):
            if example is not None:
                names = [f.name for f in question.fields if f.name in example.texts]
                texts = {name: example.texts[name] for name in names}
                source: Literal["human", "weak"] = "human" if is_human[at] else "weak"
                answer = answer_of(question, answers[at])
                known[at] = Demonstration(texts, answer, source, example.id)
        return {
            int(i): tuple(known[at] for at in row if at in known)
            for i, row in zip(selected["asked"], selected["shots"], strict=True)
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What is known of each label before demonstrations are selected, of n texts.

    `answers` are the labels that a text would demonstrate; `confidence` (n,) is that of the labels
    that the student learned; `is_shown` (n,): the question is asked about the text.
    """

    of_pool: PoolEvidence
    answers: LabelTable
    is_human: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    is_shown: NDArray[np.bool_]


def _evidence(active: ActiveRound, pool: Pool, trained: Arrays) -> _Evidence:
    """Compare each text's label with the student's; people's labels are their own.

    By default the student is one that did not see the label; as published, the one that learned it.
    """
    question, recipe, ids = active.question, active.recipe, pool.example_ids
    is_other = has_other_text(trained, pool)
    targets = trained_table(question, trained, "targets").align(ids).without(is_other)
    student = trained_table(question, trained, recipe.student_key).align(ids).without(is_other)
    quality = align_rows(trained["ids"], trained["clean"][:, None], ids)[:, 0]
    people = pool.human_table(question)
    is_human = people.has_label & recipe.learns_from_people
    answers = targets.overlay(is_human, people)
    agrees = targets.has_label & student.has_label & ~answers.differs(student)
    classes, n_classes = representative_classes(question, answers)
    of_pool = PoolEvidence(
        is_candidate=class_members(classes, agrees | is_human, n_classes),
        losses=student.losses(answers),
        embeddings=recipe.embeddings(pool, question, trained),
        is_human=is_human,
        label_quality_score=np.where(is_human, 1.0, np.nan_to_num(quality, nan=0.0)),
    )
    return _Evidence(of_pool, answers, is_human, targets.confidences, pool.is_shown(question))


def _texts_of(
    pool: Pool, question: Question, rows: NDArray[np.intp]
) -> tuple[list[int], list[str]]:
    examples = [pool.examples[row] for row in rows]
    return [example.id for example in examples], [e.text_of(question) for e in examples]


def _padded(shots: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return positions as an array (n, most shots), padded with -1."""
    width = max((len(row) for row in shots), default=0)
    padded = np.full((len(shots), width), _NO_SHOT, dtype=np.int64)
    for at, row in enumerate(shots):
        padded[at, : len(row)] = row
    return padded


def _digests(part: Arrays) -> NDArray[np.str_]:
    """Return a part's digests; of one that an earlier version has written, empty ones."""
    return part.get(DIGESTS, np.full(len(part["ids"]), "", dtype=np.str_))


def _write_joined(active: ActiveRound, parts: Sequence[str], name: str) -> None:
    """Write the labels of all chunks as one file."""
    joined = _joined(active, parts)
    if joined is not None:
        active.files.write(name, **joined)


def _joined(active: ActiveRound, parts: Sequence[str]) -> Arrays | None:
    """Return the labels of the chunks that are there; None without any."""
    read = [part for part in map(active.files.read, parts) if part is not None]
    if not read:
        return None
    tables = [stored_table(active.question, part) for part in read]
    return {
        **reduce(lambda one, other: one.append(other), tables).arrays,
        "digests": np.concatenate([_digests(part) for part in read]),
        "annotator": np.array(f"{read[0]['annotator']}{_SUFFIX}"),
        "version": read[0]["version"],
        "n_tokens": np.sum([part["n_tokens"] for part in read], axis=0),
    }
