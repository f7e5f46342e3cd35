"""Values of settings as text in the environment, and secrets that no print shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import SettingsError

_CREDENTIALS = re.compile(r"://[^/?#\s]*@")


class Secret:
    """A value that is masked in its repr and str; `reveal` returns it."""

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


def with_driver(url: str) -> str:
    """Return a PostgreSQL URL with the driver that is installed; others as they are."""
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def as_text(value: Any) -> str:
    """Return the text from which `parse_value` makes the value; a secret's is its own."""
    if isinstance(value, Secret):
        return value.reveal()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def shown_value(value: Any) -> str:
    """Return a value for people: nothing of a secret, and no user and password in an address."""
    if isinstance(value, Secret):
        return "set" if value else "not set"
    text = str(value).lower() if isinstance(value, bool) else as_text(value)
    return without_user(text)


def without_user(text: str) -> str:
    """Return a text with no user and password in its addresses."""
    return _CREDENTIALS.sub("://", text)


def _names(raw: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in raw.split(",") if name.strip())


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda raw: _BOOLEANS[raw.lower()],
    "Path": Path,
    "Secret": Secret,
    "tuple[str, ...]": _names,
}


def parse_value(env: str, type_name: str, raw: str) -> Any:
    """Return a variable's text as a value of the named type; raises SettingsError."""
    try:
        return _PARSERS[type_name](raw)
    except (ValueError, KeyError) as exc:
        shown = "***" if type_name == "Secret" else raw
        raise SettingsError(f"{env}={shown!r}: expected {type_name}") from exc
