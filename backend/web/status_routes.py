"""How far a project is, for programs."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from backend.services import Services


def status_blueprint(services: Services) -> Blueprint:
    """Build /status/<project>; the project is Label Studio's number or our id of it."""
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status/<project>")
    def status(project: str) -> tuple[Response, int]:
        found = services.reporter.find(project)
        if found is None:
            return jsonify({"error": f"project {project} is not connected"}), 404
        return jsonify(found), 200

    return blueprint
