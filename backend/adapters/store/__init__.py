"""The database: the only place that knows SQLAlchemy. SQLite or PostgreSQL from one code."""

from backend.adapters.store.answers import AnswerStore
from backend.adapters.store.database import Database
from backend.adapters.store.labels import LabelStore
from backend.adapters.store.projects import ProjectStore
from backend.adapters.store.releases import ReleaseStore
from backend.adapters.store.rounds import RoundStore
from backend.adapters.store.state import StateStore
from backend.adapters.store.tasks import TaskStore
from backend.adapters.store.work import WorkStore

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
