"""Keep projects, tasks, labels, releases and rounds in SQLite or PostgreSQL."""

from backend.store.database import Database
from backend.store.jobs import JobStore
from backend.store.labels import LabelStore
from backend.store.llm_cache import LLMCache
from backend.store.projects import ProjectStore
from backend.store.releases import ReleaseStore
from backend.store.rounds import RoundStore
from backend.store.state import StateStore
from backend.store.tasks import TaskStore

__all__ = [
    "LLMCache",
    "Database",
    "LabelStore",
    "ProjectStore",
    "ReleaseStore",
    "RoundStore",
    "StateStore",
    "TaskStore",
    "JobStore",
]
