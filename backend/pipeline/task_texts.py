"""Read tasks' texts as people are shown them; nothing is fetched for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Example
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project
from backend.errors import UnsupportedLabelConfig
from backend.store import Stores


@dataclass(frozen=True)
class TaskTexts:
    """Reads texts with a config reader that opens no link."""

    stores: Stores
    config: ConfigReader

    def read(self, project: Project, task_ids: Sequence[int]) -> dict[int, str]:
        """Return each task's texts, one below the other; tasks that are gone are left out."""
        tasks = self.stores.tasks.get(project.id, sorted(set(task_ids)))
        try:
            schema = self.config.read_schema(project.label_config)
        except UnsupportedLabelConfig:
            return {task.id: _fields(task.data) for task in tasks}
        return {task.id: _text(self.config.read_example(schema, task)) for task in tasks}


def _text(example: Example) -> str:
    reasons = (f"({why.detail or why.reason})" for why in example.missing.values())
    return "\n".join([*example.texts.values(), *reasons])


def _fields(data: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in data.items() if isinstance(value, str))
