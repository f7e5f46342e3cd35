"""Remember with which settings the demo's backend runs, so that other commands find it."""

from __future__ import annotations

import json
import os
from contextlib import closing

from backend.errors import LauncherError
from backend.files import replacing_file
from backend.settings import Settings

DEMO = "demo"
"""Folder of the demo's backend in FREEAL_HOME."""
_FILE = "settings.json"


def remember(settings: Settings) -> None:
    """Write the settings of the demo's backend into its folder, for their owner only."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing_file(settings.home / _FILE) as part:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(settings.to_env(), out, indent=2)


def remembered(settings: Settings) -> Settings | None:
    """Return the demo's settings where these are of no backend of the user's own, else None.

    A backend of one's own has a token of Label Studio, a DATABASE_URL, or projects in FREEAL_HOME;
    the demo's own folder has only what the demo wrote.
    """
    if settings.label_studio_api_key or settings.database_url:
        return None
    file = settings.home / _FILE
    if not file.exists():
        file = settings.home / DEMO / _FILE
        if not file.exists() or _has_projects(settings):
            return None
    try:
        return Settings.from_env({str(k): str(v) for k, v in json.loads(file.read_text()).items()})
    except (ValueError, AttributeError) as exc:
        raise LauncherError(f"{file} holds no settings; `make demo` writes it anew") from exc


def _has_projects(settings: Settings) -> bool:
    from backend.services import build_services

    if not (settings.home / "freeal.db").exists():
        return False
    with closing(build_services(settings)) as services:
        return services.stores.projects.count() > 0
