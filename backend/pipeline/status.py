"""What a project's state is, for people and programs."""

from __future__ import annotations

from typing import Any

from backend.domain.llm_usage import Prices, Usage
from backend.domain.projects import Project
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.queue_status import QueueStatus
from backend.pipeline.rounds.status import RoundStatus
from backend.store import Stores


class StatusReporter:
    """Reads the stores; every figure is counted when it is asked for."""

    def __init__(
        self,
        stores: Stores,
        queue: QueueStatus,
        sharer: LLMBudgetPlanner,
        rounds: RoundStatus,
        *,
        prices: Prices,
    ) -> None:
        self._stores = stores
        self._queue = queue
        self._sharer = sharer
        self._rounds = rounds
        self._prices = prices

    def overview(self) -> dict[str, Any]:
        """Return the state of all projects as JSON-ready values."""
        return {
            "workers": self._stores.jobs.live_workers(),
            "projects": [self.project(project) for project in self._stores.projects.all()],
        }

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the state of a project by Label Studio's number or by our id, None if unknown."""
        for project in reversed(self._stores.projects.all()):
            if name in (project.id, str(project.platform_id)):
                return self.project(project)
        return None

    def project(self, project: Project) -> dict[str, Any]:
        """Return one project's state; counts, seconds and labels per second."""
        progress = self._stores.labels.progress(project)
        problems = self._stores.jobs.problems(project.id)
        return {
            "project": project.id,
            "platform_id": project.platform_id,
            "title": project.title,
            "is_connected": project.is_connected,
            "model_version": project.model_version,
            "served_version": self._stores.projects.served_version(project.id),
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
            **self._llm(project),
            "llm_share": self._sharer.known(project).words,
            "queue": self._queue.state(project),
            "versions": self._stores.projects.versions(project.id),
            **self._rounds.report(project),
            "events": self._stores.tasks.events(project.id),
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

    def _llm(self, project: Project) -> dict[str, Any]:
        """Return what the LLM was asked for the project, in all and by purpose."""
        by_purpose = self._stores.llm_cache.usage(project.id)
        purposes = {usage.account.purpose: self._usage(usage) for usage in by_purpose}
        totals = {
            name: sum(usage[name] for usage in purposes.values())
            for name in ("n_llm_calls", "n_prompts", "n_cache_hits", "llm_seconds", "llm_cost")
        }
        return {**totals, "llm_usage": purposes}

    def _usage(self, usage: Usage) -> dict[str, Any]:
        return {
            "n_llm_calls": usage.n_calls,
            "n_prompts": usage.n_prompts,
            "n_cache_hits": usage.n_cache_hits,
            "n_tokens_in": usage.n_tokens_in,
            "n_tokens_out": usage.n_tokens_out,
            "llm_seconds": round(usage.seconds, 3),
            "llm_cost": round(self._prices.cost(usage), 6),
        }
