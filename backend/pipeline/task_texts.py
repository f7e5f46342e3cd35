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
        found = self.examples(project, task_ids)
        return {task_id: _text(example) for task_id, example in found.items()}

    def examples(self, project: Project, task_ids: Sequence[int]) -> dict[int, Example]:
        """Return each task's texts by field; of a config that cannot be read, all of its data."""
        tasks = self.stores.tasks.get(project.id, sorted(set(task_ids)))
        try:
            schema = self.config.read_schema(project.label_config)
        except UnsupportedLabelConfig:
            return {task.id: Example(task.id, _fields(task.data)) for task in tasks}
        return {task.id: self.config.read_example(schema, task) for task in tasks}

    def quotes(
        self, project: Project, issues: Sequence[Mapping[str, Any]]
    ) -> dict[tuple[str, str], str]:
        """Return the words of each span that an issue names, by the issue's id and its label."""
        try:
            asked = self.config.read_schema(project.label_config).questions
        except UnsupportedLabelConfig:
            return {}
        fields = {one.name: one.fields[0].name for one in asked if one.kind.has_spans}
        concerned = [issue for issue in issues if issue["question"] in fields]
        examples = self.examples(project, [issue["task_id"] for issue in concerned])
        quotes = {}
        for issue in concerned:
            example = examples.get(issue["task_id"])
            text = example.texts.get(fields[issue["question"]], "") if example else ""
            for label in filter(None, (issue["given"], issue["suggested"])):
                start, end = map(int, label.rpartition(" ")[2].split("-"))
                quotes[issue["id"], label] = text[start:end]
        return quotes


def _text(example: Example) -> str:
    reasons = (f"({why.detail or why.reason})" for why in example.missing.values())
    return "\n".join([*example.texts.values(), *reasons])


def _fields(data: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in data.items() if isinstance(value, str)}
