"""Read label definitions from a project's YAML file, and put them into what the project asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from backend.domain.questions import Question, TaskSchema
from backend.errors import UnsuitableDefinitions

_MAX_NAMED = 20
_EXPECTED = "expected `instruction: text` and `definitions: {question: {label value: text}}`"


@dataclass(frozen=True, slots=True)
class Definitions:
    """What each label means, by question and label value, and an instruction; both optional."""

    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    instruction: str = ""

    def instruct(self, instruction: str) -> str:
        """Return a project's own instruction followed by this one."""
        return "\n\n".join(text for text in (instruction, self.instruction) if text.strip())


def read_definitions(folder: Path, platform_id: int) -> Definitions:
    """Read a project's definitions from `<project number>.yaml`; empty ones without that file.

    Raises UnsuitableDefinitions when the file holds anything else than `_EXPECTED`.
    """
    file = folder / f"{platform_id}.yaml"
    try:
        # every scalar is a text: a label "yes" or "1" is no truth value and no number
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
    except FileNotFoundError:
        return Definitions()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        why = " ".join(str(exc).split())[:300]
        raise UnsuitableDefinitions(f"{file.name} cannot be read: {why}; {_EXPECTED}") from exc
    content, name = content or {}, file.name
    if not isinstance(content, dict):
        raise UnsuitableDefinitions(f"{name} holds a {type(content).__name__}; {_EXPECTED}")
    unknown = sorted(set(content) - {"definitions", "instruction"})
    if unknown:
        raise UnsuitableDefinitions(f"{name} holds {', '.join(map(repr, unknown))}; {_EXPECTED}")
    labels, instruction = content.get("definitions") or {}, content.get("instruction") or ""
    are_texts = isinstance(labels, dict) and all(
        meanings == ""
        or (isinstance(meanings, dict) and all(isinstance(text, str) for text in meanings.values()))
        for meanings in labels.values()
    )
    if not are_texts or not isinstance(instruction, str):
        raise UnsuitableDefinitions(f"{name} holds something else than texts; {_EXPECTED}")
    return Definitions({name: meanings or {} for name, meanings in labels.items()}, instruction)


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


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - _MAX_NAMED} more" if len(quoted) > _MAX_NAMED else ""
    return ", ".join(quoted[:_MAX_NAMED]) + more
