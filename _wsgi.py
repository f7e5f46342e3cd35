"""What a WSGI server (`_wsgi:app`) and `label-studio-ml start` run; see `python -m backend web`."""

from __future__ import annotations

import argparse
from dataclasses import replace

from flask import Flask

from backend.files import keep_private
from backend.services import build_services
from backend.settings import Secret, Settings
from backend.web.app import build_app
from backend.web.server import WebServerPlan, serve_application
from model import FreeALBackend

_made: dict[str, Flask] = {}


def create_app(settings: Settings) -> Flask:
    """Build the services and the application; raises SettingsError and StoreUnavailable."""
    settings.check_exposure()
    settings.configure_logging()
    keep_private(settings.home)
    # of the web process's threads some are left for /health, whatever the others wait for
    max_writers = max(1, settings.web_threads // 4)
    services = build_services(settings, fetches_models=False, max_writers=max_writers)
    FreeALBackend.services = services
    return build_app(services, FreeALBackend)


def serve_web(settings: Settings) -> None:
    """Serve until SIGTERM; raises OSError where the port is taken, and what `create_app` does."""
    application = create_app(settings)
    plan = WebServerPlan(
        settings.host,
        settings.port,
        n_threads=settings.web_threads,
        max_body=settings.max_request_mb * 1024**2,
        shares_port=settings.web_processes > 1,
    )
    serve_application(application.wsgi_app, plan)


def __getattr__(name: str) -> Flask:
    """Build `app` when a server asks for it, once."""
    if name != "app":
        raise AttributeError(name)
    if not _made:
        _made[name] = create_app(Settings.from_env())
    return _made[name]


def main() -> None:
    """Serve with Flask's own server, as `label-studio-ml start` does."""
    parser = argparse.ArgumentParser(description="FreeAL for Label Studio")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--basic-auth-user", default="")
    parser.add_argument("--basic-auth-pass", default="")
    options, _ = parser.parse_known_args()
    user, password = options.basic_auth_user, options.basic_auth_pass
    settings = Settings.from_env()
    if user and password:
        settings = replace(settings, basic_auth_user=user, basic_auth_pass=Secret(password))
    create_app(settings).run(host=options.host, port=options.port)


if __name__ == "__main__":
    main()
