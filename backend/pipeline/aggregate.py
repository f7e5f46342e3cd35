"""Look at a whole project at once: learn trust from all votes, fuse them, keep the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Example, WeakLabel
from backend.domain.projects import Project, Task
from backend.domain.questions import Question
from backend.label_model.crowd import Consensus
from backend.pipeline.ensemble import (
    MIN_TO_LEARN,
    AnnotatorEnsemble,
    EnsembleState,
    Human,
    HumanSets,
)
from backend.pipeline.guidelines import (
    Guidelines,
    GuidelinesReader,
    class_by_example,
    labels_by_example,
)
from backend.pipeline.labels_matrix import FUSED
from backend.store import Stores

_SAMPLE = 400
_GROWTH = 4


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A project's tasks as they stand: texts, what people say, what annotators voted.

    `examples` ascend by id; `tasks` and `examples` share their order.
    """

    project: Project
    guidelines: Guidelines
    tasks: Sequence[Task]
    examples: Sequence[Example]
    consensus: Mapping[str, Consensus]
    votes: Sequence[WeakLabel] = field(default=())

    @property
    def human(self) -> Human:
        """Return people's answers to exclusive questions, as class indices."""
        return {
            question.name: class_by_example(question, self.consensus[question.name])
            for question in self.guidelines.schema.questions
        }

    @property
    def human_sets(self) -> HumanSets:
        """Return people's answers to multiple choice, as positions of labels."""
        return {
            question.name: labels_by_example(question, self.consensus[question.name])
            for question in self.guidelines.schema.questions
        }

    @property
    def answered_ids(self) -> set[int]:
        """Return the tasks that people answered, in any question."""
        return {i for consensus in self.consensus.values() for i in consensus.labels}


@dataclass(frozen=True, slots=True, eq=False)
class AggregatedPool:
    """A pool with one verdict per example and question, in the pool's order."""

    pool: Pool
    labels_out: Sequence[WeakLabel]

    def of(self, question: Question) -> list[WeakLabel]:
        """Return the verdicts on one question, in the pool's order."""
        return [label_out for label_out in self.labels_out if label_out.question == question.name]

    def posteriors(self, question: Question) -> NDArray[np.float64]:
        """Return the verdicts' posteriors (n, K); NaN rows where there is none."""
        rows = np.full((len(self.pool.examples), len(question.labels)), np.nan)
        for at, label_out in enumerate(self.of(question)):
            if label_out.probabilities:
                rows[at] = label_out.probabilities
        return rows

    def heard(self, question: Question, source: str) -> NDArray[np.float64] | None:
        """Return the posteriors (n, K) of the annotator whose name begins with `source`.

        NaN rows where it said nothing; None when it said nothing at all.
        """
        rows = np.full((len(self.pool.examples), len(question.labels)), np.nan)
        for at, label_out in enumerate(self.of(question)):
            for name, posterior in label_out.votes.items():
                if name.startswith(source):
                    rows[at] = posterior
        return None if np.isnan(rows).all() else rows


class Aggregator:
    """Reads pools from the store and settles them."""

    def __init__(
        self,
        ensemble: AnnotatorEnsemble,
        guidelines_reader: GuidelinesReader,
        stores: Stores,
    ) -> None:
        self._ensemble = ensemble
        self._guidelines_reader = guidelines_reader
        self._stores = stores

    def sample(self, project: Project) -> Pool:
        """Return a pool of up to 400 tasks, evenly spread over the ids, with those of people."""
        ids = self._stores.tasks.ids(project.id)
        guidelines = self._guidelines_reader.read(project)
        consensus = self._guidelines_reader.people(project, guidelines)
        answered = sorted({i for found in consensus.values() for i in found.labels} & set(ids))
        spread = ids[:: max(1, -(-len(ids) // _SAMPLE))]
        tasks = self._stores.tasks.get(project.id, sorted({*answered[:_SAMPLE], *spread}))
        return Pool(
            project,
            guidelines,
            tasks,
            self._guidelines_reader.examples(guidelines, tasks),
            consensus,
        )

    def pool(self, project: Project) -> Pool:
        """Return the whole pool with all votes that are stored.

        Up to 400 tasks that people answered before any annotator have the votes of the study, so
        that these labels too teach trust and judge rounds.
        """
        guidelines = self._guidelines_reader.read(project)
        tasks = self._stores.tasks.get(project.id, self._stores.tasks.ids(project.id))
        votes = [v for v in self._stores.labels.weak_labels(project) if v.annotator != FUSED]
        unheard = {task.id for task in tasks} - {vote.example_id for vote in votes}
        early = [v for v in self._ensemble.early_votes(project) if v.example_id in unheard]
        return Pool(
            project,
            guidelines,
            tasks,
            self._guidelines_reader.examples(guidelines, tasks),
            self._guidelines_reader.people(project, guidelines),
            [*votes, *early],
        )

    def study_if_due(self, project: Project) -> bool:
        """Measure prompt forms and learn a first trust on a sample; return whether it was due.

        A pool of under 20 texts teaches nothing. While no form was measured, because the LLM was
        down, it stays due.
        Raises LanguageModelError.
        """
        n_tasks, found = len(self._stores.tasks.ids(project.id)), self._ensemble.findings(project)
        n_wanted = min(_SAMPLE, n_tasks)
        is_studied = bool(found.templates)
        if n_tasks < MIN_TO_LEARN or (is_studied and found.n_texts * _GROWTH > n_wanted):
            return False
        pool = self.sample(project)
        self._ensemble.fit_sample(project, pool.guidelines, pool.examples, pool.human)
        return True

    def aggregate(self, pool: Pool, *, extra_votes: Sequence[WeakLabel] = ()) -> AggregatedPool:
        """Learn trust from all votes and people's labels, fuse everything, keep the verdicts.

        `extra_votes` are those of a small model, cross-fitted.
        """
        votes = [*pool.votes, *extra_votes]
        self._ensemble.learn(
            pool.project, pool.guidelines, pool.examples, votes, pool.human, sets=pool.human_sets
        )
        labels_out = self._ensemble.fuse(
            pool.project, pool.guidelines, pool.examples, votes, pool.human
        )
        self._stores.labels.save(pool.project, labels_out, [])
        return AggregatedPool(pool, labels_out)

    def try_aggregate(
        self, pool: Pool, votes: Sequence[WeakLabel]
    ) -> tuple[AggregatedPool, EnsembleState]:
        """Settle a pool on these votes; neither the verdicts nor what was learned is kept."""
        learned = self._ensemble.learn(
            pool.project,
            pool.guidelines,
            pool.examples,
            votes,
            pool.human,
            sets=pool.human_sets,
            is_kept=False,
        )
        labels_out = self._ensemble.fuse(
            pool.project, pool.guidelines, pool.examples, votes, pool.human, found=learned
        )
        return AggregatedPool(pool, labels_out), learned
