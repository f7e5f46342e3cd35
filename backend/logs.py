"""Logging to standard error, one line per event; never task text, prompts or keys."""

from __future__ import annotations

import logging

from backend.settings import Settings

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_LOUD = ("httpx", "httpcore", "urllib3", "alembic", "sqlalchemy.engine", "dbos")


def configure_logging(settings: Settings) -> None:
    """Set the level of our own log lines; libraries speak only when something is wrong."""
    logging.basicConfig(format=_FORMAT, level=settings.log_level, force=True)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
