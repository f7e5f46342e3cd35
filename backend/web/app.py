"""Build the Flask application: routes, authentication, request limits and error answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from backend.domain.audit import act_as
from backend.errors import (
    BackendError,
    InvalidRequest,
    LanguageModelError,
    PlatformError,
    StoreUnavailable,
)
from backend.web.access import AccessRules
from backend.web.metrics import metrics_blueprint
from backend.web.ml_routes import health_blueprint, ml_blueprint
from backend.web.page.site import add_page, asks_for_page, error_page

if TYPE_CHECKING:
    from backend.services import Services

_LOG = logging.getLogger(__name__)
_MAX_REASON = 300  # characters of the status line
_FAILED = (500, "unexpected error; the backend's log has the details")
# In answers no paths, addresses and names of databases: these are in the log.
_FAILURES = {
    StoreUnavailable: (503, "the database cannot be read or written; the backend's log says why"),
    PlatformError: (502, "Label Studio gave no usable answer; the backend's log says why"),
    LanguageModelError: (502, "the LLM server gave no usable answer; the backend's log says why"),
}
_HTTP_ERRORS = {
    404: "there is no such route; see docs/operations.md",
    405: "this route takes another HTTP method",
    413: "the request is too large; MAX_REQUEST_MB is the limit",
}


def build_app(services: Services, make_backend: Callable[..., Any]) -> Flask:
    """Build the application; see `ml_blueprint` for `make_backend`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.max_request_mb * 1024**2
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(health_blueprint(services))
    app.register_blueprint(ml_blueprint(services, make_backend))
    app.register_blueprint(metrics_blueprint(services))
    add_page(app, services)
    rules = AccessRules(services)

    @app.before_request
    def check_access() -> Response | None:
        refusal = rules.refusal(request)
        if refusal is None:
            user = request.authorization.username if request.authorization else None
            act_as(f"{request.remote_addr}" + (f" user={user}" if user else ""))
            return None
        if request.method != "GET":
            _LOG.warning("%s %s from %s refused: %d", *_who(), refusal[0])
        response = _error(*refusal)
        if refusal[0] == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="freeal"'
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        code = error.code or 500
        if isinstance(error, CSRFError):
            return _error(code, "this form is not of the page as it is now: load it again")
        is_ours = error.description != type(error).description
        message = error.description if is_ours else _HTTP_ERRORS.get(code, error.name)
        return _error(code, message or error.name)

    @app.errorhandler(BackendError)
    def backend_error(error: BackendError) -> Response:
        if isinstance(error, InvalidRequest):
            return _error(400, str(error))
        _LOG.error("%s %s: %s", request.method, request.path, error)
        status, message = next(
            (answer for kind, answer in _FAILURES.items() if isinstance(error, kind)), _FAILED
        )
        return _error(status, message)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.path, exc_info=error)
        return _error(*_FAILED)

    return app


def _who() -> tuple[str, str, str | None]:
    return request.method, request.path, request.remote_addr


def _error(status: int, message: str) -> Response:
    """Put one sentence into the body and the status line: Label Studio shows the latter only."""
    response: Response = jsonify({"error": message})
    if asks_for_page(request):
        response = error_page(status, message)
    words = " ".join(message.split()).encode("latin-1", "replace").decode("latin-1")
    reason = "".join(char if char.isprintable() else "?" for char in words[:_MAX_REASON])
    response.status = f"{status} {reason}"
    return response
