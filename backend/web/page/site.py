"""Serve the page: its routes, the answers to its forms, and the headers that keep it closed."""

from __future__ import annotations

import secrets
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    abort,
    flash,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from backend.domain.projects import ProjectId
from backend.errors import InvalidRequest
from backend.web.ml_routes import HEALTH
from backend.web.page import (
    accept,
    label_issues,
    overview,
    quality,
    queue,
    rounds,
    settings_view,
)
from backend.web.page.formatting import FILTERS
from backend.web.page.part import Part, Visit
from backend.web.page.states import RecentStates

if TYPE_CHECKING:
    from backend.services import Services

PARTS: tuple[Part, ...] = (
    overview.PART,
    quality.PART,
    label_issues.PART,
    queue.PART,
    rounds.PART,
    accept.PART,
    settings_view.PART,
)
"""The tabs of a project, in their order."""
_KEY = "page_key"
# The hash is that of nothing: the plots add an empty style element, whose rules a script inserts.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def asks_for_page(request: Request) -> bool:
    """Return whether a browser asks; Label Studio and other programs do not name HTML."""
    return any(kind == "text/html" for kind, _ in request.accept_mimetypes)


def add_page(app: Flask, services: Services) -> None:
    """Add the page to the application, whose other routes take no forms."""
    app.config |= {
        "SECRET_KEY": _secret_key(services),
        "SESSION_COOKIE_NAME": "freeal",
        "SESSION_COOKIE_SAMESITE": "Lax",
        "WTF_CSRF_TIME_LIMIT": None,  # as long as the browser is open
        "WTF_CSRF_CHECK_DEFAULT": False,
    }
    app.jinja_env.filters.update(FILTERS)
    protection = CSRFProtect(app)
    blueprint = page_blueprint(services)
    blueprint.before_request(protection.protect)
    app.register_blueprint(blueprint)

    @app.after_request
    def close_up(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if response.mimetype == "text/html":
            response.headers["Cache-Control"] = "no-store"
            response.vary.add("Accept")
        return response


def error_page(status: int, message: str) -> Response:
    """Return an error as a page, which needs no database."""
    return make_response(render_template("error.html", message=message), status)


def page_blueprint(services: Services) -> Blueprint:
    """Build the list of projects, the tabs of each, and what these load."""
    blueprint = Blueprint(
        "page",
        __name__,
        template_folder="templates",
        static_folder="static",
        static_url_path="/static",
    )
    recent = RecentStates()
    visit_of = partial(_visit, services, recent)

    @blueprint.get("/")
    def index() -> str | Response:
        if not asks_for_page(request):
            return jsonify(HEALTH)
        found = recent.get("", partial(services.reporter.overview, is_brief=True))
        return _render(services, "projects.html", {"overview": found})

    @blueprint.get("/projects/<project>/")
    def first_tab(project: str) -> AnyResponse:
        return redirect(url_for("page.tab", project=project, name=PARTS[0].name))

    @blueprint.get("/projects/<project>/<name>")
    def tab(project: str, name: str) -> str:
        visit = visit_of(project, name)
        values = {"visit": visit, "project": visit.project, "parts": PARTS}
        return _render(services, f"{name}.html", values | dict(visit.part.view(visit)))

    @blueprint.get("/projects/<project>/<name>/<file>")
    def part_file(project: str, name: str, file: str) -> Response:
        visit = visit_of(project, name)
        make = visit.part.files.get(file) or abort(404)
        return make(visit)

    @blueprint.post("/projects/<project>/<name>/<action>")
    def act(project: str, name: str, action: str) -> AnyResponse:
        """Do what a form asks for, and show its tab again with what came of it."""
        visit = visit_of(project, name)
        answer = visit.part.actions.get(action) or abort(404)
        try:
            flash(answer(visit))
        except InvalidRequest as exc:
            flash(str(exc), "error")
        recent.forget()
        return redirect(visit.url(), 303)

    @blueprint.get("/static/plotly.min.js")
    def plotly() -> Response:
        return send_file(_plotly_file(), max_age=86_400)

    return blueprint


def _render(services: Services, template: str, values: dict[str, Any]) -> str:
    """Draw a template of the page, which says at the top when no worker is alive."""
    workers = services.stores.jobs.live_workers()
    return render_template(template, has_worker=bool(workers), **values)


def _visit(services: Services, recent: RecentStates, project: str, name: str) -> Visit:
    found = services.stores.projects.named(project)
    if found is None:
        raise NotFound("this project was never connected to this backend, or its data is deleted")
    part = next((part for part in PARTS if part.name == name), None) or abort(404)
    return Visit(services, found, part, request.args.to_dict(), request.form, recent)


def _secret_key(services: Services) -> str:
    """Return what signs forms and cookies: one key for all web processes, made once."""
    state, nobody = services.stores.state, ProjectId("")
    return str(state.get(nobody, _KEY) or state.put_first(nobody, _KEY, secrets.token_hex(32)))


@lru_cache(maxsize=1)
def _plotly_file() -> Path:
    """Return the script that the package plotly ships; the package itself is not imported."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package plotly is not installed")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
