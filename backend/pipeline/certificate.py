"""Certify labels on the random holdout's answers: how many may be accepted, from which confidence.

The holdout's answers teach and choose nothing (`Pool.held_out`), so they may certify all labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.decisions import answer_confidence, answer_value, given_value
from backend.domain.holdout import holdout_order, holdout_seed
from backend.domain.labels import AbstentionReason, Region, WeakLabel, region_values
from backend.domain.projects import CERTIFICATE, Project
from backend.domain.questions import Question
from backend.errors import UnsupportedLabelConfig
from backend.evaluation.selective_prediction import (
    AcceptRule,
    CheckedLabels,
    accept_rule,
    expected_accepted,
)
from backend.label_model.labels_matrix import AGGREGATED
from backend.pipeline.pool import GuidelinesReader
from backend.store import Stores

MAX_ERROR = 0.05
"""The error rate at which labels are shown as certified where nobody has chosen one."""
ERROR_RATES = (0.01, 0.02, MAX_ERROR, 0.10)
DELTA = 0.05
_MORE = (50, 100)
_N_NEXT = 20
_HUMAN = "human"
_MIN_AGE_S = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Certifiable:
    """A project's labels as they can be certified.

    `task_ids` and `confidences` (N,) are those of the labels that could be accepted, `accepted` of
    them are already. `checked` are the holdout's, `next_ids` its tasks that wait for an answer, in
    their order. `n_unknown` other tasks may have labels, of which nothing can be told.
    """

    task_ids: NDArray[np.int64]
    confidences: NDArray[np.float64]
    accepted: frozenset[int]
    checked: CheckedLabels
    next_ids: tuple[int, ...]
    n_unknown: int
    why_not: str = ""

    def rule(self, max_error: float) -> AcceptRule:
        """Return from which confidence labels may be accepted."""
        return accept_rule(
            self.checked,
            self.confidences,
            max_error=max_error,
            delta=DELTA,
            n_unknown=self.n_unknown,
        )

    def at_least(self, threshold: float | None) -> dict[int, float]:
        """Return the confidences of the labels to accept by task; accepted ones are left out."""
        if threshold is None or self.why_not:
            return {}
        rows = zip(self.task_ids.tolist(), self.confidences.tolist(), strict=True)
        return {i: p for i, p in rows if p >= threshold and i not in self.accepted}


@dataclass(frozen=True)
class Certifier:
    """Reads what the holdout certifies; an answer is a task's whole answer to all questions."""

    guidelines: GuidelinesReader
    stores: Stores

    def certifiable(self, project: Project) -> Certifiable:
        """Return the labels of a project that could be accepted, and the holdout's."""
        said, given = self._said(project), self._given(project)
        ids, skipped = self.stores.tasks.ids(project.id), self.stores.tasks.skipped_ids(project.id)
        held_out = holdout_order(ids, seed=holdout_seed(project.id))
        sample = list(takewhile(lambda i: i in given or i in skipped, held_out))
        # only a beginning of the random order is a random sample: a hole has to be filled first
        waiting = tuple(i for i in held_out[len(sample) :] if i not in given and i not in skipped)
        checked = CheckedLabels(
            np.array([said[i].confidence if i in said else -1.0 for i in sample]),
            np.array([i in said and said[i].value == given.get(i) for i in sample], dtype=bool),
        )
        accepted = {
            label.task_id
            for label in self.stores.accepted.all(project.id)
            if label.task_id in said and region_values(label.result) == said[label.task_id].result
        }
        touched = {label.task_id for label in self.stores.tasks.human_labels(project.id)}
        # the rest of the holdout stays for people, or there would be no holdout any more
        closed = {*touched, *skipped, *held_out, *(i for i in said if not said[i].is_acceptable)}
        open_ids = [i for i in ids if i in accepted or (i in said and i not in closed)]
        known = {*sample, *open_ids}
        return Certifiable(
            np.array(open_ids, dtype=np.int64),
            np.array([said[i].confidence for i in open_ids], dtype=np.float64),
            frozenset(accepted),
            checked,
            waiting,
            sum(i not in known and (i in said or i in given) for i in ids),
            _why_not([said[i] for i in sample if i in said]),
        )

    def report(self, project: Project, max_error: float | None = None) -> dict[str, Any]:
        """Return what is certified at several error rates, JSON-ready."""
        try:
            labels = self.certifiable(project)
        except UnsupportedLabelConfig as exc:
            empty = {"n_checked": 0, "n_wrong": 0, "n_labels": 0, "n_accepted": 0}
            return {**empty, "next_task_ids": [], "why_not": str(exc), "at": []}
        rates = sorted({*ERROR_RATES, *([] if max_error is None else [max_error])})
        return {
            "n_checked": len(labels.checked),
            "n_wrong": int((~labels.checked.is_right).sum()),
            "n_labels": len(labels.task_ids) - len(labels.accepted),
            "n_accepted": len(labels.accepted),
            "next_task_ids": list(labels.next_ids[:_N_NEXT]),
            "why_not": labels.why_not,
            "at": [self._at(labels, rate) for rate in rates],
        }

    def refresh(self, project: Project) -> None:
        """Compute and store the report anew where something has changed, not too often."""
        counts = [*self.stores.tasks.counts(project.id), self.stores.accepted.count(project.id)]
        key = [project.model_version, *counts, self.stores.publication.n_published(project)]
        stored = self.stores.state.current(project, CERTIFICATE)
        age_s = time.time() - stored["made_at"] if stored else _MIN_AGE_S
        if age_s >= _MIN_AGE_S and (stored is None or stored["key"] != key):
            now = {"question_version": project.question_version, "made_at": time.time()}
            content = {**now, "key": key, **self.report(project)}
            self.stores.state.put(project.id, CERTIFICATE, content)

    def task_ids(self, project: Project) -> list[int]:
        """Return the tasks that are certified at the usual error rate, the surest label first.

        Where the stored report has none, no label is read.
        """
        report = self.stores.state.current(project, CERTIFICATE) or {"at": []}
        if not any(at["n_certified"] for at in report["at"] if at["max_error"] == MAX_ERROR):
            return []
        labels = self.certifiable(project)
        chosen = labels.at_least(labels.rule(MAX_ERROR).threshold)
        return sorted(chosen, key=lambda task_id: (-chosen[task_id], task_id))

    def _at(self, labels: Certifiable, max_error: float) -> dict[str, Any]:
        rule = labels.rule(max_error)
        more = {str(n): self._expected(labels, max_error, n) for n in _MORE}
        n_new = len(labels.at_least(rule.threshold))
        return {**asdict(rule), "n_certified": n_new, "expected_after": more}

    def _expected(self, labels: Certifiable, max_error: float, n_more: int) -> int:
        """Return how many labels are expected to be certified and not yet accepted then.

        No more answers come than the holdout has tasks that wait for one.
        """
        n_expected = expected_accepted(
            labels.checked,
            labels.confidences,
            min(n_more, len(labels.next_ids)),
            rng=np.random.default_rng(0),
            max_error=max_error,
            n_unknown=labels.n_unknown,
        )
        return max(0, round(n_expected) - len(labels.accepted))

    def _said(self, project: Project) -> dict[int, _Said]:
        """Return each task's whole label, where it has one for every question that is shown."""
        questions = self.guidelines.read(project).schema.questions
        by_task: dict[int, dict[str, WeakLabel]] = {}
        for label in self.stores.labels.weak_labels(project, annotator=AGGREGATED):
            by_task.setdefault(label.example_id, {})[label.question] = label
        results = self.stores.publication.results(project)
        said = {}
        for task_id, labels in by_task.items():
            whole = _whole(questions, labels, results.get(task_id))
            if whole is not None:
                said[task_id] = whole
        return said

    def _given(self, project: Project) -> dict[int, object]:
        """Return people's whole answers by task, in the form of what labels say."""
        guidelines = self.guidelines.read(project)
        names = [question.name for question in guidelines.schema.questions]
        consensus = self.guidelines.consensus(project, guidelines)
        by_task: dict[int, dict[str, object]] = {}
        for name, found in consensus.items():
            for task_id, one in found.labels.items():
                by_task.setdefault(task_id, {})[name] = given_value(one.answer)
        return {i: tuple(of.get(name) for name in names) for i, of in by_task.items()}


@dataclass(frozen=True, slots=True)
class _Said:
    """A task's whole label: what it says to each question, and its least certain answer's.

    `is_acceptable`: its prediction is in Label Studio, and its text is no order to the model.
    """

    value: object
    confidence: float
    is_acceptable: bool
    is_human: bool
    result: list[tuple[Any, Any]] | None


def _whole(
    questions: tuple[Question, ...], labels: Mapping[str, WeakLabel], result: list[Region] | None
) -> _Said | None:
    values: list[object] = []
    confidence = 1.0
    for question in questions:
        label = labels.get(question.name)
        if label is None:
            return None
        if label.abstention is not None:
            if label.abstention.reason is not AbstentionReason.NOT_SHOWN:
                return None
            values.append(None)
            continue
        values.append(answer_value(question, label))
        confidence = min(confidence, answer_confidence(question, label))
    given = labels.values()
    return _Said(
        tuple(values),
        confidence,
        bool(result) and not any(label.injection_flag for label in given),
        any(label.source == _HUMAN for label in given),
        None if result is None else region_values(result),
    )


def _why_not(sample: Sequence[_Said]) -> str:
    """Return why nothing can be certified now, "" where it can."""
    if not any(label.is_human for label in sample):
        return ""
    return (
        "the holdout's labels were made by an earlier version, which learned from its answers: "
        "they can be certified after the next round"
    )
