"""Write a project's state as one file that needs no server, no script and no other file."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, render_template
from markupsafe import Markup

from backend.domain.projects import Project
from backend.web.page import label_issues, overview, quality, rounds
from backend.web.page.part import Part, Visit
from backend.web.page.states import RecentStates

if TYPE_CHECKING:
    from backend.services import Services

_PARTS = (overview.PART, quality.PART)
_STYLE = Path(__file__).with_name("static") / "page.css"


def report(services: Services, project: Project, *, has_texts: bool) -> str:
    """Return the report as HTML: overview, quality, rounds, and how many probable label errors.

    The parts are drawn by the page's own templates from the same values. Texts of tasks are left
    out unless `has_texts`.
    """
    from backend.web.page.site import add_page

    app = Flask(__name__, static_folder=None)
    add_page(app, services)
    app.jinja_env.globals |= {"is_report": True}
    recent = RecentStates()

    def drawn(part: Part) -> Markup:
        visit = Visit(services, project, part, recent=recent)
        values = {"visit": visit, "project": project, "layout": "bare.html"}
        page = render_template(f"{part.name}.html", **values, **part.view(visit))
        return Markup(page)  # noqa: S704  (drawn by a template, which escapes)

    with app.test_request_context():
        return render_template(
            "report.html",
            project=project,
            made_at=datetime.now(UTC),
            style=Markup(_STYLE.read_text(encoding="utf-8")),  # noqa: S704  (our own file)
            parts=[(part.title, drawn(part)) for part in _PARTS],
            **rounds.view(Visit(services, project, rounds.PART)),
            **_issues(services, project, has_texts=has_texts),
        )


def _issues(services: Services, project: Project, *, has_texts: bool) -> dict[str, Any]:
    """Return the number of probable errors by question and kind, and the first with texts."""
    found = services.issues.issues(project)
    counts = Counter((issue["question"], issue["kind"]) for issue in found)
    by_people = Counter((issue["question"], issue["kind"]) for issue in found if issue["is_human"])
    visit = Visit(services, project, label_issues.PART)
    return {
        "counts": [(*key, n, by_people[key]) for key, n in sorted(counts.items())],
        "first": label_issues.view(visit) if has_texts else None,
    }
