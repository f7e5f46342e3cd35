"""What a user says about a project's labels beyond its label config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from backend.domain.questions import Question, TaskSchema
from backend.errors import UnsuitableDefinitions

_MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class Definitions:
    """What each label means, by question and label value, and an instruction; both optional."""

    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    instruction: str = ""

    def instruct(self, instruction: str) -> str:
        """Return a project's own instruction followed by this one."""
        return "\n\n".join(text for text in (instruction, self.instruction) if text.strip())


def with_definitions(
    schema: TaskSchema, definitions: Mapping[str, Mapping[str, str]]
) -> TaskSchema:
    """Return the schema with each defined label's hint replaced by its definition.

    Raises UnsuitableDefinitions for a question or a label value that the schema does not have.
    """
    questions = {question.name: question for question in schema.questions}
    for name in definitions:
        if name not in questions:
            raise UnsuitableDefinitions(
                f"the label definitions name the question {name!r}, but the label config asks "
                f"{_listed(questions)}; correct the file or the label config"
            )
    return replace(
        schema,
        questions=tuple(
            _define(question, definitions.get(question.name, {})) for question in schema.questions
        ),
    )


def _define(question: Question, meanings: Mapping[str, str]) -> Question:
    values = [label.value for label in question.labels]
    for value in meanings:
        if value not in values:
            raise UnsuitableDefinitions(
                f"the definitions of {question.name!r} name the label {value!r}, but it has "
                f"{_listed(values) or 'no labels'}; correct the file or the label config"
            )
    labels = tuple(
        replace(label, hint=meanings[label.value]) if label.value in meanings else label
        for label in question.labels
    )
    return replace(question, labels=labels)


def _listed(names: Mapping[str, object] | list[str]) -> str:
    found = [repr(name) for name in names]
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return ", ".join(found[:_MAX_NAMED]) + more
