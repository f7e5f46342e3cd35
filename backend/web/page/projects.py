"""Show the list of projects: how far each is, and what keeps it from going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.services import Services


def view(services: Services) -> dict[str, Any]:
    """Return the state of all projects, as `status --json` does."""
    return {"overview": services.reporter.overview()}
