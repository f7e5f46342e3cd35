"""Read the one date or time in an answer; what is ambiguous is none."""

from __future__ import annotations

import re
from datetime import datetime

_ISO = re.compile(
    r"(?<!\d)(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::\d{2})?)?(?!\d)", re.IGNORECASE
)
_TIME = re.compile(
    r"(?<![\d:])(\d{1,2}):(\d{2})(?::\d{2})?\s*([ap]\.?m\b\.?)?(?![\d:])", re.IGNORECASE
)
_NAMED = re.compile(
    r"(?<!\w)(?:(\d{1,2})(?:st|nd|rd|th|\.)?\s+(?:of\s+)?)?([A-Za-z]{3,9})\.?\s+"
    r"(?:(\d{1,2})(?:st|nd|rd|th)?,?\s+)?(\d{4})(?!\d)"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_HALF_DAY = 12
_MAX_CHARS = 1_000


def parse_date(answer: str, date_format: str) -> str | None:
    """Return the only date or time that an answer holds, in a `strftime` format; None for none.

    The format itself is tried first, then ISO 8601, then a month by its English name. Where the
    format has no date, a time is enough; a date without a time begins at midnight. Neither is
    there for two different dates, nor for 3/4/2021, which has two readings.
    """
    if len(answer) > _MAX_CHARS:
        return None
    text = answer.strip().strip("\"'`.")
    try:
        return _formatted(datetime.strptime(text, date_format), date_format)
    except ValueError:
        pass
    has_date = any(part in date_format for part in ("%d", "%m", "%Y", "%y", "%B", "%b", "%j"))
    found = _dates(answer) if has_date else _times(answer)
    return _formatted(found.pop(), date_format) if len(found) == 1 else None


def _dates(answer: str) -> set[datetime]:
    found = set()
    for year, month, day, hour, minute in _ISO.findall(answer):
        found |= _moment(year, month, day, hour or 0, minute or 0)
    times = _times(answer)
    moment = times.pop() if len(times) == 1 else None
    for before, name, after, year in _NAMED.findall(answer):
        month = name[:3].lower()
        if month in _MONTHS and bool(before) != bool(after):
            hour, minute = (moment.hour, moment.minute) if moment else (0, 0)
            found |= _moment(year, _MONTHS.index(month) + 1, before or after, hour, minute)
    return found


def _times(answer: str) -> set[datetime]:
    found = set()
    for hour, minute, half in _TIME.findall(answer):
        n_hours = int(hour)
        if half:
            is_late = half.lower().startswith("p")
            n_hours = n_hours % _HALF_DAY + (_HALF_DAY if is_late else 0)
        found |= _moment(2000, 1, 1, n_hours, minute)
    return found


def _moment(*parts: str | int) -> set[datetime]:
    """Return the moment of these parts; none where there is no such one."""
    try:
        year, month, day, hour, minute = map(int, parts)
        return {datetime(year, month, day, hour, minute)}
    except ValueError:
        return set()


def _formatted(moment: datetime, date_format: str) -> str:
    return moment.strftime(date_format)
