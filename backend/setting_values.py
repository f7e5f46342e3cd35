"""One setting's value: from the text of its variable, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import SettingsError


class Secret:
    """A value that shows itself only when asked to: its repr and str are masked."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"

    __str__ = __repr__


def as_text(value: Any) -> str:
    """Return the text from which `parse` makes the value; a secret's is its own."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _boolean(raw: str) -> bool:
    choices = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return choices[raw.lower()]


def _hosts(raw: str) -> tuple[str, ...]:
    return tuple(host.strip().lower() for host in raw.split(",") if host.strip())


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": _boolean,
    "Path": Path,
    "Secret": Secret,
    "tuple[str, ...]": _hosts,
}


def parse(env: str, type_name: str, raw: str) -> Any:
    """Return a variable's text as a value of a named type; raises SettingsError."""
    try:
        return _PARSERS[type_name](raw)
    except (ValueError, KeyError) as exc:
        shown = "***" if type_name == "Secret" else raw
        raise SettingsError(f"{env}={shown!r}: expected {type_name}") from exc
