"""A dialogue as one text, a line per turn, and where Label Studio counts each of its characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """What one person said; `start` is where it begins in the dialogue's text."""

    start: int
    said: str

    @property
    def end(self) -> int:
        """Where it ends in the dialogue's text."""
        return self.start + len(self.said)


@dataclass(frozen=True, slots=True)
class Place:
    """A span as Label Studio has it: turns by index, offsets within them in UTF-16 units.

    `text` is what was said there, without the names.
    """

    start: int
    start_offset: int
    end: int
    end_offset: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """All turns: "who: what", a line's end within a turn being a space."""

    text: str
    turns: tuple[Turn, ...]

    def to_place(self, start: int, end: int) -> Place | None:
        """Return a span of the text in Label Studio's terms; None when nothing said is in it."""
        parts = [
            (index, max(start, turn.start) - turn.start, min(end, turn.end) - turn.start)
            for index, turn in enumerate(self.turns)
            if max(start, turn.start) < min(end, turn.end)
        ]
        if not parts:
            return None
        (first, start_offset, _), (last, _, end_offset) = parts[0], parts[-1]
        said = [self.turns[index].said[begin:stop] for index, begin, stop in parts]
        return Place(
            first,
            _n_units(self.turns[first].said[:start_offset]),
            last,
            _n_units(self.turns[last].said[:end_offset]),
            "\n".join(said),
        )

    def from_place(self, place: Place) -> tuple[int, int] | None:
        """Return a span of the text; None when it does not lie in this dialogue."""
        n_turns = len(self.turns)
        if not (0 <= place.start <= place.end < n_turns):
            return None
        first, last = self.turns[place.start], self.turns[place.end]
        start = first.start + _n_characters(first.said, place.start_offset)
        end = last.start + _n_characters(last.said, place.end_offset)
        return (start, end) if start < end else None


def read_dialogue(value: Any, keys: tuple[str, str]) -> Dialogue | None:
    """Return the dialogue in a list of turns; None when it is none or nothing is said."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    lines: list[str] = []
    turns: list[Turn] = []
    position = 0
    for item in value:
        if not isinstance(item, Mapping):
            return None
        who, said = (_as_line(item.get(key)) for key in keys)
        prefix = f"{who}: " if who else ""
        turns.append(Turn(position + len(prefix), said))
        lines.append(prefix + said)
        position += len(prefix) + len(said) + 1
    if not any(turn.said.strip() for turn in turns):
        return None
    return Dialogue("\n".join(lines), tuple(turns))


def _as_line(value: Any) -> str:
    """Return a value as one line of the same length, in characters that can be stored."""
    if not isinstance(value, str | int | float):
        return ""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text.replace("\n", " ").replace("\r", " ")


def _n_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _n_characters(text: str, n_units: int) -> int:
    return len(text.encode("utf-16-le")[: 2 * max(n_units, 0)].decode("utf-16-le", "ignore"))
