"""Store the probable label errors that a round found, and read those that still stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.domain.projects import Project
from backend.domain.questions import Question
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
    people = pool.human_table(question)
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
    """Reads the probable errors of a project."""

    stores: Stores

    def issues(self, project: Project) -> list[dict[str, Any]]:
        """Return the errors that the last round found, the likeliest first.

        Those of tasks that are gone, or that people have answered (again) since, are left out.
        """
        stored = self.stores.state.current(project, LABEL_ISSUES)
        if stored is None:
            return []
        found_at = datetime.fromisoformat(stored["found_at"])
        answered = {
            label.task_id
            for label in self.stores.tasks.human_labels(project.id)
            if label.updated_at > found_at
        }
        standing = set(self.stores.tasks.ids(project.id)) - answered
        return [issue for issue in stored["issues"] if issue["task_id"] in standing]

    def by_answer(self, project: Project) -> dict[tuple[int, str], list[Mapping[str, Any]]]:
        """Return the errors by task and question."""
        found: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for issue in self.issues(project):
            found.setdefault((issue["task_id"], issue["question"]), []).append(issue)
        return found
