"""What a project's state is, for people and programs."""

from __future__ import annotations

from typing import Any

from backend.core.stores import LabelStore, ProjectStore, TaskStore, WorkStore
from backend.core.types import Project


class Reporter:
    """Reads the stores; every figure is counted when it is asked for."""

    def __init__(self, stores: tuple[ProjectStore, TaskStore, LabelStore, WorkStore]) -> None:
        self._projects, self._tasks, self._labels, self._work = stores

    def overview(self) -> dict[str, Any]:
        """Return the state of all projects as JSON-ready values."""
        return {
            "workers": self._work.live_workers(),
            "projects": [self.project(project) for project in self._projects.all()],
        }

    def project(self, project: Project) -> dict[str, Any]:
        """Return one project's state; counts, seconds and labels per second."""
        progress = self._labels.progress(project)
        problems = self._work.problems(project.id)
        return {
            "project": project.id,
            "platform_id": project.platform_id,
            "title": project.title,
            "is_connected": project.is_connected,
            "model_version": project.model_version,
            "served_version": self._projects.served_version(project.id),
            "n_tasks": progress.n_tasks,
            "n_labelled": progress.n_labelled,
            "n_published": progress.n_published,
            "n_refused": progress.n_refused,
            "n_to_label": progress.n_to_label,
            "n_human_labelled_tasks": progress.n_human_labelled,
            "n_human_labels": progress.n_human_labels,
            "n_abstained": progress.n_abstained,
            "abstentions": dict(progress.abstentions),
            "labels_per_s": round(progress.labels_per_s, 2),
            "seconds_left": progress.seconds_left,
            "n_tokens_in": progress.n_tokens_in,
            "n_tokens_out": progress.n_tokens_out,
            "is_complete": progress.is_complete,
            "events": self._tasks.events(project.id),
            "problems": [
                {
                    "source": problem.source,
                    "message": problem.message,
                    "first_seen_at": problem.first_seen_at.isoformat(),
                    "last_seen_at": problem.last_seen_at.isoformat(),
                    "n_times": problem.n_times,
                }
                for problem in problems
            ],
        }
