"""Serve the routes that Label Studio calls on an ML backend, and a project's status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from backend.domain.projects import parse_project_id
from backend.errors import InvalidRequest

if TYPE_CHECKING:
    from backend.services import Services

HEALTH = {"status": "UP", "model_class": "FreeALBackend"}
"""The answer to Label Studio, here and at `/` where no browser asks."""


def health_blueprint(services: Services) -> Blueprint:
    """Build /health, which Label Studio calls too, and /ready."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    def health() -> Response:
        """Say that this process answers, and look at nothing else: `/ready` does."""
        return jsonify(HEALTH)

    @blueprint.get("/ready")
    def ready() -> tuple[Response, int]:
        report = services.readiness.report()
        return jsonify(report), 200 if report["is_ready"] else 503

    return blueprint


def ml_blueprint(services: Services, make_backend: Callable[..., Any]) -> Blueprint:
    """Build the routes of an ML backend and /status.

    Args:
        services: the use cases.
        make_backend: `model.FreeALBackend`, called with `project_id` and `label_config`.
    """
    blueprint = Blueprint("ml", __name__)

    @blueprint.post("/setup")
    def setup() -> Response:
        payload = _json_object()
        backend = make_backend(
            project_id=parse_project_id(payload.get("project")),
            label_config=_label_config(payload, "schema"),
        )
        return jsonify({"model_version": backend.connect(request.root_url)})

    @blueprint.post("/predict")
    def predict() -> Response:
        payload = _json_object()
        tasks = payload.get("tasks")
        if not isinstance(tasks, list):
            raise InvalidRequest("the request has no list of tasks under 'tasks'")
        backend = make_backend(
            project_id=parse_project_id(payload.get("project")),
            label_config=_label_config(payload, "label_config"),
        )
        return jsonify({"results": backend.predict(tasks)})

    @blueprint.post("/webhook")
    def webhook() -> tuple[Response, int]:
        payload = _json_object()
        action = payload.pop("action", None)
        if not isinstance(action, str):
            raise InvalidRequest("the webhook has no 'action'")
        backend = make_backend(project_id=None, label_config=None)
        return jsonify(backend.fit(action, payload, only_connected=True)), 201

    @blueprint.get("/versions")
    def versions() -> Response:
        body = _json_object() if request.get_data() else {}
        name = request.args.get("project") or body.get("project")
        projects = services.stores.projects
        if name is None:  # Label Studio does not say which project it means
            named = [each for each in projects.all() if each.is_connected]
        else:
            named = [each for each in [projects.named(str(name))] if each is not None]
        found = projects.versions(named[0].id) if len(named) == 1 else []
        return jsonify({"versions": found})

    @blueprint.get("/status/<project>")
    def status(project: str) -> tuple[Response, int]:
        """Report on a project; it is named by Label Studio's number or by our id."""
        report = services.reporter.find(project)
        if report is None:
            return jsonify({"error": "this project is not connected"}), 404
        return jsonify(report), 200

    return blueprint


def _json_object() -> dict[str, Any]:
    """Return the request's body; one task may be nested deep, the body around it may not."""
    try:
        payload = request.get_json(force=True, silent=True)
    except RecursionError as exc:
        raise InvalidRequest("the request body is nested too deep") from exc
    if not isinstance(payload, dict):
        raise InvalidRequest("the request body is not a JSON object")
    return payload


def _label_config(payload: dict[str, Any], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"the request has no label config under {key!r}")
    return value
