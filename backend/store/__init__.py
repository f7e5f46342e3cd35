"""Keep projects, tasks, labels, releases and rounds in SQLite or PostgreSQL."""

from __future__ import annotations

from backend.store.accepted import AcceptedStore
from backend.store.database import Database
from backend.store.issues import IssueStore
from backend.store.jobs import JobStore
from backend.store.labels import LabelStore
from backend.store.llm_cache import LLMCache
from backend.store.projects import ProjectStore, StateStore
from backend.store.publication import PublicationStore
from backend.store.releases import ReleaseStore
from backend.store.retention import RetentionStore
from backend.store.rounds import RoundStore
from backend.store.tasks import TaskStore

__all__ = [
    "AcceptedStore",
    "Database",
    "IssueStore",
    "JobStore",
    "LLMCache",
    "LabelStore",
    "ProjectStore",
    "PublicationStore",
    "ReleaseStore",
    "RetentionStore",
    "RoundStore",
    "StateStore",
    "Stores",
    "TaskStore",
]


class Stores:
    """All repositories of one database, passed to the use cases as one object."""

    def __init__(self, database: Database) -> None:
        self.waiting_at_most = database.waiting_at_most
        self.projects = ProjectStore(database)
        self.tasks = TaskStore(database)
        self.labels = LabelStore(database)
        self.publication = PublicationStore(database)
        self.releases = ReleaseStore(database)
        self.rounds = RoundStore(database)
        self.issues = IssueStore(database)
        self.jobs = JobStore(database)
        self.llm_cache = LLMCache(database)
        self.state = StateStore(database)
        self.accepted = AcceptedStore(database)
        self.retention = RetentionStore(database)
