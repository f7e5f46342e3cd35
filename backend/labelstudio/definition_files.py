"""Label definitions in YAML files, one per project, named by the project's number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from backend.domain.definitions import Definitions
from backend.errors import UnsuitableDefinitions

_EXPECTED = "expected `instruction: text` and `definitions: {question: {label value: text}}`"


class DefinitionFiles:
    """The definitions in a folder; read anew at each call, so that an edit counts at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, platform_id: int) -> Definitions:
        """Return a project's definitions, empty ones where it has no file.

        Raises UnsuitableDefinitions when the file is not what is expected.
        """
        file = self._folder / f"{platform_id}.yaml"
        try:
            # every scalar is a text: a label "yes" or "1" is no truth value and no number
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
        except FileNotFoundError:
            return Definitions()
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            why = " ".join(str(exc).split())[:300]
            raise UnsuitableDefinitions(f"{file.name} cannot be read: {why}; {_EXPECTED}") from exc
        return _parse(file.name, content or {})


def _parse(name: str, content: Any) -> Definitions:
    if not isinstance(content, dict):
        raise UnsuitableDefinitions(f"{name} holds a {type(content).__name__}; {_EXPECTED}")
    unknown = sorted(set(content) - {"definitions", "instruction"})
    if unknown:
        raise UnsuitableDefinitions(f"{name} holds {', '.join(map(repr, unknown))}; {_EXPECTED}")
    labels, instruction = content.get("definitions") or {}, content.get("instruction") or ""
    if not isinstance(instruction, str) or not _is_table_of_texts(labels):
        raise UnsuitableDefinitions(f"{name} holds something else than texts; {_EXPECTED}")
    return Definitions({name: meanings or {} for name, meanings in labels.items()}, instruction)


def _is_table_of_texts(labels: Any) -> bool:
    return isinstance(labels, dict) and all(
        meanings == ""
        or (isinstance(meanings, dict) and all(isinstance(text, str) for text in meanings.values()))
        for meanings in labels.values()
    )
