"""Record who did what: connections, changes, rounds, rollbacks and exports; no texts."""

from __future__ import annotations

import logging
from contextvars import ContextVar

_LOG = logging.getLogger("freeal.audit")
_LOG.setLevel(logging.INFO)  # whatever LOG_LEVEL says
_actor: ContextVar[str] = ContextVar("actor", default="this process")


def act_as(actor: str) -> None:
    """Name whoever is behind what this thread, or this request, does from now on."""
    _actor.set(actor)


def actor() -> str:
    """Return who is behind what this thread does."""
    return _actor.get()


def record(action: str, project_id: str, detail: str = "") -> None:
    """Write one line: the action, its project, who asked for it, and a detail if any."""
    more = f" {detail}" if detail else ""
    _LOG.info("action=%s project=%s by=%s%s", action, project_id, _actor.get(), more)
