"""Serve the routes that Label Studio calls on an ML backend, and a project's status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from backend.domain.projects import ProjectId
from backend.errors import InvalidRequest

if TYPE_CHECKING:
    from backend.services import Services


def ml_blueprint(services: Services, make_backend: Callable[..., Any]) -> Blueprint:
    """Build the routes of an ML backend and /status.

    Args:
        services: the use cases.
        make_backend: `model.FreeALBackend`, called with `project_id` and `label_config`.
    """
    blueprint = Blueprint("ml", __name__)

    @blueprint.get("/")
    @blueprint.get("/health")
    def health() -> Response:
        services.database.check_writable()
        return jsonify({"status": "UP", "model_class": "FreeALBackend"})

    @blueprint.post("/setup")
    def setup() -> Response:
        payload = _json_object()
        backend = make_backend(
            project_id=_project_id(payload), label_config=_label_config(payload, "schema")
        )
        return jsonify({"model_version": backend.connect()})

    @blueprint.post("/predict")
    def predict() -> Response:
        payload = _json_object()
        tasks = payload.get("tasks")
        if not isinstance(tasks, list):
            raise InvalidRequest("the request has no list of tasks under 'tasks'")
        backend = make_backend(
            project_id=_project_id(payload), label_config=_label_config(payload, "label_config")
        )
        return jsonify({"results": backend.predict(tasks)})

    @blueprint.post("/webhook")
    def webhook() -> tuple[Response, int]:
        payload = _json_object()
        action = payload.pop("action", None)
        if not isinstance(action, str):
            raise InvalidRequest("the webhook has no 'action'")
        backend = make_backend(project_id=None, label_config=None)
        return jsonify(backend.fit(action, payload)), 201

    @blueprint.get("/versions")
    def versions() -> Response:
        body = request.get_json(force=True, silent=True)
        project = request.args.get("project") or (body or {}).get("project")
        projects, found = services.stores.projects, []
        if project:
            found = projects.versions(ProjectId(str(project)))
        else:  # Label Studio does not say which project it means
            connected = [each for each in projects.all() if each.is_connected]
            found = projects.versions(connected[0].id) if len(connected) == 1 else []
        return jsonify({"versions": found})

    @blueprint.get("/status/<project>")
    def status(project: str) -> tuple[Response, int]:
        """Report on a project; it is named by Label Studio's number or by our id."""
        report = services.reporter.find(project)
        if report is None:
            return jsonify({"error": f"project {project} is not connected"}), 404
        return jsonify(report), 200

    return blueprint


def _json_object() -> dict[str, Any]:
    payload = request.get_json(force=True, silent=True)
    if not isinstance(payload, dict):
        raise InvalidRequest("the request body is not a JSON object")
    return payload


def _project_id(payload: dict[str, Any]) -> str:
    value = payload.get("project")
    number, _, created = str(value).partition(".")
    if not isinstance(value, str) or not number.isdigit() or not created.isdigit():
        raise InvalidRequest("'project' must be '<id>.<unix creation time>', as Label Studio sends")
    return value


def _label_config(payload: dict[str, Any], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"the request has no label config under {key!r}")
    return value
