"""Write each log record so that no text from outside can pass for a record of its own."""

from __future__ import annotations

import logging
import re

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTINUED = "\n    "


class LogFormatter(logging.Formatter):
    """Format a record with its further lines indented and control characters spelled out."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text; its first line alone begins in the first column."""
        lines = super().format(record).split("\n")
        return _CONTINUED.join(_CONTROL.sub(_spelled, line) for line in lines)


def _spelled(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
