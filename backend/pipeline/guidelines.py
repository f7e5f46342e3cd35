"""What a project asks, with its label definitions, and its tasks as annotators read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain.definitions import Definitions, with_definitions
from backend.domain.labels import Example
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project, Task
from backend.domain.questions import Question, TaskSchema
from backend.label_model.crowd import Consensus, HumanAnswer, estimate_consensus, is_evidence
from backend.store import Stores


@dataclass(frozen=True, slots=True)
class Guidelines:
    """What annotators are told: the questions and the instruction."""

    schema: TaskSchema
    instruction: str


class GuidelinesReader:
    """Reads a project's brief, its examples and what people answered."""

    def __init__(
        self,
        config: ConfigReader,
        stores: Stores,
        definitions: Callable[[int], Definitions] = lambda platform_id: Definitions(),
    ) -> None:
        self._config = config
        self._stores = stores
        self._definitions = definitions

    def read(self, project: Project) -> Guidelines:
        """Return the brief; raises UnsupportedLabelConfig."""
        definitions = self._definitions(project.platform_id)
        schema = with_definitions(
            self._config.read_schema(project.label_config), definitions.labels
        )
        return Guidelines(schema, definitions.instruct(project.instruction))

    def examples(self, guidelines: Guidelines, tasks: Sequence[Task]) -> list[Example]:
        """Return the tasks' texts, in order."""
        return [self._config.read_example(guidelines.schema, task) for task in tasks]

    def people(self, project: Project, guidelines: Guidelines) -> dict[str, Consensus]:
        """Return what people say about each question: one label per task that has an answer."""
        labels = [
            label for label in self._stores.tasks.human_labels(project.id) if is_evidence(label)
        ]
        data = {
            task.id: task.data
            for task in self._stores.tasks.get(
                project.id, sorted({label.task_id for label in labels})
            )
        }
        votes: dict[str, list[HumanAnswer]] = {
            question.name: [] for question in guidelines.schema.questions
        }
        for label in labels:
            if label.task_id not in data:
                continue
            answers = self._config.read_answers(
                guidelines.schema, label.result, data[label.task_id]
            )
            for name, answer in answers.items():
                votes[name].append(HumanAnswer(label, answer))
        return {
            question.name: estimate_consensus(question, votes[question.name])
            for question in guidelines.schema.questions
        }


def class_by_example(question: Question, consensus: Consensus) -> Mapping[int, int]:
    """Return people's answers to an exclusive question as class indices by example id."""
    if not question.kind.is_exclusive:
        return {}
    index = {label.value: at for at, label in enumerate(question.labels)}
    return {
        example_id: index[label.answer.labels[0]]
        for example_id, label in consensus.labels.items()
        if label.answer.labels and label.answer.labels[0] in index
    }


def labels_by_example(question: Question, consensus: Consensus) -> Mapping[int, frozenset[int]]:
    """Return people's answers to a multiple choice as positions of labels, by example id."""
    if not question.kind.is_multilabel:
        return {}
    index = {label.value: at for at, label in enumerate(question.labels)}
    return {
        example_id: frozenset(index[value] for value in label.answer.labels if value in index)
        for example_id, label in consensus.labels.items()
    }
