"""Show which tasks people get next and why, what they answered lately, and the order's health."""

from __future__ import annotations

from typing import Any

from backend.web.page.paging import PAGE_SIZE, Paging
from backend.web.page.part import Part, Visit

_ANY_NUMBER = 2**31


def view(visit: Visit) -> dict[str, Any]:
    """Return one page of the queue, as `queue --json` tells it, with the tasks' texts."""
    reporter, project = visit.services.reporter, visit.project
    paging = Paging.of(visit.args, _ANY_NUMBER)
    upcoming = reporter.upcoming(project, PAGE_SIZE, paging.offset)
    paging = Paging.of(visit.args, upcoming.n_open)
    if upcoming.n_open and not upcoming.places:
        upcoming = reporter.upcoming(project, PAGE_SIZE, paging.offset)
    answered = reporter.answered(project)
    ids = [place.task_id for place in upcoming.places] + [one["task_id"] for one in answered]
    return {
        "queue": reporter.queue(project),
        "upcoming": upcoming,
        "paging": paging,
        "answered": answered,
        "texts": visit.services.task_texts.read(project, [i for i in ids if i is not None]),
    }


PART = Part("queue", "Queue", view)
