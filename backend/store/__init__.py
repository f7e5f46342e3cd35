"""Keep projects, tasks, labels, releases and rounds in SQLite or PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass

from backend.store.database import Database
from backend.store.jobs import JobStore
from backend.store.labels import LabelStore
from backend.store.llm_cache import LLMCache
from backend.store.projects import ProjectStore, StateStore
from backend.store.releases import ReleaseStore
from backend.store.rounds import RoundStore
from backend.store.tasks import TaskStore

__all__ = [
    "Database",
    "JobStore",
    "LLMCache",
    "LabelStore",
    "ProjectStore",
    "ReleaseStore",
    "RoundStore",
    "StateStore",
    "Stores",
    "TaskStore",
]


@dataclass(frozen=True, slots=True)
class Stores:
    """All repositories of one database, passed to the use cases as one object."""

    projects: ProjectStore
    tasks: TaskStore
    labels: LabelStore
    releases: ReleaseStore
    rounds: RoundStore
    jobs: JobStore
    llm_cache: LLMCache
    state: StateStore

    @classmethod
    def open(cls, database: Database) -> Stores:
        """Return the repositories of a database."""
        return cls(
            projects=ProjectStore(database),
            tasks=TaskStore(database),
            labels=LabelStore(database),
            releases=ReleaseStore(database),
            rounds=RoundStore(database),
            jobs=JobStore(database),
            llm_cache=LLMCache(database),
            state=StateStore(database),
        )
