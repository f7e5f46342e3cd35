"""What gunicorn and `label-studio-ml start` run: `gunicorn _wsgi:app`."""

from __future__ import annotations

import argparse
from dataclasses import replace

from flask import Flask

from backend.files import keep_private
from backend.services import build_services
from backend.settings import Secret, Settings
from backend.web.app import build_app
from model import FreeALBackend


def create_app(settings: Settings) -> Flask:
    """Build the services and the application; raises SettingsError and StoreUnavailable."""
    settings.configure_logging()
    keep_private(settings.home)
    # of the web process's threads some are left for /health, whatever the others wait for
    max_writers = max(1, settings.web_threads // 4)
    services = build_services(settings, fetches_models=False, max_writers=max_writers)
    FreeALBackend.services = services
    return build_app(services, FreeALBackend)


def main() -> None:
    """Serve with Flask's own server, as `label-studio-ml start` does; production is gunicorn."""
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
else:
    app = create_app(Settings.from_env())
