"""Show how far a project is, how right its labels are, and what to do."""

from __future__ import annotations

from typing import Any

from backend.web.page.part import Part, Visit


def view(visit: Visit) -> dict[str, Any]:
    """Return the project's state, as `status --json` does."""
    return {"state": visit.services.reporter.project(visit.project)}


PART = Part("overview", "Overview", view)
