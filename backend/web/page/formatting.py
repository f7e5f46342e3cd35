"""Write numbers, shares, intervals and times as people read them; the templates' filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

NOTHING = "–"


def count(value: float | None) -> str:
    """Return a count with its thousands parted."""
    return NOTHING if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits after the point."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def share(value: float | None, digits: int = 1) -> str:
    """Return a share in [0, 1] as a percentage."""
    return NOTHING if value is None else f"{value:.{digits}%}"


def interval(estimate: Mapping[str, Any] | None) -> str:
    """Return an estimate of a share with its 95 % interval."""
    if estimate is None:
        return NOTHING
    return f"{estimate['value']:.1%} ({estimate['low']:.1%} to {estimate['high']:.1%})"


def duration(seconds: float) -> str:
    """Return a number of seconds in its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def time_left(seconds: float | None) -> str:
    """Return how long work goes on; None where that is not known."""
    if seconds is None:
        return "time left unknown"
    return f"{duration(seconds)} left" if seconds else "nothing left"


def moment(value: datetime | str | None) -> str:
    """Return a time, given as such or in ISO 8601, to the minute and in its own zone."""
    if value is None:
        return NOTHING
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{found:%Y-%m-%d %H:%M} {found.tzname() or ''}".strip()


def annotator(name: str) -> str:
    """Return an annotator's stored name as people read it, with its model where it has one."""
    kind, _, model = name.partition(":")
    words = {"llm": "LLM", "small-model": "student"}.get(kind, kind)
    return words if kind == "small-model" or not model else f"{words} {model}"


def sentence(words: str) -> str:
    """Return words with their first letter large."""
    return words[:1].upper() + words[1:]


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "decimal": decimal,
    "share": share,
    "interval": interval,
    "duration": duration,
    "moment": moment,
    "annotator": annotator,
    "sentence": sentence,
}
