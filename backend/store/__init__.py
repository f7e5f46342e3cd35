"""Keep projects, tasks, labels, releases and rounds in SQLite or PostgreSQL."""

from backend.store.database import Database
from backend.store.jobs import WorkStore
from backend.store.labels import LabelStore
from backend.store.llm_cache import AnswerStore
from backend.store.projects import ProjectStore
from backend.store.releases import ReleaseStore
from backend.store.rounds import RoundStore
from backend.store.state import StateStore
from backend.store.tasks import TaskStore

__all__ = [
    "AnswerStore",
    "Database",
    "LabelStore",
    "ProjectStore",
    "ReleaseStore",
    "RoundStore",
    "StateStore",
    "TaskStore",
    "WorkStore",
]
