"""Aggregate the labels of a whole project: read its pool, fit the label model, save the labels."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from backend.domain.labels import AnnotatorKind, WeakLabel
from backend.domain.projects import Project
from backend.domain.questions import Question
from backend.label_model.label_tables import aggregated_table, given_table
from backend.label_model.labels_matrix import AGGREGATED
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import MIN_TEXTS, N_SAMPLED, AggregatedPool, GuidelinesReader, Pool
from backend.store import Stores

_GROWTH = 4
_EMBED_SLICE = 512


@dataclass(frozen=True)
class Aggregator:
    """Reads pools from the store and aggregates their labels."""

    ensemble: AnnotatorEnsemble
    guidelines: GuidelinesReader
    stores: Stores

    def pool(self, project: Project, *, has_round_labels: bool = True) -> Pool:
        """Return the whole pool with its weak labels, those that rounds made on demand.

        Up to 400 tasks that people answered before any annotator have the labels of `fit_sample`,
        so that these answers too teach the label model and evaluate rounds.
        """
        pool = self.guidelines.pool(project)
        labels = [
            label
            for label in self.stores.labels.weak_labels(project)
            if label.annotator_kind is not AnnotatorKind.AGGREGATED
        ]
        labeled = {label.example_id for label in labels}
        early = self.ensemble.early_weak_labels(project)
        ids = {task.id for task in pool.tasks} - labeled
        labels += [label for label in early if label.example_id in ids]
        if not has_round_labels:
            labels = [label for label in labels if not label.annotator_kind.is_from_round]
        return pool.with_weak_labels(labels)

    def preview(self, project: Project, *, embed_s: float) -> tuple[AggregatedPool, list[int]]:
        """Aggregate the labels that there are, while more are being made; nothing is saved.

        Similarity answers for tasks that no chunk has labeled yet. Texts are embedded in a random
        order for at most `embed_s` seconds; the ids of the others are returned apart.
        """
        pool = self.guidelines.pool(project)
        unread = _embed_within(self.ensemble, pool, embed_s)
        pool = pool.select([at for at, e in enumerate(pool.examples) if e.id not in unread])
        labels = self.stores.labels.weak_labels(project)
        given = {v.example_id for v in labels if v.annotator_kind is AnnotatorKind.SIMILARITY}
        others = [example for example in pool.examples if example.id not in given]
        labels += self.ensemble.label_by_similarity(project, pool.guidelines, others)
        pool = pool.with_weak_labels(labels)
        state = self.ensemble.fit(pool, is_saved=False)
        return self.ensemble.aggregate(pool, state), sorted(unread)

    def is_sample_due(self, project: Project) -> bool:
        """Return whether no sample is fitted yet, or the pool is fourfold since.

        A pool of under 20 texts teaches nothing. It stays due while no prompt template could be
        selected, because the LLM was down.
        """
        (n_tasks, _), state = self.stores.tasks.counts(project.id), self.ensemble.state(project)
        is_grown = state.n_texts * _GROWTH <= min(N_SAMPLED, n_tasks)
        return n_tasks >= MIN_TEXTS and (is_grown or not state.templates)

    def fit_sample_if_due(self, project: Project) -> bool:
        """Fit the ensemble on a sample if due; return whether. Raises LanguageModelError."""
        if not self.is_sample_due(project):
            return False
        self.ensemble.fit_sample(self.guidelines.pool(project, is_sample=True))
        return True

    def aggregate(self, project: Project, *, decided: Collection[str] = ()) -> AggregatedPool:
        """Fit the label model to all labels of a project, aggregate them, and save both.

        Args:
            project: the project.
            decided: questions whose served labels a round decided about: they change in the next
                round or by people's answers, not because the label model was fitted again.
        """
        pool = self.pool(project)
        self.ensemble.fit(pool)
        aggregated = self.ensemble.aggregate(pool)
        served = self.stores.labels.weak_labels(project, annotator=AGGREGATED)
        kept = {
            q.name: _changed_ids(aggregated, q, served) for q in pool.questions if q.name in decided
        }
        aggregated = aggregated.keep(
            served, lambda label: label.example_id in kept.get(label.question, ())
        )
        self.stores.labels.save(project, aggregated.labels, [], tasks=pool.tasks)
        return aggregated


def _embed_within(ensemble: AnnotatorEnsemble, pool: Pool, seconds: float) -> set[int]:
    """Embed the pool's texts, in a random order, until time is up; return the ids left out.

    Vectors are kept, so that a later call goes on where this one ends.
    """
    ends_at = time.monotonic() + seconds
    order = np.random.default_rng(0).permutation(len(pool.examples))
    for start in range(0, len(order), _EMBED_SLICE):
        if start and time.monotonic() > ends_at:
            return {pool.examples[at].id for at in order[start:]}
        some = [pool.examples[at] for at in order[start : start + _EMBED_SLICE]]
        for question in pool.questions:
            ensemble.embed(question, some)
    return set()


def _changed_ids(
    aggregated: AggregatedPool, question: Question, served: Sequence[WeakLabel]
) -> set[int]:
    """Return the examples without an answer by people whose label is not the served one."""
    pool = aggregated.pool
    ids = pool.example_ids
    found = aggregated_table(question, ids, aggregated.matrices[question.name])
    differs = given_table(question, served).align(ids).differs(found)
    return set(ids[differs & ~pool.human_table(question).has_label].tolist())
