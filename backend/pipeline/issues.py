"""Store the probable label errors that a round found, and read those that still stand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.domain.audit import actor, record
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project
from backend.domain.questions import Question
from backend.errors import UnsupportedLabelConfig
from backend.label_model.label_issues import GivenLabels, LabelIssue, find_label_issues
from backend.label_model.label_tables import LabelTable, Posteriors, SpanTable
from backend.label_model.labels_matrix import AggregatedMatrix
from backend.pipeline.pool import Pool
from backend.store import Stores

LABEL_ISSUES = "label_issues"


def round_issues(
    pool: Pool,
    question: Question,
    labels: tuple[LabelTable, LabelTable],
    aggregated: AggregatedMatrix,
) -> list[LabelIssue]:
    """Return the probable errors of a question's labels, people's included.

    Args:
        pool: with the labels of all annotators of the round, and people's.
        question: the question.
        labels: those in use, and the aggregated ones, made without each text's human label.
        aggregated: has the calibrated posteriors of annotators.
    """
    in_use, expected = labels
    people = pool.every_human_table(question)
    given = GivenLabels(question, in_use.overlay(people.has_label, people), people.has_label)
    matrix, ids = pool.matrices[question.name], pool.example_ids
    annotators: dict[str, LabelTable] = {
        name: SpanTable(ids, rows) for name, rows in matrix.spans.items()
    }
    for name, raw in matrix.posteriors.items():
        own = aggregated.annotator_posteriors.get(name, raw)
        annotators[name] = Posteriors(ids, own, question.kind.is_exclusive)
    return find_label_issues(given, expected, annotators)


def save_issues(stores: Stores, project: Project, issues: Sequence[LabelIssue]) -> None:
    """Replace the project's probable errors, the likeliest first."""
    ranked = sorted(issues, key=lambda issue: (-issue.error_probability, issue.example_id))
    content = {
        "question_version": project.question_version,
        "found_at": datetime.now(UTC).isoformat(),
        "issues": [issue.to_json() for issue in ranked],
    }
    stores.state.put(project.id, LABEL_ISSUES, content)


@dataclass(frozen=True)
class IssueReader:
    """Reads the probable errors of a project, and keeps which of them people dismissed."""

    stores: Stores
    config: ConfigReader

    def issues(self, project: Project, *, is_dismissed: bool = False) -> list[dict[str, Any]]:
        """Return the errors that the last round found, the likeliest first, each with its `id`.

        Those of tasks that are gone, or that people have answered (again) since, are left out.
        Dismissed ones are told apart, with `dismissed_by` and `dismissed_at`.
        """
        found = self._standing(project)
        dismissed = self.stores.issues.dismissed(project.id) if found else {}
        if not is_dismissed:
            return [issue for issue in found if issue["id"] not in dismissed]
        return [
            {**issue, "dismissed_by": by, "dismissed_at": at.isoformat()}
            for issue in found
            if issue["id"] in dismissed
            for by, at in [dismissed[issue["id"]]]
        ]

    def dismiss(self, project: Project, key: str) -> bool:
        """Say that a label is right; False where no such error stands.

        The error comes back when the label, the labels to choose from or the text has changed.
        """
        issue = next((each for each in self._standing(project) if each["id"] == key), None)
        if issue is None or not self.stores.issues.dismiss(
            project.id, issue["task_id"], key, actor()
        ):
            return False
        record("dismissed-issue", project.id, f"issue={key}")
        return True

    def undo(self, project: Project, key: str) -> bool:
        """Take a dismissal back; False where there is none."""
        is_undone = self.stores.issues.undo(project.id, key)
        if is_undone:
            record("restored-issue", project.id, f"issue={key}")
        return is_undone

    def task_ids(self, project: Project) -> list[int]:
        """Return the tasks with errors, each once, the one with the likeliest error first."""
        return list(dict.fromkeys(issue["task_id"] for issue in self.issues(project)))

    def by_answer(self, project: Project) -> dict[tuple[int, str], list[Mapping[str, Any]]]:
        """Return the errors by task and question."""
        found: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for issue in self.issues(project):
            found.setdefault((issue["task_id"], issue["question"]), []).append(issue)
        return found

    def _standing(self, project: Project) -> list[dict[str, Any]]:
        stored = self.stores.state.current(project, LABEL_ISSUES)
        if stored is None or not stored["issues"]:
            return []
        try:
            schema = self.config.read_schema(project.label_config)
        except UnsupportedLabelConfig:
            return []
        asked = {question.name: question for question in schema.questions}
        found_at = datetime.fromisoformat(stored["found_at"])
        ids = [issue["task_id"] for issue in stored["issues"]]
        standing = self.stores.issues.standing(project.id, ids, found_at)
        return [
            {"id": _key(asked[issue["question"]], issue), **issue}
            for issue in stored["issues"]
            if issue["task_id"] in standing and issue["question"] in asked
        ]


def _key(question: Question, issue: Mapping[str, Any]) -> str:
    """Return what names a statement about a label: it is right, or it is rightly missing."""
    statement = [
        question.name,
        [label.value for label in question.labels],
        issue["given"],
        issue["suggested"] if issue["given"] is None else None,
    ]
    digest = hashlib.blake2b(json.dumps(statement).encode(), digest_size=4).hexdigest()
    return f"{issue['task_id']}-{digest}"
